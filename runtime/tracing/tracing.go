// Package tracing makes OpenTelemetry spans of what happens to a message: the request that publishes it, each handling by a flow, each call
// to a subscriber or a step, and the reply. They go by OTLP to where the environment says; without an endpoint there is a nil *Tracer, all
// of whose methods do nothing and hand back what they were given, so that nobody pays for what nobody reads.
//
// The context of a message is its attribute traceparent. It is the one that the message was published with and stays so on all its way,
// as the CloudEvents extension for distributed tracing asks: each flow's span is a child of it. What is called over HTTP is given the span
// of the call, in the header traceparent.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/waybill-dev/waybill/runtime/message"
)

const scope = "github.com/waybill-dev/waybill"

// A Tracer makes spans. Nil makes none.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// FromEnv makes a Tracer as the standard variables of OpenTelemetry say: OTEL_EXPORTER_OTLP_ENDPOINT and what belongs to it, OTEL_SERVICE_NAME,
// OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_BSP_…. It is nil where they name no endpoint, and nothing is dialled before there is a
// span to send. The error names the variable that cannot be met.
func FromEnv(log *slog.Logger) (*Tracer, error) {
	if wanted, err := asked(os.Getenv); !wanted || err != nil {
		return nil, err
	}
	exporter, err := otlptracehttp.New(context.Background())
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	who, err := resource.New(context.Background(), resource.WithAttributes(attribute.String("service.name", "waybill")), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(&telling{SpanExporter: exporter, log: log}), sdktrace.WithResource(who))
	return &Tracer{provider: p, tracer: p.Tracer(scope)}, nil
}

// asked reports whether traces are to be sent. What the exporter would pass over in silence is an error.
func asked(env func(string) string) (bool, error) {
	of := func(name string) (value, variable string) { // what is said of traces goes before what is said of all
		for _, variable = range []string{"OTEL_EXPORTER_OTLP_TRACES_" + name, "OTEL_EXPORTER_OTLP_" + name} {
			if value = strings.TrimSpace(env(variable)); value != "" {
				break
			}
		}
		return value, variable
	}
	endpoint, variable := of("ENDPOINT")
	if endpoint == "" || env("OTEL_SDK_DISABLED") == "true" || env("OTEL_TRACES_EXPORTER") == "none" {
		return false, nil
	}
	if e := env("OTEL_TRACES_EXPORTER"); e != "" && e != "otlp" {
		return false, fmt.Errorf("OTEL_TRACES_EXPORTER: %q is not known; it is otlp or none", e)
	}
	if p, variable := of("PROTOCOL"); p != "" && p != "http/protobuf" {
		return false, fmt.Errorf("%s: %q is not spoken; use http/protobuf, which a collector takes on port 4318", variable, p)
	}
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return false, fmt.Errorf("%s: must be a URL such as http://collector:4318", variable)
	}
	return true, nil
}

// telling says once in the log that spans cannot be sent, and once that they can again: a collector that is away is no reason for more.
type telling struct {
	sdktrace.SpanExporter
	log     *slog.Logger
	failing atomic.Bool
}

func (t *telling) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	switch err := t.SpanExporter.ExportSpans(ctx, spans); {
	case err == nil && t.failing.CompareAndSwap(true, false):
		t.log.Info("traces are sent again")
	case err != nil && t.failing.CompareAndSwap(false, true):
		t.log.Warn("traces cannot be sent and are dropped until they can", "error", without(err))
	}
	return nil
}

// without leaves the address out of an error: it may hold a password.
func without(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// Close sends the spans that are left, within ctx.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// w3c is how contexts are written, in headers and in messages.
var w3c propagation.TraceContext

// contextOf is the trace context that a message came with; invalid where it has none.
func contextOf(m *message.Message) trace.SpanContext {
	if m.Attribute(message.TraceParent) == "" {
		return trace.SpanContext{}
	}
	return trace.SpanContextFromContext(w3c.Extract(context.Background(), attributes{m}))
}

// stamp gives a message that has no trace context that of ctx. Where it has one, that one stays.
func stamp(ctx context.Context, m *message.Message) {
	if m.Attribute(message.TraceParent) == "" {
		*m = m.Without(func(name string) bool { return name == message.TraceState }) // of whatever trace that was
		w3c.Inject(ctx, attributes{m})
	}
}

// attributes carries a trace context in the attributes of a message.
type attributes struct{ m *message.Message }

func (a attributes) Get(key string) string { return a.m.Attribute(key) }
func (a attributes) Set(key, value string) { *a.m = a.m.With(key, value) }
func (a attributes) Keys() []string        { return []string{message.TraceParent, message.TraceState} }
