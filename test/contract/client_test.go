package contract

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// An answer is what a request got.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	body   string
}

// send makes a request; headers are pairs of name and value, repeated names are sent repeatedly.
func send(t *testing.T, method, url, body string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{t, resp.StatusCode, resp.Header, string(b)}
}

func post(t *testing.T, url, body string, headers ...string) answer {
	t.Helper()
	return send(t, http.MethodPost, url, body, headers...)
}

// want fails the test unless the status is this one.
func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("got %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// read decodes the body.
func (a answer) read(v any) {
	a.t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		a.t.Fatalf("%v in %q", err, a.body)
	}
}

// problem checks that the answer is a problem of RFC 9457 with this status and reason ("": any) and returns its detail.
func (a answer) problem(status int, reason string) string {
	a.t.Helper()
	a.want(status)
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		a.t.Fatalf("an error of the content type %q: %s", ct, a.body)
	}
	var p struct {
		Type, Title, Detail, Reason string
		Status                      int
	}
	a.read(&p)
	if p.Status != status || p.Title == "" || p.Detail == "" || p.Reason == "" || reason != "" && p.Reason != reason {
		a.t.Fatalf("want a problem %d %s, got %s", status, reason, a.body)
	}
	return p.Detail
}

// A lent is one entry of what receive answers.
type lent struct {
	Lease      string
	Deliveries int
	Expires    time.Time
	Event      json.RawMessage
}

// receive receives from a Mailbox at its address; query is as "max=10&wait=2s".
func receive(t *testing.T, address, query string) []lent {
	t.Helper()
	var got struct{ Messages []lent }
	post(t, address+"/messages/receive?"+query, "").want(http.StatusOK).read(&got)
	return got.Messages
}

// attribute reads one member of the event.
func (l lent) attribute(t *testing.T, name string) string {
	t.Helper()
	var e map[string]json.RawMessage
	if err := json.Unmarshal(l.Event, &e); err != nil {
		t.Fatal(err)
	}
	var s string
	if json.Unmarshal(e[name], &s) != nil {
		return string(e[name])
	}
	return s
}

// A pushed is a request that a subscriber got.
type pushed struct {
	header http.Header
	path   string
	body   string
	at     time.Time
}

// A subscriber is an HTTP server that deliveries are pushed to.
type subscriber struct {
	*httptest.Server
	t    *testing.T
	came chan struct{} // holds one when something has come

	mu  sync.Mutex
	got []pushed
}

// subscribe starts a subscriber; answer may be nil, for 204 to all.
func subscribe(t *testing.T, answer func(w http.ResponseWriter, p pushed)) *subscriber {
	t.Helper()
	s := &subscriber{t: t, came: make(chan struct{}, 1)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body) // what a broken connection leaves is looked at by the test
		p := pushed{r.Header.Clone(), r.URL.Path, string(b), time.Now()}
		s.mu.Lock()
		s.got = append(s.got, p)
		s.mu.Unlock()
		select {
		case s.came <- struct{}{}:
		default:
		}
		if answer == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		answer(w, p)
	}))
	t.Cleanup(s.Close)
	return s
}

// all is what has come until now.
func (s *subscriber) all() []pushed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]pushed(nil), s.got...)
}

// await waits until n requests have come, and returns all.
func (s *subscriber) await(n int) []pushed {
	s.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if got := s.all(); len(got) >= n {
			return got
		}
		select {
		case <-s.came:
		case <-deadline:
			s.t.Fatalf("%d pushes after 30 s, want %d", len(s.all()), n)
		}
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
