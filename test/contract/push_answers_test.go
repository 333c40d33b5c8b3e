package contract

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestAPushIsWhatWasPublished(t *testing.T) {
	t.Parallel()
	says(t, "P1")
	r := push(t, []route{{name: "in"}})
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	published := map[string]string{
		"Ce-Id": "a%20b", "Ce-Source": "/shop", "Ce-Type": "order", "Ce-Specversion": "1.0", "Ce-Subject": "pens", "Ce-Time": "2026-01-31T12:00:00.123456789Z",
		"Ce-Dataschema": "https://example.com/s#1", "Ce-Partitionkey": "pens", "Content-Type": "application/x-thing; v=1",
		// Attributes with the names of headers that would do something.
		"Ce-Authorization": "Bearer%20x", "Ce-Host": "elsewhere", "Ce-Cookie": "c=1", "Ce-Contentlength": "3", "Ce-Connection": "close",
		"Ce-Transferencoding": "chunked", "Ce-Xforwardedfor": "1.2.3.4", "Ce-Unicode": "%E2%82%AC",
	}
	var headers []string
	for k, v := range published {
		headers = append(headers, k, v)
	}
	// What is no attribute stays behind.
	headers = append(headers, "Authorization", "Bearer of-the-publisher", "Cookie", "secret=1", "X-Custom", "1", "Referer", "http://example.com")
	r.publishTo("in", string(every), headers...)
	got := r.awaitPushes("in", 1)[0]
	if !bytes.Equal([]byte(got.body), every) {
		t.Errorf("the bytes are %q", got.body)
	}
	want := http.Header{}
	for k, v := range published {
		want.Set(k, v)
	}
	want.Set("Idempotency-Key", "a%20b")
	want.Set("User-Agent", "waybill")
	want.Set("Content-Length", "256")
	for k, v := range want {
		if !slices.Equal(got.header[k], v) {
			t.Errorf("%s: %q, want %q", k, got.header[k], v)
		}
	}
	for k, v := range got.header {
		if want[k] == nil {
			t.Errorf("a header that nobody published: %s: %q", k, v)
		}
	}

	// However it was published, it is pushed in binary mode.
	r.publishTo("in", `{"specversion":"1.0","id":"s","source":"/shop","type":"order","datacontenttype":"application/json","data":{"n": 1.0e2}}`, "Content-Type", "application/cloudevents+json")
	if got := r.awaitPushes("in", 2)[1]; got.body != `{"n": 1.0e2}` || got.header.Get("Content-Type") != "application/json" || got.header.Get("Ce-Id") != "s" {
		t.Errorf("a structured event came as %q %q", got.header, got.body)
	}
	r.publishTo("in", "", "ce-id", "empty", "ce-source", "/s", "ce-type", "t", "ce-specversion", "1.0")
	if got := r.awaitPushes("in", 3)[2]; got.body != "" || got.header.Get("Content-Type") != "" || got.header.Get("Ce-Id") != "empty" {
		t.Errorf("an event without data came as %q %q", got.header, got.body)
	}
}

func TestAnswersThatAcknowledge(t *testing.T) {
	t.Parallel()
	says(t, "P2")
	var routes []route
	for _, status := range []int{200, 201, 202, 203, 204, 205, 206, 226, 299} {
		routes = append(routes, route{name: "s" + strconv.Itoa(status), spec: []string{"retry: {" + soon + "}"}, answer: always(status)})
	}
	routes = append(routes, route{name: "large", answer: func(w http.ResponseWriter, _ pushed, _ int) { _, _ = w.Write(make([]byte, 4<<20)) }},
		route{name: "cut", answer: func(w http.ResponseWriter, _ pushed, _ int) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("half"))
		}},
		route{name: "hints", answer: func(w http.ResponseWriter, _ pushed, _ int) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusProcessing)
			w.WriteHeader(http.StatusOK)
		}},
		route{name: "endless", answer: func(w http.ResponseWriter, _ pushed, _ int) {
			// The status has been said; the body drips until the connection ends.
			for {
				if _, err := w.Write([]byte(".")); err != nil || http.NewResponseController(w).Flush() != nil {
					return
				}
				<-time.After(20 * time.Millisecond)
			}
		}})
	r := push(t, routes)
	for _, to := range routes {
		r.publish(to.name, "one")
	}
	began := time.Now()
	for _, to := range routes {
		r.awaitPushes(to.name, 1)
		if s := r.settled(to.name); s.Counts.Out != 1 || s.Counts.Retried != 0 || s.Counts.DeadLettered != 0 {
			t.Errorf("%s: %+v", to.name, s)
		}
		if n := len(r.pushes(to.name)); n != 1 {
			t.Errorf("%s: %d pushes", to.name, n)
		}
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("answers whose body does not end held the acknowledgement up for %v", took)
	}
}

