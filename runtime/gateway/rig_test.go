package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/gateway"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/reply"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const brokerName = "default/main"

// rig is an embedded broker with all that handlers need.
type rig struct {
	t       testing.TB
	server  *nats.Embedded
	broker  *broker.Broker
	desk    *reply.Desk
	sender  *reply.Sender
	dir     string
	addr    string
	secrets map[string]string
	keys    [][]byte
	log     lockedBuffer
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, secrets: map[string]string{}, keys: [][]byte{[]byte("a key of sixteen bytes or more")}}
	var err error
	r.dir = t.TempDir()
	if r.server, err = nats.StartEmbedded(within(t), nats.EmbeddedConfig{Dir: r.dir, Listen: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	r.addr = r.server.Addr()
	r.broker = broker.Connect(broker.Config{Name: brokerName, Open: nats.Open,
		Resolve: func(context.Context) (driver.Config, error) {
			return driver.Config{ClientName: "test", Addresses: []string{r.addr}}, nil
		}})
	if err := r.broker.WaitReady(within(t)); err != nil {
		t.Fatal(err)
	}
	r.desk = reply.NewDesk(func(ctx context.Context) (driver.Inbox, error) { return r.broker.Inbox(ctx, "default") }, slog.New(slog.DiscardHandler))
	if err := r.desk.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	r.sender = reply.NewSender("default", r.broker.Reply)
	t.Cleanup(func() {
		r.desk.Close()
		if err := r.broker.Close(within(t)); err != nil {
			t.Error(err)
		}
		if err := r.server.Shutdown(within(t)); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) ensure(o driver.Object) plan.Ref {
	r.t.Helper()
	a, err := r.broker.Admin(within(r.t))
	if err == nil {
		_, err = a.Ensure(within(r.t), o)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return plan.Ref{Broker: brokerName, Kind: string(o.Kind), Name: o.Name}
}

func (r *rig) queue(name string, change ...func(*driver.Object)) plan.Ref {
	o := driver.Object{Ref: driver.Ref{Kind: driver.Queue, Name: name}, Owner: "test", Ordering: driver.None, AckWait: 6 * time.Second}
	for _, c := range change {
		c(&o)
	}
	return r.ensure(o)
}

func (r *rig) deps(kind, name string) gateway.Deps {
	return gateway.Deps{
		Resource: plan.Resource{Kind: kind, Namespace: "default", Name: name},
		Broker:   func(string) *broker.Broker { return r.broker },
		Secret: func(ref plan.SecretRef) ([]byte, error) {
			if s, ok := r.secrets[ref.Name+"/"+ref.Key]; ok {
				return []byte(s), nil
			}
			return nil, errors.New("no such secret")
		},
		Desk: func(string) *reply.Desk { return r.desk }, Sender: func(string) *reply.Sender { return r.sender },
		LeaseKeys: func() ([][]byte, error) { return r.keys, nil },
		Log:       slog.New(slog.NewTextHandler(&r.log, nil)),
	}
}

// served is a handler behind a real HTTP server.
type served struct {
	t     testing.TB
	url   string
	close func()
}

type drainer interface {
	http.Handler
	Drain(context.Context) error
}

func (r *rig) serve(h drainer) *served {
	r.t.Helper()
	s := httptest.NewServer(h)
	closed := false
	stop := func() {
		if closed {
			return
		}
		closed = true
		if err := h.Drain(within(r.t)); err != nil {
			r.t.Error(err)
		}
		s.Close()
		s.Client().CloseIdleConnections()
	}
	r.t.Cleanup(func() { stop(); http.DefaultClient.CloseIdleConnections() })
	return &served{t: r.t, url: s.URL, close: stop}
}

// got is an answer.
type got struct {
	t      testing.TB
	status int
	header http.Header
	body   string
}

// call sends a request; headers are pairs. A request that cannot be sent fails the test.
func (s *served) call(method, path, body string, headers ...string) got {
	s.t.Helper()
	g, err := s.try(within(s.t), method, path, body, headers...)
	if err != nil {
		s.t.Fatal(err)
	}
	return g
}

func (s *served) try(ctx context.Context, method, path, body string, headers ...string) (got, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	if err != nil {
		return got{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return got{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return got{s.t, res.StatusCode, res.Header, string(b)}, err
}

func (s *served) post(path, body string, headers ...string) got {
	s.t.Helper()
	return s.call(http.MethodPost, path, body, headers...)
}

func (g got) want(status int) got {
	g.t.Helper()
	if g.status != status {
		g.t.Fatalf("got %d %s, want %d", g.status, g.body, status)
	}
	return g
}

// problem checks that the answer is a problem with this status and reason.
func (g got) problem(status int, reason string) map[string]any {
	g.t.Helper()
	g.want(status)
	var p map[string]any
	g.json(&p)
	if g.header.Get("Content-Type") != "application/problem+json" || p["status"] != float64(status) || p["title"] == "" || p["detail"] == "" || p["reason"] != reason {
		g.t.Fatalf("not the problem that was expected (%s): %s %v", reason, g.body, g.header)
	}
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		if g.header.Get("Retry-After") == "" {
			g.t.Fatalf("no Retry-After: %s", g.body)
		}
	}
	return p
}

func (g got) json(into any) {
	g.t.Helper()
	if err := json.Unmarshal([]byte(g.body), into); err != nil {
		g.t.Fatalf("%v: %s", err, g.body)
	}
}

type lent struct {
	Lease      string
	Deliveries int
	Expires    time.Time
	Event      json.RawMessage
}

func (l lent) event(t testing.TB) message.Message {
	t.Helper()
	m, err := message.ParseJSON(l.Event)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (s *served) receive(query string) []lent {
	s.t.Helper()
	var out struct{ Messages []lent }
	g := s.post("/messages/receive?"+query, "").want(http.StatusOK)
	g.json(&out)
	if out.Messages == nil {
		s.t.Fatalf("messages must be a list: %s", g.body)
	}
	return out.Messages
}

// one receives exactly one message.
func (s *served) one() lent {
	s.t.Helper()
	ls := s.receive("wait=10s")
	if len(ls) != 1 {
		s.t.Fatalf("got %d messages", len(ls))
	}
	return ls[0]
}

// none checks that nothing is there.
func (s *served) none() {
	s.t.Helper()
	if ls := s.receive("wait=0s"); len(ls) != 0 {
		s.t.Fatalf("got %s", ls[0].Event)
	}
}

func (r *rig) mailbox(name string, change ...func(*plan.Mailbox)) *served {
	return r.serve(r.newMailbox(name, change...))
}

func (r *rig) newMailbox(name string, change ...func(*plan.Mailbox)) *gateway.Mailbox {
	p := plan.Mailbox{Object: plan.Ref{Broker: brokerName, Kind: "Queue", Name: name}, Mode: "Leases", Ordering: "None", AckWait: plan.Duration(6 * time.Second), MaxMessageBytes: 64 << 10}
	for _, c := range change {
		c(&p)
	}
	r.queue(name, func(o *driver.Object) { o.Ordering, o.AckWait = driver.Ordering(p.Ordering), time.Duration(p.AckWait) })
	return gateway.NewMailbox(p, r.deps("Mailbox", name))
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline, again := time.After(10*time.Second), time.NewTicker(5*time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		case <-again.C:
		}
	}
}

func structured(id, data string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/s","type":"t","data":%s}`, id, data)
}

// outage takes the broker away; the result brings it back.
func (r *rig) outage() (restart func()) {
	r.t.Helper()
	if err := r.server.Shutdown(within(r.t)); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "the broker to be away", func() bool { return r.broker.Away() != nil })
	return func() {
		r.t.Helper()
		var err error
		if r.server, err = nats.StartEmbedded(within(r.t), nats.EmbeddedConfig{Dir: r.dir, Listen: strings.TrimPrefix(r.addr, "nats://")}); err != nil {
			r.t.Fatal(err)
		}
		if err := r.broker.WaitReady(within(r.t)); err != nil {
			r.t.Fatal(err)
		}
	}
}
