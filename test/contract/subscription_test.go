package contract

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestBlockStopsTheKeyAndOthersGoOn(t *testing.T) {
	t.Parallel()
	says(t, "P19")
	var mended atomic.Bool
	bad := func(w http.ResponseWriter, p pushed, _ int) {
		if p.header.Get("Ce-Id") == "2" && !mended.Load() {
			w.WriteHeader(map[string]int{"/terminal": 400, "/exhausted": 500, "/strict": 422, "/unordered": 415, "/retried": 404}[p.path])
		}
	}
	block := []string{"onFailure: Block", "retry: {maxAttempts: 2, backOff: {initial: 10ms, max: 50ms}}"}
	key, strict := append([]string{"ordering: Key"}, block...), append([]string{"ordering: Strict"}, block...)
	routes := []route{
		{name: "terminal", own: true, spec: key, answer: bad}, {name: "exhausted", own: true, spec: key, answer: bad},
		{name: "strict", own: true, spec: strict, answer: bad}, {name: "unordered", own: true, spec: block, answer: bad},
	}
	r := push(t, routes)
	// Key 0 has 0, 2, 4, …: its second message is the bad one.
	const messages = 20
	for _, to := range routes {
		for i := range messages {
			r.publish(to.name, strconv.Itoa(i), "ce-partitionkey", strconv.Itoa(i%2))
		}
	}
	done := map[string][]string{ // before it is mended
		"terminal": {"0", "1", "3", "5", "7", "9", "11", "13", "15", "17", "19"}, "exhausted": {"0", "1", "3", "5", "7", "9", "11", "13", "15", "17", "19"}, "strict": {"0", "1"},
	}
	for i := range messages {
		if i != 2 {
			done["unordered"] = append(done["unordered"], strconv.Itoa(i))
		}
	}
	for _, to := range routes {
		var s status
		eventually(t, to.name+" to be blocked", func() bool {
			s = r.subscription(to.name)
			return s.Condition == "BlockedKeys" && int(s.Counts.Out) == len(done[to.name])
		})
		if !strings.Contains(s.Message, "answered 4") && !strings.Contains(s.Message, "answered 500") || !strings.Contains(s.Message, "/"+to.name+"); message id=2 source=") || s.Counts.DeadLettered != 0 {
			t.Errorf("%s: %+v", to.name, s)
		}
		r.awaitPushes(to.name, len(r.pushes(to.name))+4) // it is tried again and again
		var got []string
		for _, id := range ids(r.pushes(to.name)) {
			if id != "2" {
				got = append(got, id)
			}
		}
		slices.Sort(got)
		want := slices.Sorted(slices.Values(done[to.name]))
		if !slices.Equal(got, want) {
			t.Errorf("%s: beside the blocked one %v were pushed, want %v", to.name, got, want)
		}
	}
	mended.Store(true)
	for _, to := range routes {
		eventually(t, to.name+" to be delivered", func() bool { return r.subscription(to.name).Counts.Out == messages })
		if s := r.settled(to.name); s.Condition != "" || s.Counts.DeadLettered != 0 {
			t.Errorf("%s: when it is mended: %+v", to.name, s)
		}
		if to.name != "unordered" {
			inOrder(t, r.pushes(to.name))
		}
	}
	if got := slices.Compact(ids(r.pushes("strict"))); !slices.IsSortedFunc(got, func(a, b string) int { x, _ := strconv.Atoi(a); y, _ := strconv.Atoi(b); return x - y }) {
		t.Errorf("Strict: %v", got)
	}
}

