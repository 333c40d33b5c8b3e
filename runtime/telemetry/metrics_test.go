package telemetry

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mailbox runs a Mailbox on a broker of its own.
func mailbox(t *testing.T) *engine.Engine {
	t.Helper()
	server, err := nats.StartEmbedded(t.Context(), nats.EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	secrets := new(secret.Memory)
	e := engine.New(engine.Host{
		Drivers:    map[string]driver.Open{"Embedded": server.Open},
		Secrets:    secrets,
		Base:       plan.Resource.Path,
		Outbound:   outbound.New(outbound.Config{Secrets: secrets}),
		Administer: true,
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		e.Drain(ctx, func(context.Context) {})
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	object := plan.Ref{Broker: "default/main", Kind: "Queue", Name: "default_inbox_mailbox"}
	e.Start(t.Context(), []*plan.Plan{{
		Version:  plan.Version,
		Resource: plan.Resource{Kind: "Mailbox", Namespace: "default", Name: "inbox"},
		Brokers:  []plan.Broker{{Name: "default/main", Protocol: "Embedded"}},
		Objects:  []plan.Object{{Ref: object, Owner: "Mailbox/default/inbox", Ordering: "None", AckWait: plan.Duration(30 * time.Second)}},
		Mailbox:  &plan.Mailbox{Object: object, Mode: "Leases", Ordering: "None", AckWait: plan.Duration(30 * time.Second), MaxMessageBytes: 1 << 20},
	}})
	if err := e.Ready(); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestMetricsFollowTheConventions(t *testing.T) {
	e := mailbox(t)
	h := Handler(e, e.Gateways())
	ask := func(method, path, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
		return w
	}
	if w := ask(http.MethodPost, "/default/mailboxes/inbox/messages", "hello"); w.Code != http.StatusAccepted {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	page := ask(http.MethodGet, "/metrics", "").Body.String()
	if !strings.Contains(page, `waybill_gateway_stored_total{kind="Mailbox",name="inbox",namespace="default"} 1`) {
		t.Errorf("one stored message is not told:\n%s", page)
	}
	problems, err := promlint.New(strings.NewReader(page)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "waybill_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// What messages and clients choose must be in no label: it would make series without end.
func TestLabelsAreBounded(t *testing.T) {
	e := mailbox(t)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(&collector{e})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !slices.Contains([]string{"kind", "namespace", "name", "status", "reason", "how"}, l.GetName()) {
					t.Errorf("%s has the label %s", f.GetName(), l.GetName())
				}
			}
		}
	}
}

func TestHealthAndReadiness(t *testing.T) {
	e := mailbox(t)
	h := Handler(e, nil)
	for path, want := range map[string]int{"/healthz": http.StatusOK, "/readyz": http.StatusOK, "/status": http.StatusOK, "/metrics": http.StatusOK, "/else": http.StatusNotFound} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("GET %s: %d, want %d", path, w.Code, want)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/healthz", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /healthz: %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	e.Drain(ctx, func(context.Context) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "draining") {
			t.Errorf("ready while draining: %d %s", w.Code, w.Body)
		}
	})
}
