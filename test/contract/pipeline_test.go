package contract

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// lined is a Topic and a Mailbox named after a Pipeline, and the Pipeline that takes from one to the other. more is indented by two.
func lined(name, more string) string {
	return fmt.Sprintf("apiVersion: waybill.dev/v1alpha1\nkind: Topic\nmetadata: {name: %[1]s}\nspec: {brokerRef: {name: main}}\n---\n"+
		"apiVersion: waybill.dev/v1alpha1\nkind: Mailbox\nmetadata: {name: %[1]s}\nspec: {brokerRef: {name: main}}\n---\n"+
		"apiVersion: waybill.dev/v1alpha1\nkind: Pipeline\nmetadata: {name: %[1]s}\nspec:\n  from: {topicRef: {name: %[1]s}}\n  to: {mailboxRef: {name: %[1]s}}\n%[2]s", name, more)
}

func publish(t *testing.T, address, id, data string, headers ...string) {
	t.Helper()
	post(t, address, data, append([]string{"Content-Type", "application/json", "ce-specversion", "1.0", "ce-type", "t", "ce-source", "/s", "ce-id", id}, headers...)...).want(http.StatusAccepted)
}

func TestPipelineSteps(t *testing.T) {
	t.Parallel()
	says(t, "F13", "F12")
	enrich := serveAPI(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body) // what is cut off is no JSON
		var line struct{ Sku string }
		if json.Unmarshal(b, &line) != nil {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		switch line.Sku {
		case "free":
			w.WriteHeader(http.StatusNoContent)
		case "same":
			w.WriteHeader(http.StatusOK) // without a body nothing changes
		case "text":
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, "süß")
		case "bytes":
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write([]byte{0xff, 0})
		default:
			fmt.Fprintf(w, `{"sku":%q,"price":1.10,"key":%q}`, line.Sku, r.Header.Get("Ce-Partitionkey"))
		}
	})
	p := serve(t, lined("orders", fmt.Sprintf(`  ordering: Key
  steps:
  - {name: open, filter: {cel: 'data.state == "open"'}}
  - {name: once, dedupe: {key: {cel: 'data.id'}, window: 10m}}
  - {name: lines, split: {cel: 'data.lines'}}
  - {name: line, transform: {cel: 'data.omit(["note"])'}}
  - {name: enrich, http: {uri: %s}}
  - {name: again, split: {cel: 'type(data) == map ? [data, data] : [data]'}}`, enrich.URL)))
	topic := p.at("Topic", "orders", "")
	publish(t, topic, "1", `{"id":"a","state":"open","lines":[{"sku":"pen","note":1},{"sku":"free"},{"sku":"same","n":9007199254740993},{"sku":"text"},{"sku":"bytes"}]}`, "ce-partitionkey", "k")
	publish(t, topic, "2", `{"id":"b","state":"closed","lines":[{"sku":"no"}]}`)
	publish(t, topic, "3", `{"id":"a","state":"open","lines":[{"sku":"no"}]}`, "ce-partitionkey", "k")
	publish(t, topic, "4", `{"id":"c","state":"open","lines":[]}`)
	publish(t, topic, "5", `{"id":"d","state":"open","lines":[{"sku":"end"}]}`, "ce-partitionkey", "k")
	want := []string{
		`1-0-0 {"sku":"pen","price":1.10,"key":"k"}`, `1-0-1 {"sku":"pen","price":1.10,"key":"k"}`, `1-2-0 {"sku":"same","n":9007199254740993}`, `1-2-1 {"sku":"same","n":9007199254740993}`,
		`1-3-0 "süß"`, `1-4-0 "/wA="`, `5-0-0 {"sku":"end","price":1.10,"key":"k"}`, `5-0-1 {"sku":"end","price":1.10,"key":"k"}`,
	}
	var got []string
	for _, l := range taken(t, p.at("Mailbox", "orders", ""), len(want)) {
		var e map[string]json.RawMessage
		if err := json.Unmarshal(l.Event, &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, l.attribute(t, "id")+" "+string(e["data"])+string(e["data_base64"]))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestHTTPStepKeepsTheOrderOfAKey(t *testing.T) {
	t.Parallel()
	says(t, "F12")
	const keys, each, concurrency = 8, 25, 6
	var mu sync.Mutex
	atOnce, most := 0, 0
	perKey := map[string]int{}
	slow := serveAPI(t, func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Ce-Partitionkey")
		mu.Lock()
		atOnce++
		perKey[key]++
		most = max(most, atOnce)
		if perKey[key] > 1 {
			t.Errorf("two calls at once for the key %s", key)
		}
		mu.Unlock()
		<-time.After(time.Duration(rand.IntN(20)) * time.Millisecond)
		b, _ := io.ReadAll(r.Body) // compared below
		mu.Lock()
		atOnce--
		perKey[key]--
		mu.Unlock()
		_, _ = w.Write(b)
	})
	p := serve(t, lined("work", fmt.Sprintf("  ordering: Key\n  steps: [{name: slow, http: {uri: %s, concurrency: %d}}]", slow.URL, concurrency)))
	for i := range each {
		for k := range keys {
			publish(t, p.at("Topic", "work", ""), fmt.Sprintf("%d-%d", k, i), fmt.Sprint(i), "ce-partitionkey", fmt.Sprint(k))
		}
	}
	next := map[string]int{}
	for _, l := range taken(t, p.at("Mailbox", "work", ""), keys*each) {
		key := l.attribute(t, "partitionkey")
		if got := l.attribute(t, "data"); got != fmt.Sprint(next[key]) {
			t.Fatalf("key %s: %s came, %d was next", key, got, next[key])
		}
		next[key]++
	}
	mu.Lock()
	defer mu.Unlock()
	if most < 2 || most > concurrency {
		t.Errorf("%d calls at once, want 2 to %d", most, concurrency)
	}
}

