package tracing

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// Names and attributes are those of OpenTelemetry's conventions for HTTP and messaging. Of a message its id is told, and nothing else.

func of(r plan.Resource) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("waybill.kind", r.Kind), attribute.String("waybill.namespace", r.Namespace), attribute.String("waybill.name", r.Name)}
}

// Destination is a broker object that messages are sent to or taken from.
type Destination struct {
	Protocol string // as plan.Broker has it
	Name     string
	Group    string // that reads it; "": none
}

func (d Destination) attributes() []attribute.KeyValue {
	system := strings.ToLower(d.Protocol)
	switch d.Protocol {
	case "Embedded":
		system = "nats"
	case "SQS":
		system = "aws_sqs"
	}
	out := []attribute.KeyValue{attribute.String("messaging.system", system), attribute.String("messaging.destination.name", d.Name)}
	if d.Group != "" {
		out = append(out, attribute.String("messaging.consumer.group.name", d.Group))
	}
	return out
}

func operation(name string) attribute.KeyValue {
	return attribute.String("messaging.operation.name", name)
}

var (
	sends     = attribute.String("messaging.operation.type", "send")
	processes = attribute.String("messaging.operation.type", "process")
)

func nothing(int) {}

// Request begins the span of a request to a gateway, whose path begins below the resource's address; end takes the status of the answer. An
// event that comes with no trace context of its own is stored with that of the request which is given back.
func (t *Tracer) Request(r *http.Request, to plan.Resource) (_ *http.Request, end func(status int)) {
	if t == nil {
		return r, nothing
	}
	route := to.Path() + routeOf(r.URL.Path)
	ctx := w3c.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	//nolint:spancheck // end ends it
	ctx, _ = t.tracer.Start(ctx, r.Method+" "+route, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(of(to)...),
		trace.WithAttributes(attribute.String("http.request.method", r.Method), attribute.String("http.route", route)))
	span := trace.SpanFromContext(ctx)
	r = r.WithContext(ctx)
	r.Header = maps.Clone(r.Header)
	r.Header.Del("Tracestate")
	w3c.Inject(ctx, propagation.HeaderCarrier(r.Header))
	return r, func(status int) {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= 500 {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}

// routeOf is a path below a resource's address without what clients put into it: a lease is a secret, and there are as many as messages.
func routeOf(path string) string {
	switch {
	case path == "/messages", path == "/messages/receive", path == "/leases/ack":
		return path
	case strings.HasPrefix(path, "/leases/"):
		_, what, _ := strings.Cut(path[len("/leases/"):], "/")
		switch what {
		case "ack", "nack", "reject", "reply", "extend":
			return "/leases/{lease}/" + what
		}
	}
	return ""
}

// Handling is the first stage of a flow: it begins a span for each message of a batch, under which the stages behind it do their work for it,
// and ends it with what became of that handling. Without a Tracer there is no such stage.
func (t *Tracer) Handling(by plan.Resource, source Destination) []flow.Stage {
	if t == nil {
		return nil
	}
	return []flow.Stage{&handling{tracer: t.tracer, name: "process " + source.Name, attributes: append(append(of(by), source.attributes()...), operation("process"), processes)}}
}

type handling struct {
	tracer     trace.Tracer
	name       string
	attributes []attribute.KeyValue
}

func (h *handling) Process(ctx context.Context, b *flow.Batch) {
	for i := range b.Events {
		e := &b.Events[i]
		in := &b.Inputs[e.Input]
		in.Context = h.begin(ctx, &e.Message, in.Attempt) //nolint:fatcontext // each input has its own, under that of the batch
		stamp(in.Context, &e.Message)
	}
}

// begin begins the span of one message, and gives the context that holds it.
func (h *handling) begin(ctx context.Context, m *message.Message, attempt int) context.Context {
	options := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(h.attributes...),
		trace.WithAttributes(attribute.String("messaging.message.id", m.ID), attribute.Int("waybill.attempt", attempt)),
	}
	if published := contextOf(m); published.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, published)
		options = append(options, trace.WithLinks(trace.Link{SpanContext: published}))
	}
	ctx, _ = h.tracer.Start(ctx, h.name, options...) //nolint:spancheck // Commit ends it
	return ctx
}