func TestAtMostOnceIsOneAttempt(t *testing.T) {
	t.Parallel()
	says(t, "P14", "F15")
	once := []string{"guarantee: AtMostOnce", "timeout: 300ms"}
	release := make(chan struct{})
	answers := map[string]func(w http.ResponseWriter, p pushed, n int){
		"s500": always(500), "s400": always(400), "s404": always(404), "busy": func(w http.ResponseWriter, _ pushed, _ int) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(429)
		},
		"reset": func(w http.ResponseWriter, _ pushed, _ int) { hangUp(w) },
		"slow":  func(_ http.ResponseWriter, _ pushed, _ int) { <-release },
	}
	var routes []route
	for name, answer := range answers {
		routes = append(routes, route{name: name, own: true, spec: append([]string{"ordering: Key"}, once...), answer: answer})
	}
	routes = append(routes, route{name: "well", own: true, spec: once})
	r := push(t, routes)
	t.Cleanup(func() { close(release) })
	const messages = 15 // more than open a breaker
	for _, to := range routes {
		for i := range messages {
			r.publish(to.name, strconv.Itoa(i), "ce-partitionkey", strconv.Itoa(i%5))
		}
		if e := r.ready("Subscription", to.name); e.Guarantee != "AtMostOnce" || e.DeadLetter != "" {
			t.Errorf("%s: %s", to.name, e.raw)
		}
	}
	for _, to := range routes {
		var s status
		eventually(t, to.name+" to have tried all", func() bool {
			s = r.subscription(to.name)
			return s.Counts.In == messages && s.Counts.Held == 0 && len(r.pushes(to.name)) >= messages
		})
		if got := ids(r.pushes(to.name)); len(slices.Compact(slices.Sorted(slices.Values(got)))) != messages || len(got) != messages {
			t.Errorf("%s: pushed %v, want each of %d once", to.name, got, messages)
		}
		if s.Counts.Retried != 0 || s.Counts.DeadLettered != 0 || s.Condition != "" {
			t.Errorf("%s: %+v", to.name, s)
		}
	}
	// What makes no sense with one attempt is refused.
	for field, value := range map[string]string{"spec.retry": "retry: {maxAttempts: 2}", "spec.deadLetter": "deadLetter: {mailboxRef: {name: well-dead}}", "spec.onFailure": "onFailure: Block"} {
		to := route{name: "well", own: true, uri: "http://example.com", spec: append([]string{value}, once...)}
		documents := append([]string{broker, "kind: Mailbox\nmetadata: {name: well-dead}\nspec: {brokerRef: {name: main}}"}, to.documents("")...)
		if code, out, _ := waybill(t, "validate", "-f", manifest(t, documents...), "-o", "json"); code != 1 || !strings.Contains(out, `"field":"`+field+`"`) {
			t.Errorf("%s: validate gives %d: %s", field, code, out)
		}
	}
}

func TestGuaranteeStandsOnThreeKinds(t *testing.T) {
	t.Parallel()
	says(t, "F15")
	kinds := map[string]string{
		"Subscription": "kind: Subscription\nmetadata: {name: x}\nspec: {topicRef: {name: in}, deliverTo: {uri: 'http://example.com'}",
		"Pipeline":     "kind: Pipeline\nmetadata: {name: x}\nspec: {from: {topicRef: {name: in}}, to: {topicRef: {name: out}}",
		"Endpoint":     "kind: Endpoint\nmetadata: {name: x}\nspec: {pattern: RequestAck, path: /x, to: {mailboxRef: {name: box}}",
		"Mailbox":      "kind: Mailbox\nmetadata: {name: x}\nspec: {brokerRef: {name: main}",
		"Topic":        "kind: Topic\nmetadata: {name: x}\nspec: {brokerRef: {name: main}",
	}
	others := []string{broker, "kind: Topic\nmetadata: {name: in}\nspec: {brokerRef: {name: main}}", "kind: Topic\nmetadata: {name: out}\nspec: {brokerRef: {name: main}}",
		"kind: Mailbox\nmetadata: {name: box}\nspec: {brokerRef: {name: main}}"}
	for kind, document := range kinds {
		for _, guarantee := range []string{"AtLeastOnce", "Sometimes"} {
			code, out, _ := waybill(t, "validate", "-f", manifest(t, append(others[:4:4], document+", guarantee: "+guarantee+"}")...), "-o", "json")
			stands := kind == "Subscription" || kind == "Pipeline" || kind == "Endpoint"
			if want := stands && guarantee == "AtLeastOnce"; want != (code == 0) {
				t.Errorf("%s with guarantee %s: %d: %s", kind, guarantee, code, out)
			} else if !want && !strings.Contains(out, "guarantee") {
				t.Errorf("%s with guarantee %s is refused without naming it: %s", kind, guarantee, out)
			}
		}
	}
	p := serve(t, append(others[1:], kinds["Subscription"]+", guarantee: AtLeastOnce}", kinds["Pipeline"]+", guarantee: AtMostOnce}", kinds["Endpoint"]+", guarantee: AtLeastOnce}")...)
	for kind, want := range map[string]string{"Subscription": "AtLeastOnce", "Pipeline": "AtMostOnce", "Endpoint": "AtLeastOnce"} {
		if e := p.ready(kind, "x"); e.Guarantee != want {
			t.Errorf("%s: %s", kind, e.raw)
		}
	}
}