func TestPipelineReplies(t *testing.T) {
	t.Parallel()
	says(t, "F11")
	p := serve(t, `
apiVersion: waybill.dev/v1alpha1
kind: Endpoint
metadata: {name: sum}
spec: {pattern: RequestResponse, path: /sum, to: {mailboxRef: {name: sum}}, timeout: 10s}
---
apiVersion: waybill.dev/v1alpha1
kind: Mailbox
metadata: {name: sum}
spec: {brokerRef: {name: main}, ordering: None}
---
apiVersion: waybill.dev/v1alpha1
kind: Pipeline
metadata: {name: sum}
spec:
  from: {mailboxRef: {name: sum}}
  steps: [{name: wanted, filter: {cel: 'data != [0]'}}, {name: sum, transform: {cel: '{"sum": data.sum()}'}}]
  to: {reply: {}}`)
	url := p.ready("Endpoint", "sum").Address
	if a := post(t, url, `[1, 2.5, 3]`, "Content-Type", "application/json").want(http.StatusOK); a.body != `{"sum":6.5}` || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %q", a.header.Get("Content-Type"), a.body)
	}
	// What fails is told to who waits, with the step and never with the data.
	detail := post(t, url, `["s3cret"]`, "Content-Type", "application/json").problem(http.StatusBadGateway, "")
	if !strings.Contains(detail, "step sum") || strings.Contains(detail, "s3cret") {
		t.Errorf("the requester was told: %s", detail)
	}
	if a := post(t, url, `[]`, "Content-Type", "application/json").want(http.StatusOK); a.body != `{"sum":0}` {
		t.Errorf("then %q", a.body)
	}
	// Who waits for what is dropped need not wait to the end.
	if a := post(t, url, `[0]`, "Content-Type", "application/json").want(http.StatusNoContent); a.body != "" {
		t.Errorf("of what was dropped came %q", a.body)
	}
}

func TestFlowsStoreNoMoreThanMaxMessageBytes(t *testing.T) {
	t.Parallel()
	says(t, "E15")
	var manifests []string
	for _, kind := range []string{"topicRef", "mailboxRef"} {
		manifests = append(manifests, fmt.Sprintf(`
apiVersion: waybill.dev/v1alpha1
kind: Subscription
metadata: {name: to-%[1]s}
spec: {topicRef: {name: large}, deliverTo: {%[2]s: {name: small-%[1]s}}, deadLetter: {mailboxRef: {name: dead}}}
---
apiVersion: waybill.dev/v1alpha1
kind: Pipeline
metadata: {name: to-%[1]s}
spec: {from: {topicRef: {name: large}}, to: {%[2]s: {name: small-%[1]s}}, deadLetter: {mailboxRef: {name: dead}}}`, strings.ToLower(kind), kind))
	}
	p := serve(t, append(manifests, "kind: Topic\nmetadata: {name: large}\nspec: {brokerRef: {name: main}}",
		"kind: Mailbox\nmetadata: {name: dead}\nspec: {brokerRef: {name: main}}",
		"kind: Topic\nmetadata: {name: small-topicref}\nspec: {brokerRef: {name: main}, maxMessageBytes: 1Ki}",
		"kind: Mailbox\nmetadata: {name: small-mailboxref}\nspec: {brokerRef: {name: main}, maxMessageBytes: 1Ki}")...)
	large := p.at("Topic", "large", "")
	publish(t, large, "over", strings.Repeat("x", 1<<10+1))
	publish(t, large, "fits", strings.Repeat("x", 1<<10))
	for _, l := range taken(t, p.at("Mailbox", "dead", ""), 4) {
		if id, reason, last := l.attribute(t, "id"), l.attribute(t, "wbreason"), l.attribute(t, "wblasterror"); id != "over" || reason != "Terminal" || !strings.Contains(last, "1024 are the most") {
			t.Errorf("%s was dead-lettered by %s: %s, %s", id, l.attribute(t, "wborigin"), reason, last)
		}
	}
	if got := each(t, taken(t, p.at("Mailbox", "small-mailboxref", ""), 1), "id"); !slices.Equal(got, []string{"fits"}) {
		t.Errorf("the mailbox has %v", got) // once, for its broker knows the id of the other one
	}
}