func TestAnswersThatAskForAPause(t *testing.T) {
	t.Parallel()
	says(t, "P3")
	// With one attempt, whatever counts is dead-lettered at once.
	one := []string{"retry: {maxAttempts: 1, " + soon + "}"}
	after := func(status int, value func() string) func(w http.ResponseWriter, p pushed, n int) {
		return func(w http.ResponseWriter, _ pushed, n int) {
			if n > 2 {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			w.Header().Set("Retry-After", value())
			w.WriteHeader(status)
		}
	}
	seconds := func() string { return "1" }
	date := func() string { return time.Now().UTC().Add(2 * time.Second).Format(http.TimeFormat) }
	past := func() string { return "Wed, 21 Oct 2015 07:28:00 GMT" }
	routes := []route{
		{name: "s429", spec: one, answer: after(429, seconds)}, {name: "s503", spec: one, answer: after(503, seconds)},
		{name: "d429", spec: one, answer: after(429, date)}, {name: "d503", spec: one, answer: after(503, date)},
		{name: "zero", spec: one, answer: after(429, func() string { return "0" })}, {name: "past", spec: one, answer: after(503, past)},
		{name: "without", spec: one, answer: always(503)}, {name: "nonsense", spec: one, answer: after(503, func() string { return "soon" })},
		{name: "negative", spec: one, answer: after(503, func() string { return "-1" })},
		{name: "other", spec: one, answer: after(500, seconds)},
	}
	r := push(t, routes)
	for _, to := range routes {
		r.publish(to.name, "one")
	}
	for _, to := range routes[:6] {
		r.awaitPushes(to.name, 3)
		if s := r.settled(to.name); s.Counts.Out != 1 || s.Counts.DeadLettered != 0 {
			t.Errorf("%s: %+v", to.name, s)
		}
		if len(r.pushes(to.name)) != 3 {
			t.Errorf("%s: %d pushes, want 3", to.name, len(r.pushes(to.name)))
		}
	}
	for _, name := range []string{"s429", "s503", "d429", "d503"} {
		// A date has whole seconds: two seconds from now are more than one.
		for _, gap := range gaps(r.pushes(name)) {
			if gap < 980*time.Millisecond || gap > 10*time.Second {
				t.Errorf("%s: tried again after %v", name, gap)
			}
		}
	}
	for _, name := range []string{"zero", "past"} {
		for _, gap := range gaps(r.pushes(name)) {
			if gap > 5*time.Second {
				t.Errorf("%s: tried again after %v, though at once was asked for", name, gap)
			}
		}
	}
	// Without a Retry-After that says something it is an attempt, and so is another status that carries one.
	for _, to := range routes[6:] {
		if d := r.dead(to.name, 1); d[0].attribute(t, "wbreason") != "AttemptsExhausted" || d[0].attribute(t, "wbattempts") != "1" {
			t.Errorf("%s: dead-lettered as %s", to.name, d[0].Event)
		}
	}
}

func TestAnswersThatRefuseAMessage(t *testing.T) {
	t.Parallel()
	says(t, "P4")
	var routes []route
	for _, status := range []int{400, 410, 413, 415, 422} {
		routes = append(routes, route{name: "s" + strconv.Itoa(status), spec: []string{"ordering: Key"}, answer: func(w http.ResponseWriter, p pushed, _ int) {
			if p.header.Get("Ce-Id") == "bad" {
				w.WriteHeader(status)
				_, _ = w.Write([]byte("the answer's own secret words"))
				return
			}
			w.WriteHeader(http.StatusNoContent)
		}})
	}
	r := push(t, routes)
	for _, to := range routes {
		for _, id := range []string{"before", "bad", "behind"} {
			r.publish(to.name, id, "ce-partitionkey", "k")
		}
	}
	for _, to := range routes {
		r.awaitPushes(to.name, 3)
		if s := r.settled(to.name); s.Counts.Out != 2 || s.Counts.DeadLettered != 1 {
			t.Errorf("%s: %+v", to.name, s)
		}
		if got := ids(r.pushes(to.name)); !slices.Equal(got, []string{"before", "bad", "behind"}) {
			t.Errorf("%s: pushed %v", to.name, got)
		}
		d := r.dead(to.name, 1)[0]
		text := d.attribute(t, "wblasterror")
		if d.attribute(t, "id") != "bad" || d.attribute(t, "wbreason") != "Terminal" || d.attribute(t, "wbattempts") != "1" ||
			!strings.Contains(text, "answered "+to.name[1:]) || strings.Contains(string(d.Event), "secret words") {
			t.Errorf("%s: dead-lettered as %s", to.name, d.Event)
		}
	}
}

func TestOtherAnswersAreRetried(t *testing.T) {
	t.Parallel()
	says(t, "P5")
	var routes []route
	for _, status := range []int{300, 304, 305, 399, 401, 402, 403, 404, 405, 406, 407, 408, 409, 411, 412, 414, 416, 417, 418, 421, 423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 511, 599, 600, 999} {
		routes = append(routes, route{name: "s" + strconv.Itoa(status), spec: []string{"retry: {maxAttempts: 3, " + soon + "}"}, answer: statuses(status, status)})
	}
	routes = append(routes, route{name: "backoff", spec: []string{"retry: {maxAttempts: 10, backOff: {initial: 50ms, max: 200ms, multiplier: 2, jitterPercent: 0}}"}, answer: statuses(500, 500, 500, 500, 500)})
	r := push(t, routes)
	for _, to := range routes {
		r.publish(to.name, "one")
	}
	for _, to := range routes {
		want := 3
		if to.name == "backoff" {
			want = 6
		}
		r.awaitPushes(to.name, want)
		if s := r.settled(to.name); s.Counts.Out != 1 || s.Counts.DeadLettered != 0 || int(s.Counts.Retried) != want-1 {
			t.Errorf("%s: %+v", to.name, s)
		}
	}
	for i, want := range []int64{50, 100, 200, 200, 200} {
		if got := gaps(r.pushes("backoff"))[i]; got.Milliseconds() < want-5 {
			t.Errorf("the %d. pause is %v, want %d ms or a little more", i+1, got, want)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	says(t, "P15")
	elsewhere := subscribe(t, nil)
	var routes []route
	for _, status := range []int{301, 302, 303, 307, 308} {
		routes = append(routes, route{name: "s" + strconv.Itoa(status), spec: []string{"retry: {maxAttempts: 2, " + soon + "}"}, answer: func(w http.ResponseWriter, _ pushed, _ int) {
			w.Header().Set("Location", elsewhere.URL+"/there")
			w.WriteHeader(status)
		}})
	}
	r := push(t, routes)
	for _, to := range routes {
		r.publish(to.name, "one")
	}
	for _, to := range routes {
		d := r.dead(to.name, 1)[0]
		if text := d.attribute(t, "wblasterror"); !strings.Contains(text, "answered "+to.name[1:]) || !strings.Contains(text, "redirects are not followed") || strings.Contains(text, "/there") {
			t.Errorf("%s: dead-lettered with %q", to.name, text)
		}
		if n := len(r.pushes(to.name)); n != 2 {
			t.Errorf("%s: %d pushes, want 2", to.name, n)
		}
	}
	if got := elsewhere.all(); len(got) > 0 {
		t.Errorf("%d redirects were followed", len(got))
	}
}

func TestAnswersBeforeTheBodyIsReadAndConnectionsThatAreKept(t *testing.T) {
	t.Parallel()
	says(t, "P2")
	raw := newRawServer(t)
	r := push(t, []route{{name: "early", uri: raw.url("/early")}, {name: "kept", uri: raw.url("/kept"), spec: []string{"maxInFlight: 1"}}})
	r.publishTo("early", strings.Repeat("x", 400<<10), "Idempotency-Key", "large")
	if s := r.outcome("early"); s.Counts.Out != 1 || s.Counts.DeadLettered != 0 || s.Counts.Retried != 0 {
		t.Errorf("a subscriber that answers 200 before it has read the body: %+v", s)
	}
	for i := range 20 {
		r.publish("kept", fmt.Sprint(i))
	}
	eventually(t, "all twenty", func() bool { return r.subscription("kept").Counts.Out == 20 })
	if n := raw.connections("/kept"); n != 1 {
		t.Errorf("one message at a time took %d connections", n)
	}
}

// outcome waits until a route has done or dead-lettered something.
func (r *rig) outcome(route string) status {
	r.t.Helper()
	var s status
	eventually(r.t, "an outcome of "+route, func() bool {
		s = r.subscription(route)
		return s.Counts.Out+s.Counts.DeadLettered > 0 && s.Counts.Held == 0
	})
	return s
}
