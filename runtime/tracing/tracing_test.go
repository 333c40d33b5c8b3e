package tracing_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
	"github.com/waybill-dev/waybill/runtime/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A collector takes spans by OTLP.
type collector struct {
	*httptest.Server
	mu       sync.Mutex
	refuse   int // so many requests are answered 503
	requests int
	header   http.Header
	service  string
	spans    []*tracepb.Span
	raw      []byte
}

func collect(t *testing.T) *collector {
	t.Helper()
	c := new(collector)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.requests++
		if c.refuse > 0 {
			c.refuse--
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		raw, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		c.raw = append(c.raw, raw...)
		var got collectorpb.ExportTraceServiceRequest
		if err := proto.Unmarshal(raw, &got); err != nil || r.URL.Path != "/v1/traces" || r.Method != http.MethodPost {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		c.header = r.Header
		for _, rs := range got.ResourceSpans {
			for _, a := range rs.Resource.Attributes {
				if a.Key == "service.name" {
					c.service = a.Value.GetStringValue()
				}
			}
			for _, ss := range rs.ScopeSpans {
				c.spans = append(c.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// named is the one span of that name.
func (c *collector) named(t *testing.T, name string) *tracepb.Span {
	t.Helper()
	var found *tracepb.Span
	var names []string
	for _, s := range c.spans {
		names = append(names, s.Name)
		if s.Name == name {
			if found != nil {
				t.Fatalf("two spans are called %q", name)
			}
			found = s
		}
	}
	if found == nil {
		t.Fatalf("no span is called %q: %q", name, names)
	}
	return found
}

func attribute(s *tracepb.Span, key string) any {
	for _, a := range s.Attributes {
		if a.Key == key {
			if a.Value.GetStringValue() != "" {
				return a.Value.GetStringValue()
			}
			return a.Value.GetIntValue()
		}
	}
	return nil
}

var onBroker = plan.Broker{Name: "default/main", Protocol: "Embedded"}

func ref(kind, name string) plan.Ref { return plan.Ref{Broker: onBroker.Name, Kind: kind, Name: name} }

func object(r plan.Ref) plan.Object {
	return plan.Object{Ref: r, Owner: "test", Ordering: "None", AckWait: plan.Duration(30 * time.Second), Start: &plan.Start{Position: "Earliest"}}
}

func pushes(source plan.Source, url, response string) *plan.Flow {
	second := plan.Duration(time.Second)
	source.Ordering, source.AckWait, source.WindowMessages, source.WindowBytes = "None", 30*second, 128, 1<<20
	dead := ref("Queue", "dead")
	return &plan.Flow{
		Source: source,
		Sink:   plan.Sink{Push: &plan.Push{HTTPCall: plan.HTTPCall{HTTPTarget: plan.HTTPTarget{URL: url}, Timeout: 5 * second}, Response: response}},
		Policy: plan.Policy{Guarantee: "AtLeastOnce", MaxInFlight: 8, BatchSize: 1, OnFailure: "Park", DeadLetter: &dead, WhenExpired: "Deliver",
			Retry: plan.Retry{MaxAttempts: 3, Initial: second / 10, Max: second, Multiplier: 2}},
	}
}

// run gives the HTTP of an engine that is traced, and what ends it and sends what is left.
func run(t *testing.T, plans ...*plan.Plan) (h http.Handler, end func()) {
	t.Helper()
	tracer, err := tracing.FromEnv(slog.New(slog.DiscardHandler))
	if err != nil || tracer == nil {
		t.Fatal(tracer, err)
	}
	server, err := nats.StartEmbedded(t.Context(), nats.EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	secrets := new(secret.Memory)
	client := outbound.New(outbound.Config{Secrets: secrets, Wrap: tracer.Transport})
	e := engine.New(engine.Host{Drivers: map[string]driver.Open{"Embedded": server.Open}, Secrets: secrets, Base: plan.Resource.Path,
		LeaseKeys: func() ([][]byte, error) { return [][]byte{make([]byte, 32)}, nil }, Outbound: client, Administer: true, Tracing: tracer})
	end = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		e.Drain(ctx, func(context.Context) {})
		client.Close()
		if err := tracer.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	e.Start(t.Context(), plans)
	if err := e.Ready(); err != nil {
		t.Fatal(err)
	}
	return e.Gateways(), end
}

func post(t *testing.T, h http.Handler, path string, want int, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(`{"card":"5105105105105100"}`))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != want {
		t.Fatalf("POST %s: %d %s", path, w.Code, w.Body)
	}
	return w
}

const (
	callersTrace = "0af7651916cd43dd8448eb211c80319c"
	callersSpan  = "b7ad6b7169203331"
)

// The way of one message, from the request that publishes it to the subscriber: one trace, and each span under the one that caused it.
func TestOneRequestIsOneTraceFromTheCallerToTheSubscriber(t *testing.T) {
	c := collect(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3%2Ccret")
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
	t.Setenv("OTEL_SERVICE_NAME", "shop")
	told := make(chan http.Header, 1)
	subscriber := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { told <- r.Header }))
	defer subscriber.Close()
	orders := ref("Topic", "default_orders")
	group := ref("Group", "default_billing")
	group.Of = orders.Name
	h, end := run(t,
		&plan.Plan{Version: plan.Version, Resource: plan.Resource{Kind: "Topic", Namespace: "default", Name: "orders"}, Brokers: []plan.Broker{onBroker},
			Objects: []plan.Object{{Ref: orders, Owner: "test"}}, Topic: &plan.Topic{Object: orders, MaxMessageBytes: 1 << 20}},
		&plan.Plan{Version: plan.Version, Resource: plan.Resource{Kind: "Subscription", Namespace: "default", Name: "billing"}, Brokers: []plan.Broker{onBroker},
			Objects: []plan.Object{{Ref: orders, Owner: "test"}, object(ref("Queue", "dead")), object(group)},
			Flow:    pushes(plan.Source{Object: orders, Group: group.Name}, subscriber.URL+"/hooks/T0PSECRET?key=s3cret", "Drop")})
	post(t, h, "/default/topics/orders", http.StatusAccepted, "Content-Type", "application/json", "Idempotency-Key", "order-1",
		"Traceparent", "00-"+callersTrace+"-"+callersSpan+"-01", "Tracestate", "vendor=1")
	got := <-told
	end()

	request, handling, call := c.named(t, "POST /default/topics/orders"), c.named(t, "process default_orders"), c.named(t, "POST")
	for _, s := range c.spans {
		if hex.EncodeToString(s.TraceId) != callersTrace {
			t.Errorf("%s is of another trace", s.Name)
		}
	}
	id := hex.EncodeToString
	if id(request.ParentSpanId) != callersSpan || !bytes.Equal(handling.ParentSpanId, request.SpanId) || !bytes.Equal(call.ParentSpanId, handling.SpanId) {
		t.Error("a span has another parent than what caused it")
	}
	if got.Get("Traceparent") != "00-"+callersTrace+"-"+id(call.SpanId)+"-01" || got.Get("Ce-Traceparent") != "00-"+callersTrace+"-"+id(request.SpanId)+"-01" || got.Get("Tracestate") != "vendor=1" {
		t.Errorf("the subscriber was told %v", got)
	}
	if request.Kind != tracepb.Span_SPAN_KIND_SERVER || handling.Kind != tracepb.Span_SPAN_KIND_CONSUMER || call.Kind != tracepb.Span_SPAN_KIND_CLIENT ||
		len(handling.Links) != 1 || !bytes.Equal(handling.Links[0].SpanId, request.SpanId) {
		t.Error("kinds and links are not those of the conventions")
	}
	for key, want := range map[string]any{"messaging.system": "nats", "messaging.destination.name": "default_orders", "messaging.consumer.group.name": "default_billing",
		"messaging.operation.type": "process", "messaging.message.id": "order-1", "waybill.kind": "Subscription", "waybill.attempt": int64(1)} {
		if v := attribute(handling, key); v != want {
			t.Errorf("%s is %v", key, v)
		}
	}
	if attribute(request, "http.response.status_code") != int64(202) || attribute(call, "http.response.status_code") != int64(200) {
		t.Error("answers have no status")
	}
	for _, private := range []string{"5105105105105100", "s3cret", "T0PSECRET"} {
		if bytes.Contains(c.raw, []byte(private)) {
			t.Errorf("spans tell %q", private)
		}
	}
	if c.service != "shop" || c.header.Get("Api-Key") != "s3,cret" || c.header.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("service %q, header %v", c.service, c.header)
	}
}

// A request that waits for its answer: the reply is in the same trace, under the handling that gave it. The collector is away at first.
func TestAReplyIsInTheTraceOfItsRequest(t *testing.T) {
	c := collect(t)
	c.refuse = 1
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", c.URL+"/v1/traces")
	handler := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "yes") }))
	defer handler.Close()
	work := ref("Queue", "default_work")
	h, end := run(t, &plan.Plan{Version: plan.Version, Resource: plan.Resource{Kind: "Mailbox", Namespace: "default", Name: "work"}, Brokers: []plan.Broker{onBroker},
		Objects: []plan.Object{object(work), object(ref("Queue", "dead"))},
		Mailbox: &plan.Mailbox{Object: work, Mode: "Handler", Ordering: "None", AckWait: plan.Duration(30 * time.Second), MaxMessageBytes: 1 << 20},
		Flow:    pushes(plan.Source{Object: work}, handler.URL, "Requester")})
	if w := post(t, h, "/default/mailboxes/work/messages", http.StatusOK, "Prefer", "wait=20"); w.Body.String() != "yes" {
		t.Fatal(w.Body)
	}
	post(t, h, "/default/mailboxes/work/leases/s3cretlease/ack", http.StatusConflict)
	end()
	request, handling, reply := c.named(t, "POST /default/mailboxes/work/messages"), c.named(t, "process default_work"), c.named(t, "send (temporary)")
	if len(request.ParentSpanId) != 0 || !bytes.Equal(handling.ParentSpanId, request.SpanId) || !bytes.Equal(reply.ParentSpanId, handling.SpanId) || !bytes.Equal(reply.TraceId, request.TraceId) {
		t.Errorf("the reply is not under its request: %v", c.spans)
	}
	c.named(t, "POST /default/mailboxes/work/leases/{lease}/ack")
	if bytes.Contains(c.raw, []byte("s3cretlease")) {
		t.Error("a lease is told")
	}
	if c.requests < 2 {
		t.Error("a collector that was away for a moment lost the spans")
	}
}