func TestPipelineFailsOneMessageAlone(t *testing.T) {
	t.Parallel()
	says(t, "F14")
	var mu sync.Mutex
	tries := map[string]int{}
	step := serveAPI(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body) // compared below
		var m struct{ Do string }
		_ = json.Unmarshal(b, &m) // only good ones get here
		mu.Lock()
		tries[m.Do]++
		n := tries[m.Do]
		mu.Unlock()
		switch {
		case m.Do == "refuse":
			w.WriteHeader(http.StatusUnprocessableEntity)
		case m.Do == "fail", m.Do == "recover" && n < 3:
			w.WriteHeader(http.StatusInternalServerError)
		default:
			_, _ = w.Write(b)
		}
	})
	steps := fmt.Sprintf("  retry: {maxAttempts: 4, backOff: {initial: 10ms, max: 20ms}}\n  steps:\n  - {name: shape, transform: {cel: '{\"do\": data.do}'}}\n  - {name: call, http: {uri: %s}}\n", step.URL)
	p := serve(t, "kind: Mailbox\nmetadata: {name: dead}\nspec: {brokerRef: {name: main}}",
		lined("parked", steps+"  deadLetter: {mailboxRef: {name: dead}}"), lined("blocked", steps+"  ordering: Key\n  onFailure: Block"))
	// Good ones between the bad, so that the destination is known to be well.
	topic := p.at("Topic", "parked", "")
	for i, data := range []string{`{"do":"a"}`, `{"s3cret":"shape"}`, `{"do":"b"}`, `not JSON`, `{"do":"refuse"}`, `{"do":"c"}`, `{"do":"recover"}`} {
		publish(t, topic, fmt.Sprint(i), data)
	}
	got := each(t, taken(t, p.at("Mailbox", "parked", ""), 4), "id")
	slices.Sort(got)
	if !slices.Equal(got, []string{"0", "2", "5", "6"}) {
		t.Errorf("came through: %v, want 0, 2, 5 and 6", got)
	}
	publish(t, topic, "alone", `{"do":"fail"}`)
	dead := map[string]lent{}
	for _, l := range taken(t, p.at("Mailbox", "dead", ""), 4) {
		dead[l.attribute(t, "id")] = l
	}
	for id, want := range map[string][3]string{"1": {"Terminal", "1", "step shape"}, "3": {"Terminal", "1", "step shape"}, "4": {"Terminal", "1", "422"}, "alone": {"AttemptsExhausted", "4", "500"}} {
		l, ok := dead[id]
		if !ok {
			t.Errorf("%s was not dead-lettered", id)
			continue
		}
		reason, attempts, last := l.attribute(t, "wbreason"), l.attribute(t, "wbattempts"), l.attribute(t, "wblasterror")
		if reason != want[0] || attempts != want[1] || !strings.Contains(last, want[2]) || strings.Contains(last, "s3cret") || l.attribute(t, "wborigin") != "Pipeline/default/parked" {
			t.Errorf("%s: %s after %s: %s", id, reason, attempts, last)
		}
	}

	topic = p.at("Topic", "blocked", "")
	publish(t, topic, "1", `{"do":"refuse"}`, "ce-partitionkey", "stuck")
	publish(t, topic, "2", `{"do":"x"}`, "ce-partitionkey", "stuck")
	publish(t, topic, "3", `{"do":"y"}`, "ce-partitionkey", "free")
	if got := each(t, taken(t, p.at("Mailbox", "blocked", ""), 1), "id"); !slices.Equal(got, []string{"3"}) {
		t.Errorf("came through: %v, want only 3: the other key is blocked", got)
	}
	if more := receive(t, p.at("Mailbox", "blocked", ""), "wait=500ms"); len(more) != 0 {
		t.Errorf("%v passed the blocked one", each(t, more, "id"))
	}
}
