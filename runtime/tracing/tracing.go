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
	"fmt"
	"log/slog"
	"os"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
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
	if os.Getenv("OTEL_SDK_DISABLED") == "true" {
		return nil, nil
	}
	up, err := newUploader(os.Getenv, log)
	if up == nil || err != nil {
		return nil, err
	}
	exporter, err := otlptrace.New(context.Background(), up)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	who, err := resource.New(context.Background(), resource.WithAttributes(attribute.String("service.name", "waybill")), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(who))
	return &Tracer{provider: p, tracer: p.Tracer(scope)}, nil
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