func TestStartFromDecidesOnlyWhereANewPositionBegins(t *testing.T) {
	t.Parallel()
	says(t, "P20")
	subscriber := subscribe(t, nil)
	data := t.TempDir()
	topic := "kind: Topic\nmetadata: {name: in}\nspec: {brokerRef: {name: main}}"
	sub := func(name, more string) string {
		return "kind: Subscription\nmetadata: {name: " + name + "}\nspec: {topicRef: {name: in}, deliverTo: {uri: '" + subscriber.URL + "/" + name + "'}" + more + "}"
	}
	orderings := []string{"None", "Key", "Strict"}
	pushes := func(name string) []string {
		return ids(slices.DeleteFunc(subscriber.all(), func(p pushed) bool { return p.path != "/"+name }))
	}
	publish := func(p *process, ids ...string) {
		t.Helper()
		for _, id := range ids {
			post(t, p.at("Topic", "in", "/"), "m", "ce-id", id, "ce-source", "/s", "ce-type", "t", "ce-specversion", "1.0", "ce-partitionkey", "k").want(http.StatusAccepted)
		}
	}
	run := func(documents ...string) *process {
		t.Helper()
		return start(t, "-f", manifest(t, append([]string{broker, topic}, documents...)...), "--data", data).awaitUp()
	}
	got := func(name string, want ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s to have %v", name, want), func() bool { return len(pushes(name)) >= len(want) })
		if all := pushes(name); !slices.Equal(all, want) {
			t.Errorf("%s was pushed %v, want %v", name, all, want)
		}
	}

	p := run()
	publish(p, "a", "b")
	<-time.After(5 * time.Millisecond) // between two publishes lies a moment
	between := time.Now().UTC()
	// A moment is a second in a manifest: the next one begins it.
	between = between.Truncate(time.Second).Add(time.Second)
	<-time.After(time.Until(between) + 10*time.Millisecond)
	publish(p, "c")
	p.signal(os.Interrupt)

	// Each position begins where it is told.
	first := func(ordering string) []string {
		name, order := strings.ToLower(ordering), ", ordering: "+ordering
		return []string{sub("earliest-"+name, order+", startFrom: {position: Earliest}"), sub("latest-"+name, order+", startFrom: {position: Latest}"), sub("default-"+name, order),
			sub("time-"+name, order+", startFrom: {position: Time, time: '"+between.Format(time.RFC3339)+"'}"),
			sub("later-"+name, order+", startFrom: {position: Time, time: '2100-01-01T00:00:00Z'}")}
	}
	var documents []string
	for _, o := range orderings {
		documents = append(documents, first(o)...)
	}
	p = run(documents...)
	publish(p, "d")
	for _, o := range orderings {
		name := strings.ToLower(o)
		for _, k := range []struct {
			name string
			ids  []string
		}{{"earliest-", []string{"a", "b", "c", "d"}}, {"latest-", []string{"d"}}, {"default-", []string{"d"}}, {"time-", []string{"c", "d"}}, {"later-", []string{"d"}}} {
			eventually(t, "pushes to "+k.name+name, func() bool { return len(pushes(k.name+name)) >= len(k.ids) })
			all := pushes(k.name + name)
			if o == "None" {
				slices.Sort(all)
			}
			if !slices.Equal(all, k.ids) {
				t.Errorf("%s%s was pushed %v, want %v", k.name, name, all, k.ids)
			}
			eventually(t, k.name+name+" to have settled", func() bool { return int(p.status("Subscription", k.name+name).Counts.Out) == len(k.ids) })
		}
	}
	p.signal(os.Interrupt)

	// And only then: while they are away something is published, and they come back with another startFrom.
	p = run()
	publish(p, "e")
	p.signal(os.Interrupt)
	documents = nil
	for _, o := range orderings {
		name, order := strings.ToLower(o), ", ordering: "+o
		documents = append(documents, sub("earliest-"+name, order+", startFrom: {position: Latest}"), sub("latest-"+name, order+", startFrom: {position: Earliest}"),
			sub("time-"+name, order+", startFrom: {position: Earliest}"), sub("default-"+name, order+", startFrom: {position: Time, time: '2020-01-01T00:00:00Z'}"))
	}
	p = run(documents...)
	publish(p, "f")
	for _, o := range orderings {
		name := strings.ToLower(o)
		for prefix, before := range map[string][]string{"earliest-": {"a", "b", "c", "d"}, "latest-": {"d"}, "default-": {"d"}, "time-": {"c", "d"}} {
			eventually(t, "e and f at "+prefix+name, func() bool { return len(pushes(prefix+name)) >= len(before)+2 })
			if all := pushes(prefix + name); !slices.Equal(slices.Sorted(slices.Values(all)), append(before, "e", "f")) {
				t.Errorf("%s%s was pushed %v after its startFrom was changed", prefix, name, all)
			}
		}
	}
	got("latest-strict", "d", "e", "f")
}

