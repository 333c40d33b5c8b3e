package contract

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestTheBreakerOpensProbesAndCloses(t *testing.T) {
	t.Parallel()
	says(t, "P6", "P10")
	var up atomic.Bool
	var atOnce, most, since atomic.Int64 // pushes in hand at the same time, the most of them since the breaker was seen open
	r := push(t, []route{{name: "in", spec: []string{"retry: {maxAttempts: 2, " + soon + "}"}, answer: func(w http.ResponseWriter, _ pushed, _ int) {
		n := atOnce.Add(1)
		defer atOnce.Add(-1)
		if since.Load() > 0 {
			most.Store(max(most.Load(), n))
		}
		<-time.After(5 * time.Millisecond)
		if !up.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}}})
	for i := range 30 {
		r.publish("in", strconv.Itoa(i))
	}
	eventually(t, "the breaker to open", func() bool { return r.subscription("in").Condition == "DestinationDown" })
	s := r.subscription("in")
	if want := "answered 500 Internal Server Error (" + r.subscriber.URL + "/in)"; !strings.HasSuffix(s.Message, want) || s.State != "Running" {
		t.Errorf("/status says %s %s: %q, want it to end with %q", s.State, s.Condition, s.Message, want)
	}
	const series = `waybill_flow_breaker_open{kind="Subscription",name="in",namespace="default"}`
	if v := r.metric(series); v != 1 {
		t.Errorf("/metrics: %s is %v while it is open", series, v)
	}
	send(t, http.MethodGet, r.root("/readyz"), "").want(http.StatusOK) // others are served: it is the destination that is down
	eventually(t, "pushes from before the breaker opened to end", func() bool { return atOnce.Load() <= 1 })
	since.Store(1)
	before := r.pushes("in")
	probes := r.awaitPushes("in", len(before)+12)[len(before):]
	if most.Load() > 1 {
		t.Errorf("%d probes at a time", most.Load())
	}
	if seen := slices.Compact(slices.Sorted(slices.Values(ids(probes)))); len(seen) < 3 {
		t.Errorf("only %v were tried as probes: a poison message among them would keep it open", seen)
	}
	if s := r.subscription("in"); s.Counts.DeadLettered != 0 || s.Counts.Out != 0 {
		t.Errorf("while it is down: %+v", s)
	}
	up.Store(true)
	eventually(t, "all to be delivered", func() bool { return r.subscription("in").Counts.Out == 30 })
	if s := r.settled("in"); s.Counts.DeadLettered != 0 || s.Condition != "" || s.Message != "" {
		t.Errorf("once it is up: %+v", s)
	}
	if v := r.metric(series); v != 0 {
		t.Errorf("/metrics: %s is %v when it is closed", series, v)
	}
	if v := r.metric(`waybill_flow_dead_lettered_total{kind="Subscription",name="in",namespace="default"`); v > 0 {
		t.Errorf("%v dead letters", v)
	}
}

