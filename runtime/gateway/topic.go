package gateway

import (
	"context"
	"fmt"
	"net/http"

	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/schema"
)

// Topic serves a Topic: POST publishes, GET reads live events.
type Topic struct {
	front
	plan   plan.Topic
	schema *schema.Schema // nil: anything goes
	live   liveReaders
}

// NewTopic makes the handler. The error is about the plan's schema.
func NewTopic(p plan.Topic, deps Deps) (*Topic, error) {
	t := &Topic{plan: p}
	t.init(deps, "topics", p.Object)
	if len(p.Schema) > 0 {
		s, err := schema.Compile(p.Schema)
		if err != nil {
			return nil, fmt.Errorf("schema: %w", err)
		}
		t.schema = s
	}
	return t, nil
}

func (t *Topic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" && r.URL.Path != "" || EncodedSlash(r.URL.RawPath) {
		t.notFound(w, "POST and GET at its address itself")
		return
	}
	if !t.allow(w, r, http.MethodPost, http.MethodGet) {
		return
	}
	auth := t.plan.Publish
	if r.Method == http.MethodGet {
		auth = t.plan.Receive
	}
	if !t.authenticated(w, r, auth) || t.refuseWhileDraining(w) {
		return
	}
	if r.Method == http.MethodGet {
		t.serveLive(w, r)
		return
	}
	prefer, _ := readPrefer(r.Header) // a Topic has nothing to wait for
	in := t.read(w, r, limits{data: t.plan.MaxMessageBytes, schema: t.schema})
	if in == nil {
		return
	}
	t.publish(w, r, t.deps.Broker(t.plan.Object.Broker), in, prefer.async)
}

// Drain refuses what comes from now on, ends live events, and returns when all that was accepted is stored. When ctx ends first, what is
// left is lost and counted.
func (t *Topic) Drain(ctx context.Context) error {
	return t.drain(ctx)
}