// Nobody who does not ask for traces pays for them.
func TestWithoutAnEndpointThereIsNothing(t *testing.T) {
	for _, env := range []map[string]string{{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}} {
		func() {
			for k, v := range env {
				t.Setenv(k, v)
			}
			tracer, err := tracing.FromEnv(nil)
			if tracer != nil || err != nil {
				t.Fatalf("%v: %v, %v", env, tracer, err)
			}
			next := &http.Transport{}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
			if tracer.Transport(next) != http.RoundTripper(next) || tracer.Handling(plan.Resource{}, tracing.Destination{}) != nil || tracer.Close(t.Context()) != nil {
				t.Error("something is put in the way")
			}
			if n := testing.AllocsPerRun(100, func() {
				same, end := tracer.Request(r, plan.Resource{})
				if end(200); same != r {
					t.Error("the request is another one")
				}
			}); n != 0 {
				t.Errorf("%v allocations a request", n)
			}
		}()
	}
}

func TestWhatTheEnvironmentAsksForAndCannotHaveIsSaid(t *testing.T) {
	for variable, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT":        "collector:4318",
		"OTEL_EXPORTER_OTLP_PROTOCOL":        "grpc",
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json",
		"OTEL_TRACES_EXPORTER":               "zipkin",
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			t.Setenv(variable, value)
			_, err := tracing.FromEnv(nil)
			if err == nil || !strings.Contains(err.Error(), variable[strings.LastIndexByte(variable, '_'):]) {
				t.Errorf("%v", err)
			}
		})
	}
}
