package telemetry

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/runtime/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMetricsFollowTheConventions(t *testing.T) {
	t.Parallel()
	r := everything(t)
	r.post(t, "/default/topics/orders", "hello", http.StatusAccepted)
	r.eventually(t, "the message to be done", func(e *engine.Engine) bool { return counts(e, "copy").Out == 1 })
	problems, err := promlint.New(strings.NewReader(r.page(t))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// What messages and clients choose must be in no label: it would make series without end.
func TestLabelsAreBounded(t *testing.T) {
	t.Parallel()
	r := everything(t)
	r.post(t, "/default/topics/orders", "hello", http.StatusAccepted)
	r.eventually(t, "the first message to be done", func(e *engine.Engine) bool { return counts(e, "copy").Out == 1 })
	before := r.series(t)

	const keys = 10_000
	for from := 0; from < keys; from += 1000 {
		var batch []string
		for i := from; i < from+1000; i++ {
			batch = append(batch, fmt.Sprintf(`{"specversion":"1.0","id":"id-%d","source":"/s/%d","type":"t%d","partitionkey":"key-%d","data":%d}`, i, i, i, i, i))
		}
		r.post(t, "/default/topics/orders", "["+strings.Join(batch, ",")+"]", http.StatusAccepted, "Content-Type", "application/cloudevents-batch+json")
	}
	for i := range 20 {
		r.post(t, fmt.Sprintf("/default/mailboxes/inbox/leases/lease-%d/ack", i), "", http.StatusGone)
	}
	r.eventually(t, "all keys to be done", func(e *engine.Engine) bool { return counts(e, "copy").Out == keys+1 })

	after := r.series(t)
	for s := range after {
		if !before[s] && !strings.Contains(s, `code="410"`) {
			t.Errorf("a series came with the messages: %s", s)
		}
	}
	for s := range after {
		for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(s, -1) {
			if strings.HasPrefix(s, "waybill_") && !slices.Contains([]string{"kind", "namespace", "name", "code", "reason", "how", "outcome", "state", "version", "commit", "le"}, label[1]) {
				t.Errorf("%s has the label %s", s, label[1])
			}
		}
	}
}

func TestMetricsTellWhatAPersonOnCallAsks(t *testing.T) {
	t.Parallel()
	r := everything(t)
	r.post(t, "/default/topics/orders", "hello", http.StatusAccepted)
	r.post(t, "/default/mailboxes/inbox/messages", "waits", http.StatusAccepted)
	r.eventually(t, "the message to be done", func(e *engine.Engine) bool { return counts(e, "copy").Out == 1 })
	page := r.page(t)
	const copied, inbox = `kind="Pipeline",name="copy",namespace="default"}`, `kind="Mailbox",name="inbox",namespace="default"}`
	for _, want := range []string{
		`waybill_gateway_stored_total{` + inbox + ` 1`,
		`waybill_gateway_requests_total{code="202",` + inbox + ` 1`,
		`waybill_backlog{` + inbox + ` 1`,
		`waybill_backlog{` + copied + ` 0`,
		`waybill_oldest_unacknowledged_seconds{` + copied + ` 0`,
		`waybill_flow_done_total{` + copied + ` 1`,
		`waybill_flow_acknowledged_total{` + strings.TrimSuffix(copied, "}") + `,outcome="Done"} 1`,
		`waybill_flow_dead_lettered_total{` + strings.TrimSuffix(copied, "}") + `,reason="Terminal"} 0`,
		`waybill_flow_state{` + strings.TrimSuffix(copied, "}") + `,state="Running"} 1`,
		`waybill_flow_window_limit{` + copied + ` 4096`,
		`waybill_flow_latency_seconds_count{` + copied + ` 1`,
		`waybill_flow_handling_seconds_count{` + copied + ` 1`,
		`waybill_flow_handling_seconds_bucket{` + strings.TrimSuffix(copied, "}") + `,le="86400"} 1`,
		`waybill_broker_up{name="main",namespace="default"} 1`,
	} {
		if !strings.Contains(page, "\n"+want+"\n") {
			t.Errorf("%s is not told", want)
		}
	}
	if age := r.value(t, `waybill_oldest_unacknowledged_seconds{`+inbox); age <= 0 || age > 60 {
		t.Errorf("the message that waits is %v seconds old", age)
	}
	for _, name := range []string{"go_goroutines", "go_build_info", "process_start_time_seconds", "waybill_build_info"} {
		if !strings.Contains(page, "\n"+name) {
			t.Errorf("%s is not told", name)
		}
	}
}

// A poller's source that is away, as an alert sees it.
func TestAPollerThatIsOverdueLags(t *testing.T) {
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	defer source.Close()
	r := start(t, poller("rates", source.URL))
	const rates = `{kind="Poller",name="rates",namespace="default"}`
	r.eventually(t, "the poller to lag", func(*engine.Engine) bool {
		return r.value(t, "waybill_poller_errors_total"+rates) > 0 && r.value(t, "waybill_poller_lag_seconds"+rates) > 0
	})
	if page := r.page(t); strings.Contains(page, "waybill_poller_last_success_timestamp_seconds"+rates) {
		t.Error("it never succeeded")
	}
}

func TestHealthAndReadiness(t *testing.T) {
	t.Parallel()
	r := everything(t)
	e := r.engine
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