func TestFailuresToConnectAreNoAttempts(t *testing.T) {
	t.Parallel()
	says(t, "P9")
	one := []string{"retry: {maxAttempts: 1, " + soon + "}", "timeout: 1s"}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := l.Addr().String()
	l.Close()
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler()) // of a certificate that nobody trusts
	secure.Config.ErrorLog = quiet
	secure.StartTLS()
	t.Cleanup(secure.Close)
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.Config.ErrorLog = quiet
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11} //nolint:gosec // a server too old to talk to
	old.StartTLS()
	t.Cleanup(old.Close)
	routes := []route{
		{name: "refused", spec: one, uri: "http://" + refused + "/in"},
		{name: "unknown", spec: one, uri: "http://no-such-host.invalid/in"},
		{name: "untrusted", spec: one, uri: secure.URL},
		{name: "old", spec: one, uri: old.URL},
		{name: "reset", spec: one, answer: func(w http.ResponseWriter, _ pushed, n int) {
			if n <= 20 {
				hangUp(w)
			}
		}},
	}
	r := push(t, append(routes, route{name: "plain", spec: one, uri: "https://" + refused + "/in"}))
	for _, to := range append(routes, route{name: "plain"}) {
		r.publish(to.name, "one")
	}
	for name, want := range map[string]string{"refused": "refused", "unknown": "no-such-host.invalid", "untrusted": "certificate", "old": "tls", "plain": "refused"} {
		var s status
		eventually(t, name+" to be tried again and again", func() bool { s = r.subscription(name); return s.Counts.Retried >= 8 })
		if s.Counts.DeadLettered != 0 || s.Counts.Held != 1 || s.Condition != "Retrying" || !strings.Contains(s.Message, "no connection") || !strings.Contains(s.Message, want) {
			t.Errorf("%s: %+v", name, s)
		}
	}
	// Once somebody is there it goes through.
	if l, err = net.Listen("tcp", refused); err != nil {
		t.Fatal(err)
	}
	var came atomic.Int64
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { came.Add(1) }), ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Close(); serving.Wait() })
	for _, name := range []string{"refused", "reset"} {
		if s := r.outcome(name); s.Counts.Out != 1 || s.Counts.DeadLettered != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if n := len(r.pushes("reset")); n != 21 {
		t.Errorf("20 resets before an answer took %d pushes", n)
	}
	if came.Load() != 1 {
		t.Errorf("the one that was refused came %d times", came.Load())
	}
}

