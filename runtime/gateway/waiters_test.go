package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/reply"
)

// idle is a connection over which nothing is ever asked.
type idle struct {
	driver.Conn
	done chan struct{}
}

func (c idle) Features() driver.Features   { return driver.Features{} }
func (c idle) Done() <-chan struct{}       { return c.done }
func (c idle) Close(context.Context) error { return nil }

func idleBroker(t *testing.T) *broker.Broker {
	t.Helper()
	b := broker.Connect(broker.Config{Name: "b", Open: func(context.Context, driver.Config) (driver.Conn, error) { return idle{done: make(chan struct{})}, nil },
		Resolve: func(context.Context) (driver.Config, error) { return driver.Config{}, nil }})
	if err := b.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestRequestsThatWaitAreBoundedAndHoldNoBodies(t *testing.T) {
	f, desk := newTestFront(t, &scripted{})
	defer desk.Close()
	b := idleBroker(t)
	ask := func(ctx context.Context, id string, size int) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil)
		in := &intake{events: []message.Message{{ID: id, Source: "/s", Type: "t", Data: make([]byte, size)}}, bytes: int64(size), budget: &f.budget}
		f.budget.used.Add(in.bytes)
		f.ask(w, r, b, desk, in, request{want: reply.Reply, timeout: time.Minute})
		return w
	}
	before := heap()
	ctx, hangUp := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	const waiters = 2000
	for i := range waiters {
		wg.Go(func() { ask(ctx, fmt.Sprint(i), 64<<10) })
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); desk.Stats().Waiting < waiters || f.budget.used.Load() != 0; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d wait, %d bytes are held", desk.Stats().Waiting, f.budget.used.Load())
		}
	}
	if each := (heap() - before) / waiters; each > 16<<10 {
		t.Errorf("a request that waits holds %d bytes; its body of 64 KiB is stored", each)
	}
	f.stats.waiting.Add(maxWaiting - waiters)
	w := ask(t.Context(), "one too many", 10)
	var p problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusServiceUnavailable || p.Reason != "TooManyRequests" || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	f.stats.waiting.Add(waiters - maxWaiting)
	hangUp()
	wg.Wait()
	s := f.Stats()
	if s.Waiting != 0 || s.Bytes != 0 || s.TimedOut != 0 || s.Refused[http.StatusGatewayTimeout] != 0 { // who hung up was not refused
		t.Errorf("got %+v", s)
	}
	if err := f.store.drain(context.Background()); err != nil {
		t.Error(err)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestA502SaysTheLastError(t *testing.T) {
	f := &front{}
	for _, c := range []struct {
		answer reply.Answer
		reason string
		says   string
	}{
		{reply.Answer{Kind: reply.Failed, Reason: "Terminal", Error: "handler answered 422"}, "Terminal", "dead-lettered: Terminal; the last error: handler answered 422"},
		{reply.Answer{Kind: reply.Failed, Reason: "Rejected"}, "Rejected", "dead-lettered: Rejected"},
		{reply.Answer{Kind: reply.Failed, Error: "handler answered 500"}, "Failed", "not tried again; the last error: handler answered 500"},
	} {
		w := httptest.NewRecorder()
		f.respond(w, "1", c.answer)
		var p problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusBadGateway || p.Reason != c.reason || !strings.HasSuffix(p.Detail, c.says) || p.ID != "1" {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	}
}

func TestAnEndpointServesItsPathAsItIsSpelt(t *testing.T) {
	for path, cases := range map[string]map[string]bool{
		"/":         {"": true, "/": true, "//": false, "/x": false},
		"/checkout": {"/checkout": true, "/checkout/": false, "/Checkout": false, "/checkout%2F": false, "/%63heckout": false, "/checkout?a=b": true, "": false},
		"/a%20b":    {"/a%20b": true, "/a+b": false},
		"/a%2Fb":    {"/a%2Fb": true, "/a/b": false},
		"/a/b":      {"/a/b": true, "/a%2Fb": false, "/a//b": false, "/a/./b": false},
		"/v(1)!":    {"/v(1)!": true, "/v1": false},
	} {
		e := &Endpoint{plan: plan.Endpoint{Path: path}}
		for given, want := range cases {
			u, err := url.Parse("http://h" + given)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.serves(u); got != want {
				t.Errorf("an Endpoint at %s serves %s: %v", path, given, got)
			}
		}
	}
}

func TestAuthComparesTheTokenWithoutTheSpaceAroundIt(t *testing.T) {
	bearer := &plan.Auth{Bearer: &plan.SecretRef{Name: "s", Key: "token"}}
	for _, c := range []struct {
		name, secret, given string
		auth                *plan.Auth
		status              int
	}{
		{"none asked for", "", "", nil, http.StatusOK},
		{"right", "sesame", "Bearer sesame", bearer, http.StatusOK},
		{"a file with a line break", "sesame\r\n", "Bearer sesame", bearer, http.StatusOK},
		{"space on both sides", " \tsesame ", "bearer   sesame ", bearer, http.StatusOK},
		{"a space inside counts", "open sesame", "Bearer open sesame", bearer, http.StatusOK},
		{"a space inside is missing", "open sesame", "Bearer opensesame", bearer, http.StatusUnauthorized},
		{"absent", "sesame", "", bearer, http.StatusUnauthorized},
		{"shorter", "sesame", "Bearer sesam", bearer, http.StatusUnauthorized},
		{"longer", "sesame", "Bearer sesamee", bearer, http.StatusUnauthorized},
		{"no scheme", "sesame", "sesame", bearer, http.StatusUnauthorized},
		{"another scheme", "sesame", "Basic sesame", bearer, http.StatusUnauthorized},
		{"empty in both", "", "Bearer ", bearer, http.StatusServiceUnavailable},
		{"nothing but a line break", "\n", "Bearer", bearer, http.StatusServiceUnavailable},
		{"what cannot be checked", "sesame", "Bearer sesame", &plan.Auth{}, http.StatusServiceUnavailable},
	} {
		f := &front{deps: Deps{Secret: func(plan.SecretRef) ([]byte, error) { return []byte(c.secret), nil }}, log: slog.New(slog.DiscardHandler)}
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		if c.given != "" {
			r.Header.Set("Authorization", c.given)
		}
		if ok := f.authenticated(w, r, c.auth); ok != (c.status == http.StatusOK) || !ok && w.Code != c.status {
			t.Errorf("%s: got %v %d", c.name, ok, w.Code)
		}
		if (w.Code == http.StatusUnauthorized) != (w.Header().Get("WWW-Authenticate") != "") || strings.Contains(w.Body.String(), "sesame") {
			t.Errorf("%s: got %v %s", c.name, w.Header(), w.Body)
		}
	}
}

func TestWhatBecomesOfALeasesCallIsToldApart(t *testing.T) {
	m := &Mailbox{}
	for _, c := range []struct {
		err    error
		status int
	}{
		{nil, http.StatusNoContent}, {errRepeated, http.StatusNoContent},
		{errLeaseEnded, http.StatusGone}, {errNoLease, http.StatusGone}, {driver.ErrStale, http.StatusGone}, {driver.ErrMissing, http.StatusGone},
		{fmt.Errorf("%w: %w", errNoLetter, driver.ErrMissing), http.StatusServiceUnavailable}, // the dead letter's object is missing, not the message
		{errAway, http.StatusServiceUnavailable}, {errors.New("x"), http.StatusServiceUnavailable}, {context.DeadlineExceeded, http.StatusServiceUnavailable},
	} {
		if got := m.leaseStatus(c.err); got != c.status {
			t.Errorf("%v: got %d", c.err, got)
		}
	}
}
