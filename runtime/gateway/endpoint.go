package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/reply"
	"github.com/waybill-dev/waybill/runtime/schema"
)

// Patterns of an Endpoint.
const (
	requestResponse = "RequestResponse"
	requestAck      = "RequestAck"
	requestForget   = "RequestForget"
)

// Endpoint serves an Endpoint: POST at exactly its path.
type Endpoint struct {
	front
	plan   plan.Endpoint
	key    *expr.Program  // nil: the event's own key
	schema *schema.Schema // of the Topic that it leads to; nil: none
	limit  *rate.Limiter  // nil: none
}

// NewEndpoint makes the handler. The error is about the plan: its pattern or its key.
func NewEndpoint(p plan.Endpoint, deps Deps) (*Endpoint, error) {
	e := &Endpoint{plan: p}
	switch p.Pattern {
	case requestResponse, requestAck, requestForget:
	default:
		return nil, fmt.Errorf("endpoint: pattern %q is unknown", p.Pattern)
	}
	e.init(deps, "endpoints", p.To)
	if p.Key != nil {
		k, err := expr.Compile(p.Key.CEL, expr.Message, expr.String)
		if err != nil {
			return nil, fmt.Errorf("endpoint: key: %w", err)
		}
		e.key = k
	}
	if len(p.Schema) > 0 {
		s, err := schema.Compile(p.Schema)
		if err != nil {
			return nil, fmt.Errorf("endpoint: schema: %w", err)
		}
		e.schema = s
	}
	if p.RatePerSecond > 0 {
		e.limit = rate.NewLimiter(rate.Limit(p.RatePerSecond), p.RatePerSecond)
	}
	return e, nil
}

func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !e.serves(r.URL) {
		e.notFound(w, e.shown())
		return
	}
	if !e.allow(w, r, http.MethodPost) || !e.authenticated(w, r, e.plan.Auth) || e.refuseWhileDraining(w) {
		return
	}
	if e.limit != nil && !e.limit.Allow() {
		e.refuse(w, problem{Status: http.StatusTooManyRequests, Reason: "RateLimited", RetryAfter: time.Second,
			Detail: fmt.Sprintf("more than %d requests a second", e.plan.RatePerSecond)})
		return
	}
	in := e.read(w, r, limits{body: e.plan.MaxBodyBytes, data: e.plan.MaxMessageBytes, schema: e.schema})
	if in == nil {
		return
	}
	if p := e.setKeys(r.Context(), in); p != nil {
		in.close()
		e.refuse(w, *p)
		return
	}
	b := e.deps.Broker(e.plan.To.Broker)
	expires := e.plan.WhenExpired == "Drop"
	switch {
	case e.plan.Pattern == requestResponse:
		e.ask(w, r, b, e.deps.Desk(e.plan.To.Broker), in, request{want: reply.Reply, timeout: time.Duration(e.plan.Timeout), expires: expires})
	case e.plan.Pattern == requestAck && e.plan.AckWhen == stateProcessed:
		e.ask(w, r, b, e.deps.Desk(e.plan.To.Broker), in, request{want: reply.Processed, timeout: time.Duration(e.plan.Timeout), expires: expires})
	default:
		e.publish(w, r, b, in, e.plan.Pattern == requestForget)
	}
}

// serves reports whether u is exactly the Endpoint's path, spelt as it is there: %2F is no slash.
func (e *Endpoint) serves(u *url.URL) bool {
	return u.EscapedPath() == e.plan.Path || u.RawPath == "" && u.Path == e.plan.Path || u.Path == "" && e.plan.Path == "/"
}

// longSegment of a path is taken for a secret: only who knows it may call.
const longSegment = 20

// shown is where the Endpoint is, for who came to another path.
func (e *Endpoint) shown() string {
	for s := range strings.SplitSeq(e.plan.Path, "/") {
		if len(s) >= longSegment {
			return "POST at its spec.path"
		}
	}
	return "POST " + e.plan.Path
}

// keyTime bounds the computing of the keys of one request.
const keyTime = 5 * time.Second

// setKeys gives each event the key that the Endpoint computes of it. Of a batch all members without one are named.
func (e *Endpoint) setKeys(ctx context.Context, in *intake) *problem {
	if e.key == nil {
		return nil
	}
	p := problem{Status: http.StatusUnprocessableEntity, Reason: "NoKey", Detail: "the Endpoint's key cannot be computed from this event"}
	ctx, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	keyless := 0
	for i := range in.events {
		err := e.setKey(ctx, &in.events[i])
		if err == nil {
			continue
		}
		why := err.Error() // of the expression or of the attribute, without a value
		if ctx.Err() != nil {
			why = fmt.Sprintf("the keys of one request may take %s to compute", keyTime)
		}
		keyless++
		switch {
		case !in.batch:
			p.ID = in.events[i].ID
			p.Detail += ": " + why
		case keyless <= maxFaults:
			p.Errors = append(p.Errors, fault{Index: &i, Detail: "has no key: " + why})
		}
	}
	if keyless == 0 {
		return nil
	}
	return &p
}

func (e *Endpoint) setKey(ctx context.Context, m *message.Message) error {
	v := expr.For(nil, m)
	defer v.Release()
	key, err := e.key.EvalString(ctx, v)
	if err != nil {
		return err
	}
	m.Key = key
	return m.Check()
}

// Drain refuses what comes from now on and returns when all that was accepted is stored. When ctx ends first, what is left is lost and
// counted. Requests that wait for an answer go on: the server's shutdown waits for them.
func (e *Endpoint) Drain(ctx context.Context) error { return e.drain(ctx) }