func TestAttemptsOfMessagesThatFailAlone(t *testing.T) {
	t.Parallel()
	says(t, "P10", "P11", "P12", "P13")
	retry := func(n int) []string { return []string{"retry: {maxAttempts: " + strconv.Itoa(n) + ", " + soon + "}"} }
	bad := func(status int) func(w http.ResponseWriter, p pushed, n int) {
		return func(w http.ResponseWriter, p pushed, _ int) {
			if strings.HasPrefix(p.header.Get("Ce-Id"), "bad") {
				w.WriteHeader(status)
			}
		}
	}
	var mended atomic.Bool
	var bads, before atomic.Int64 // pushes of back's bad message: all, and those before another one got through
	before.Store(-1)
	routes := []route{
		{name: "lone", spec: retry(3), answer: always(500)}, {name: "once", spec: retry(1), answer: always(500)},
		{name: "two", spec: retry(3), answer: always(500)}, {name: "default", spec: []string{"retry: {" + soon + "}"}, answer: always(500)},
		{name: "among", spec: retry(3), answer: bad(500)},
		{name: "address", spec: []string{"retry: {maxAttempts: 3, backOff: {initial: 500ms, max: 500ms, jitterPercent: 0}}"}, answer: bad(404)},
		// All but one are mended while the breaker is open: what it counted until then is taken back.
		{name: "back", spec: retry(4), answer: func(w http.ResponseWriter, p pushed, _ int) {
			switch bad := p.header.Get("Ce-Id") == "bad"; {
			case bad:
				bads.Add(1)
				w.WriteHeader(500)
			case !mended.Load():
				w.WriteHeader(500)
			default:
				before.CompareAndSwap(-1, bads.Load())
			}
		}},
	}
	var wrong []route // paths: a lone message each, and many
	for _, status := range []int{401, 403, 404, 405, 421} {
		answer := func(w http.ResponseWriter, _ pushed, _ int) {
			if !mended.Load() {
				w.WriteHeader(status)
			}
		}
		wrong = append(wrong, route{name: "lone" + strconv.Itoa(status), spec: retry(1), answer: answer}, route{name: "all" + strconv.Itoa(status), spec: retry(1), answer: answer})
	}
	r := push(t, append(routes, wrong...))
	r.publish("address", "bad")
	r.awaitPushes("address", 1)
	r.publish("address", "good") // gets through between the first 404 and the next try
	for _, name := range []string{"lone", "once", "default", "two"} {
		r.publish(name, "a")
	}
	r.publish("two", "b")
	for _, id := range []string{"bad", "a", "b"} {
		r.publish("back", id)
	}
	for _, to := range wrong {
		r.publish(to.name, "0")
		for i := 1; i < 8 && strings.HasPrefix(to.name, "all"); i++ {
			r.publish(to.name, strconv.Itoa(i))
		}
	}
	for i := range 20 {
		r.publish("among", "good"+strconv.Itoa(i))
		if i == 5 || i == 6 {
			r.publish("among", "bad"+strconv.Itoa(i))
		}
	}

	for _, k := range []struct {
		name  string
		dead  int
		each  int
		waits bool // others may be waiting to be tried: then a few more attempts than declared are made (P22)
	}{{"lone", 1, 3, false}, {"once", 1, 1, false}, {"two", 2, 3, false}, {"default", 1, 10, false}, {"among", 2, 3, true}} {
		for _, d := range r.dead(k.name, k.dead) {
			id := d.attribute(t, "id")
			n := count(r.pushes(k.name), id)
			if d.attribute(t, "wbreason") != "AttemptsExhausted" || d.attribute(t, "wbattempts") != strconv.Itoa(n) {
				t.Errorf("%s: %s was pushed %d times and dead-lettered as %s", k.name, id, n, d.Event)
			}
			if n < k.each || n > k.each && !k.waits {
				t.Errorf("%s: %s was pushed %d times, want %d", k.name, id, n, k.each)
			}
		}
	}
	if s := r.settled("among"); s.Counts.Out != 20 || s.Counts.DeadLettered != 2 {
		t.Errorf("healthy messages beside two bad ones: %+v", s)
	}
	// The first 404 counts for nothing, for nobody had got through since.
	if d := r.dead("address", 1)[0]; d.attribute(t, "wbattempts") != "3" || d.attribute(t, "wbreason") != "AttemptsExhausted" {
		t.Errorf("alone with 404: %s", d.Event)
	}
	if n := count(r.pushes("address"), "bad"); n != 4 {
		t.Errorf("a message that alone gets 404 was pushed %d times, want 1 and then 3", n)
	}

	eventually(t, "the breaker of back to open", func() bool { return r.subscription("back").Condition == "DestinationDown" })
	for _, to := range wrong {
		r.awaitPushes(to.name, 15)
	}
	for _, to := range wrong {
		s := r.subscription(to.name)
		want := "Retrying"
		if strings.HasPrefix(to.name, "all") {
			want = "DestinationDown"
		}
		if s.Counts.DeadLettered != 0 || s.Condition != want || !strings.Contains(s.Message, "answered "+to.name[len(to.name)-3:]) || !strings.HasSuffix(s.Message, "(http://"+r.subscriber.Listener.Addr().String()+"/"+to.name+")") {
			t.Errorf("%s: a wrong path or token: %+v", to.name, s)
		}
	}
	mended.Store(true)
	for _, to := range wrong {
		if s := r.settled(to.name); s.Counts.DeadLettered != 0 || s.Counts.Out != s.Counts.In {
			t.Errorf("%s: after it was mended: %+v", to.name, s)
		}
	}
	if d := r.dead("back", 1)[0]; d.attribute(t, "wbattempts") != "4" {
		t.Errorf("back: dead-lettered as %s", d.Event)
	}
	if n := bads.Load() - before.Load(); n != 4 {
		t.Errorf("back: after another one had got through the bad one was pushed %d times, want 4", n)
	}
}