func (h *handling) Commit(b *flow.Batch) {
	for i := range b.Inputs {
		in := &b.Inputs[i]
		if in.Context == nil {
			continue
		}
		span := trace.SpanFromContext(in.Context)
		switch {
		case in.Err != nil:
			span.SetStatus(codes.Error, "")
			span.SetAttributes(attribute.String("error.type", errorType(in.Err)))
		case in.Dropped != "":
			span.SetAttributes(attribute.String("waybill.dropped", in.Dropped))
		}
		span.End()
	}
}

// errorType is the kind of a failure: what went wrong in words stands in the log and in the dead letter.
func errorType(err error) string {
	f, ok := errors.AsType[*flow.Fault](err)
	switch {
	case errors.Is(err, context.Canceled):
		return "Cancelled"
	case errors.Is(err, context.DeadlineExceeded):
		return "Timeout"
	case !ok:
		return "_OTHER"
	}
	switch f.Blame {
	case flow.Destination:
		return "Destination"
	case flow.Message:
		return "Message"
	case flow.Busy:
		return "Busy"
	case flow.Address:
		return "Address"
	case flow.Broker:
		return "Broker"
	}
	return "Unreachable"
}

// Transport makes a span of each request that is made for a message, and puts it into the request's header traceparent.
func (t *Tracer) Transport(next http.RoundTripper) http.RoundTripper {
	if t == nil {
		return next
	}
	return &transport{tracer: t.tracer, next: next}
}

type transport struct {
	tracer trace.Tracer
	next   http.RoundTripper
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !trace.SpanContextFromContext(r.Context()).IsValid() {
		return t.next.RoundTrip(r)
	}
	ctx, span := t.tracer.Start(r.Context(), r.Method, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("http.request.method", r.Method), attribute.String("url.scheme", r.URL.Scheme), attribute.String("server.address", r.URL.Hostname())))
	defer span.End()
	r = r.WithContext(ctx)
	r.Header = maps.Clone(r.Header)
	r.Header.Del("Tracestate")
	w3c.Inject(ctx, propagation.HeaderCarrier(r.Header))
	answer, err := t.next.RoundTrip(r)
	if err != nil {
		span.SetStatus(codes.Error, "")
		span.SetAttributes(attribute.String("error.type", "NoAnswer"))
		return nil, err
	}
	span.SetAttributes(attribute.Int("http.response.status_code", answer.StatusCode))
	if answer.StatusCode >= 400 {
		span.SetStatus(codes.Error, "")
	}
	return answer, nil
}

// Reply makes a span of each answer that is sent to a requester's inbox.
func (t *Tracer) Reply(send func(ctx context.Context, namespace, address string, m message.Message) error) func(ctx context.Context, namespace, address string, m message.Message) error {
	if t == nil {
		return send
	}
	return func(ctx context.Context, namespace, address string, m message.Message) error {
		ctx, span := t.tracer.Start(ctx, "send (temporary)", trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
			attribute.Bool("messaging.destination.temporary", true), attribute.String("messaging.message.id", m.ID), operation("reply"), sends))
		defer span.End()
		err := send(ctx, namespace, address, m)
		if err != nil {
			span.SetStatus(codes.Error, "")
		}
		return err
	}
}

// A Publisher stores messages, as *broker.Publisher does.
type Publisher interface {
	Publish(ctx context.Context, ms []message.Message) []error
}

// Publisher makes a span of what a Poller publishes at a time: the trace of these messages begins there.
func (t *Tracer) Publisher(next Publisher, by plan.Resource, to Destination) Publisher {
	if t == nil {
		return next
	}
	return &publisher{tracer: t.tracer, next: next, name: "send " + to.Name, attributes: append(append(of(by), to.attributes()...), operation("publish"), sends)}
}

type publisher struct {
	tracer     trace.Tracer
	next       Publisher
	name       string
	attributes []attribute.KeyValue
}

func (p *publisher) Publish(ctx context.Context, ms []message.Message) []error {
	ctx, span := p.tracer.Start(ctx, p.name, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(p.attributes...),
		trace.WithAttributes(attribute.Int("messaging.batch.message_count", len(ms))))
	defer span.End()
	for i := range ms {
		stamp(ctx, &ms[i])
	}
	errs := p.next.Publish(ctx, ms)
	for _, err := range errs {
		if err != nil {
			span.SetStatus(codes.Error, "")
			break
		}
	}
	return errs
}
