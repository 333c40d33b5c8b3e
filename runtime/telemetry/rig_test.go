package telemetry

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// rig is an engine on a broker of its own, which does not sync, with its HTTP.
type rig struct {
	engine *engine.Engine
	http   http.Handler
}

const second = plan.Duration(time.Second)

func start(t *testing.T, plans ...*plan.Plan) *rig {
	t.Helper()
	broker, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	broker.Start()
	if !broker.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}
	for _, p := range plans {
		p.Brokers = []plan.Broker{{Name: onBroker, Protocol: "NATS", Addresses: []string{broker.ClientURL()}}}
	}
	secrets, dir := new(secret.Memory), t.TempDir()
	client := outbound.New(outbound.Config{Secrets: secrets})
	e := engine.New(engine.Host{
		Drivers: map[string]driver.Open{"NATS": nats.Open},
		Secrets: secrets,
		Base:    plan.Resource.Path,
		Checkpoint: func(r plan.Resource) (checkpoint.Store, error) {
			return checkpoint.File(filepath.Join(dir, r.Name)), nil
		},
		LeaseKeys:  func() ([][]byte, error) { return [][]byte{make([]byte, 32)}, nil },
		Outbound:   client,
		Administer: true,
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		e.Drain(ctx, func(context.Context) {})
		client.Close()
		broker.Shutdown()
		broker.WaitForShutdown()
	})
	e.Start(t.Context(), plans)
	if err := e.Ready(); err != nil {
		t.Fatal(err)
	}
	return &rig{e, Handler(e, e.Gateways())}
}

const onBroker = "default/main"

// everything runs a Topic, a Pipeline that copies it into an object of its own, and a Mailbox that is read by leases.
func everything(t *testing.T) *rig {
	t.Helper()
	orders := plan.Ref{Broker: onBroker, Kind: "Topic", Name: "default_orders"}
	copies := plan.Ref{Broker: onBroker, Kind: "Queue", Name: "default_copies"}
	dead := plan.Ref{Broker: onBroker, Kind: "Queue", Name: "default_copy_pipeline_dead"}
	inbox := plan.Ref{Broker: onBroker, Kind: "Queue", Name: "default_inbox_mailbox"}
	group := plan.Ref{Broker: onBroker, Kind: "Group", Name: "default_copy_pipeline", Of: orders.Name}
	queue := func(r plan.Ref) plan.Object {
		return plan.Object{Ref: r, Owner: "test", Ordering: "None", AckWait: 30 * second}
	}
	return start(t,
		&plan.Plan{Version: plan.Version, Resource: plan.Resource{Kind: "Topic", Namespace: "default", Name: "orders"},
			Objects: []plan.Object{{Ref: orders, Owner: "test"}}, Topic: &plan.Topic{Object: orders, MaxMessageBytes: 1 << 20}},
		&plan.Plan{Version: plan.Version, Resource: plan.Resource{Kind: "Mailbox", Namespace: "default", Name: "inbox"},
			Objects: []plan.Object{queue(inbox)}, Mailbox: &plan.Mailbox{Object: inbox, Mode: "Leases", Ordering: "None", AckWait: 30 * second, MaxMessageBytes: 1 << 20}},
		&plan.Plan{Version: plan.Version, Resource: plan.Resource{Kind: "Pipeline", Namespace: "default", Name: "copy"},
			Objects: []plan.Object{{Ref: orders, Owner: "test"}, queue(copies), queue(dead),
				{Ref: group, Owner: "test", Ordering: "None", AckWait: 30 * second, Start: &plan.Start{Position: "Earliest"}}},
			Flow: &plan.Flow{
				Source: plan.Source{Object: orders, Group: group.Name, Ordering: "None", AckWait: 30 * second, WindowMessages: 4096, WindowBytes: 64 << 20},
				Sink:   plan.Sink{Publish: &plan.Publish{Object: copies}},
				Policy: plan.Policy{Guarantee: "AtLeastOnce", MaxInFlight: 512, BatchSize: 256, OnFailure: "Park", DeadLetter: &dead, WhenExpired: "Deliver",
					Retry: plan.Retry{MaxAttempts: 3, Initial: second, Max: second, Multiplier: 2}},
			}})
}

// poller asks url every hour, and when that fails again soon.
func poller(name, url string) *plan.Plan {
	rates := plan.Ref{Broker: onBroker, Kind: "Topic", Name: "default_rates"}
	return &plan.Plan{Version: plan.Version, Resource: plan.Resource{Kind: "Poller", Namespace: "default", Name: name},
		Objects: []plan.Object{{Ref: rates, Owner: "test"}},
		Poller: &plan.Poller{Schedule: plan.Schedule{Every: 3600 * second}, HTTP: &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: url}, Timeout: 5 * second, MaxResponseBytes: 1 << 20},
			Detect: "Always", To: rates, Type: "t", Source: "/s", MaxMessageBytes: 1 << 20, Retry: plan.Retry{MaxAttempts: 3, Initial: second, Max: second, Multiplier: 2}}}
}

func (r *rig) post(t *testing.T, path, body string, want int, header ...string) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.http.ServeHTTP(w, req)
	if w.Code != want {
		t.Fatalf("POST %s: %d %.500s, want %d", path, w.Code, w.Body, want)
	}
}

func (r *rig) page(t *testing.T) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.http.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("GET /metrics: %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// series are those on the page.
func (r *rig) series(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for line := range strings.Lines(r.page(t)) {
		if !strings.HasPrefix(line, "#") {
			all[line[:strings.LastIndexByte(line, ' ')]] = true
		}
	}
	return all
}

// value of the first series that begins so; -1: there is none.
func (r *rig) value(t *testing.T, series string) float64 {
	t.Helper()
	for line := range strings.Lines(r.page(t)) {
		if strings.HasPrefix(line, series) {
			v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return -1
}

func (r *rig) eventually(t *testing.T, what string, f func(*engine.Engine) bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !f(r.engine) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func counts(e *engine.Engine, name string) engine.Counts {
	for _, s := range e.Status() {
		if s.Name == name {
			return s.Counts
		}
	}
	return engine.Counts{}
}