func TestAnOutageDeadLettersNothing(t *testing.T) {
	t.Parallel()
	says(t, "P9", "P10")
	// Away, for many rounds of breaker and backoff, in each of the ways in which a subscriber is away.
	var up atomic.Bool
	begun := make(chan struct{}) // when all are published: two lone messages would use their attempts up
	away := map[string]func(w http.ResponseWriter){
		"resets": hangUp,
		"errors": func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) },
		"busy": func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusServiceUnavailable)
		},
		"wrong": func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
	}
	var routes []route
	for name, how := range away {
		for _, ordering := range []string{"None", "Key"} {
			routes = append(routes, route{name: name + "-" + strings.ToLower(ordering), spec: []string{"ordering: " + ordering, "retry: {maxAttempts: 2, " + soon + "}"},
				answer: func(w http.ResponseWriter, _ pushed, _ int) {
					<-begun
					if !up.Load() {
						how(w)
					}
				}})
		}
	}
	r := push(t, routes)
	const messages = 12
	for _, to := range routes {
		for i := range messages {
			r.publish(to.name, strconv.Itoa(i), "ce-partitionkey", strconv.Itoa(i%4))
		}
	}
	close(begun)
	for _, to := range routes {
		r.awaitPushes(to.name, 40)
	}
	for _, to := range routes {
		if s := r.subscription(to.name); s.Condition != "DestinationDown" || s.Counts.DeadLettered != 0 || s.Counts.Out != 0 {
			t.Errorf("%s: while it is away: %+v", to.name, s)
		}
	}
	up.Store(true)
	for _, to := range routes {
		eventually(t, to.name+" to be delivered", func() bool { return r.subscription(to.name).Counts.Out == messages })
		if s := r.settled(to.name); s.Counts.DeadLettered != 0 {
			t.Errorf("%s: after the outage: %+v", to.name, s)
		}
		if strings.HasSuffix(to.name, "key") {
			inOrder(t, r.pushes(to.name))
		}
	}
}