func TestOrderHoldsUnderFaults(t *testing.T) {
	t.Parallel()
	says(t, "P5", "P19")
	const messages, keys = 120, 7
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	faults := map[string][]string{} // by id: what its tries meet
	for i := range messages {
		for range random.IntN(4) {
			faults[strconv.Itoa(i)] = append(faults[strconv.Itoa(i)], []string{"500", "503", "429", "404", "reset", "cut", "302"}[random.IntN(7)])
		}
	}
	type at struct{ route, id string }
	var mu sync.Mutex
	tries := map[at]int{}
	inHand := map[at]int{} // by route and key
	var routes []route
	for _, ordering := range []string{"None", "Key", "Strict"} {
		name := strings.ToLower(ordering)
		routes = append(routes, route{name: name, spec: []string{"ordering: " + ordering, "retry: {maxAttempts: 100, backOff: {initial: 1ms, max: 5ms}}"}, answer: func(w http.ResponseWriter, p pushed, _ int) {
			id, key := p.header.Get("Ce-Id"), p.header.Get("Ce-Partitionkey")
			if ordering == "Strict" {
				key = ""
			}
			mu.Lock()
			n := tries[at{name, id}]
			tries[at{name, id}]++
			if inHand[at{name, key}]++; inHand[at{name, key}] > 1 && ordering != "None" {
				t.Errorf("%s: two messages of key %q at a time", ordering, key)
			}
			mu.Unlock()
			<-time.After(time.Duration(n) * time.Millisecond)
			mu.Lock()
			inHand[at{name, key}]-- // before the answer, after which the next one may come
			mu.Unlock()
			if n >= len(faults[id]) {
				return
			}
			switch fault := faults[id][n]; fault {
			case "reset":
				hangUp(w)
			case "cut":
				w.Header().Set("Content-Length", "100")
				w.WriteHeader(http.StatusInternalServerError)
			default:
				w.Header().Set("Retry-After", "0")
				status, _ := strconv.Atoi(fault)
				w.WriteHeader(status)
			}
		}})
	}
	r := push(t, routes)
	for i := range messages {
		for _, to := range routes {
			r.publish(to.name, strconv.Itoa(i), "ce-partitionkey", strconv.Itoa(i%keys))
		}
	}
	for _, to := range routes {
		eventually(t, to.name+" to be delivered", func() bool { return r.subscription(to.name).Counts.Out == messages })
		if s := r.settled(to.name); s.Counts.DeadLettered != 0 {
			t.Errorf("%s: %+v", to.name, s)
		}
		for i := range messages {
			id := strconv.Itoa(i)
			if n := count(r.pushes(to.name), id); n != len(faults[id])+1 {
				t.Errorf("%s: %s was pushed %d times with %v", to.name, id, n, faults[id])
			}
		}
	}
	inOrder(t, r.pushes("key"))
	last := -1
	for _, id := range ids(r.pushes("strict")) {
		n, _ := strconv.Atoi(id)
		if n != last && n != last+1 {
			t.Errorf("Strict: %d was pushed after %d", n, last)
		}
		last = n
	}
}