// TestAMessageThatEndsItsSubscriberIsDeadLettered has a subscriber that hangs up on one message, whatever comes between.
func TestAMessageThatEndsItsSubscriberIsDeadLettered(t *testing.T) {
	t.Parallel()
	says(t, "P9")
	var gone atomic.Bool // the subscriber, for all
	answer := func(w http.ResponseWriter, p pushed, _ int) {
		if gone.Load() || p.header.Get("Ce-Id") == "bad" {
			hangUp(w)
		}
	}
	r := push(t, []route{
		{name: "among", spec: []string{"retry: {maxAttempts: 1, " + soon + "}"}, answer: answer},
		{name: "keys", spec: []string{"ordering: Key", "retry: {maxAttempts: 5, " + soon + "}"}, answer: answer},
		{name: "strict", spec: []string{"ordering: Strict", "retry: {maxAttempts: 1, " + soon + "}"}, answer: answer},
	})
	r.publish("strict", "bad")
	r.publish("strict", "behind")
	for name, attempts := range map[string]int{"among": 3, "keys": 5} {
		r.publish(name, "bad", "ce-partitionkey", "bad")
		n := 0
		eventually(t, name+" to be rid of it", func() bool {
			n++
			r.publish(name, strconv.Itoa(n), "ce-partitionkey", "good")
			return r.subscription(name).Counts.DeadLettered == 1
		})
		d := r.dead(name, 1)[0]
		if n, _ := strconv.Atoi(d.attribute(t, "wbattempts")); d.attribute(t, "id") != "bad" || d.attribute(t, "wbreason") != "AttemptsExhausted" || n < attempts ||
			!strings.Contains(d.attribute(t, "wblasterror"), "before it answered") {
			t.Errorf("%s: dead-lettered %s", name, d.Event)
		}
	}
	// An outage of the same kind, twice, counts nothing. Where nothing can get through, it cannot be told from one.
	for n := range 2 {
		gone.Store(true)
		for i := range 3 {
			r.publish("among", "away"+strconv.Itoa(n)+strconv.Itoa(i))
		}
		before := len(r.pushes("among"))
		r.awaitPushes("among", before+20)
		gone.Store(false)
		r.settled("among")
	}
	for name, want := range map[string]uint64{"among": 1, "strict": 0} {
		if s := r.subscription(name); s.Counts.DeadLettered != want {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if n := count(r.pushes("strict"), "behind"); n != 0 {
		t.Errorf("what stands behind it was pushed %d times", n)
	}
}

// TestAnOutageIsNoPoisonInOrder has so few messages that may be tried that they cannot open the breaker at once.
func TestAnOutageIsNoPoisonInOrder(t *testing.T) {
	t.Parallel()
	says(t, "P10", "P22")
	var up atomic.Bool
	begun := make(chan struct{})
	var routes []route
	for _, ordering := range []string{"Strict", "Key"} {
		routes = append(routes, route{name: "outage-" + strings.ToLower(ordering), spec: []string{"ordering: " + ordering, "retry: {maxAttempts: 2, " + soon + "}"}, answer: func(w http.ResponseWriter, _ pushed, _ int) {
			<-begun
			if !up.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}}, route{name: "poison-" + strings.ToLower(ordering), spec: []string{"ordering: " + ordering, "retry: {maxAttempts: 2, " + soon + "}"}, answer: func(w http.ResponseWriter, p pushed, _ int) {
			if <-begun; p.header.Get("Ce-Id") == "1" {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}})
	}
	r := push(t, routes)
	for _, to := range routes {
		for i := range 4 {
			r.publish(to.name, strconv.Itoa(i), "ce-partitionkey", "one")
		}
	}
	close(begun)
	for _, to := range routes {
		if strings.HasPrefix(to.name, "outage") {
			eventually(t, to.name+" to open its breaker", func() bool { return r.subscription(to.name).Condition == "DestinationDown" })
		}
	}
	up.Store(true)
	for _, to := range routes {
		want := 0
		if strings.HasPrefix(to.name, "poison") {
			want = 1
			eventually(t, to.name+" to park one", func() bool { return r.subscription(to.name).Counts.DeadLettered == 1 })
			if d := r.dead(to.name, 1)[0]; d.attribute(t, "id") != "1" || d.attribute(t, "wbattempts") != "2" {
				t.Errorf("%s: dead-lettered %s", to.name, d.Event)
			}
		}
		eventually(t, to.name+" to be delivered", func() bool { return r.subscription(to.name).Counts.Out == uint64(4-want) })
		if s := r.settled(to.name); s.Counts.DeadLettered != uint64(want) {
			t.Errorf("%s: %+v", to.name, s)
		}
	}
}

// inOrder checks that among pushes each key's ids, numbers, come in order when repeats of the latest one are left out.
func inOrder(t *testing.T, ps []pushed) {
	t.Helper()
	last := map[string]int{}
	for _, p := range ps {
		key := p.header.Get("Ce-Partitionkey")
		n, err := strconv.Atoi(p.header.Get("Ce-Id"))
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := last[key]; ok && n < before {
			t.Errorf("of key %s %d was pushed after %d", key, n, before)
		}
		last[key] = n
	}
}

// TestABacklogOutlivesAnOutage has more messages than a flow takes in hand, and an outage longer than ackWait: what waits is not delivered
// again and again meanwhile, for the broker's count would take that for a crash loop.
func TestABacklogOutlivesAnOutage(t *testing.T) {
	t.Parallel()
	says(t, "P8", "P9")
	var up atomic.Bool
	r := push(t, []route{{name: "in", spec: []string{"ackWait: 1s", "maxInFlight: 4", "retry: {maxAttempts: 1, backOff: {initial: 50ms, max: 200ms}}"}, answer: func(w http.ResponseWriter, _ pushed, _ int) {
		if !up.Load() {
			hangUp(w)
		}
	}}})
	const messages = 60
	for i := range messages {
		r.publish("in", strconv.Itoa(i))
	}
	eventually(t, "the breaker to open", func() bool { return r.subscription("in").Condition == "DestinationDown" })
	<-time.After(4 * time.Second)
	up.Store(true)
	eventually(t, "all to be delivered", func() bool { return r.subscription("in").Counts.Out == messages })
	if s := r.settled("in"); s.Counts.In != messages || s.Counts.DeadLettered != 0 {
		t.Errorf("after an outage of four times ackWait: %+v, want each of %d received once", s, messages)
	}
}
