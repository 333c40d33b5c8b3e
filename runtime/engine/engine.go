// Package engine turns plans into running flows, gateways and pollers, and ends them in order. A worker's engine takes a list of plans: a
// Pod runs one, a laptop runs all. What fails in one of them never stops another.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
	"github.com/waybill-dev/waybill/runtime/tracing"
)

// Host is what differs between a Pod and a laptop.
type Host struct {
	// Drivers open a session, by plan.Broker.Protocol.
	Drivers map[string]driver.Open
	Secrets secret.Store
	// Checkpoint is where a poller keeps its position.
	Checkpoint func(plan.Resource) (checkpoint.Store, error)
	// Base is the path under which a resource's gateway is served: "" in a Pod, which serves one.
	Base func(plan.Resource) string
	// LeaseKeys seal lease tokens: the first seals, all open. They are asked for at each use, for they may be changed meanwhile.
	LeaseKeys func() ([][]byte, error)
	// Outbound makes every HTTP request to a subscriber, a step or a polled source.
	Outbound *outbound.Client
	// Administer makes the engine create the broker objects of its plans, as a laptop needs it. In a cluster the operator does.
	Administer bool
	// Tracing makes spans of what happens to messages; nil: nobody reads them.
	Tracing *tracing.Tracer
	Log     *slog.Logger
}

// Engine runs plans. It is made by New, started once and drained once.
type Engine struct {
	host   Host
	conns  *connections
	desks  *desks
	router router

	backlogs backlogs

	ctx    context.Context // ends when everything is to stop at once
	cancel context.CancelFunc

	mu       sync.Mutex
	units    []*unit
	draining bool
}

// New makes an engine that runs nothing yet.
func New(host Host) *Engine {
	if host.Log == nil {
		host.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		host:   host,
		conns:  newConnections(host),
		desks:  newDesks(host.Tracing),
		router: router{routes: map[string]http.Handler{}},
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// Start runs plans. It returns when each of them runs or has failed for the first time, or when ctx ends; one that failed is tried again in
// the background until it runs. A plan lists all the objects that it needs, in their order, so plans may start in any order.
func (e *Engine) Start(ctx context.Context, plans []*plan.Plan) {
	e.mu.Lock()
	for _, p := range plans {
		e.units = append(e.units, newUnit(e, p))
	}
	units := e.units
	e.mu.Unlock()

	each(units, func(u *unit) { u.launch(ctx) })
}

// each calls f for all units at once and waits for them.
func each(units []*unit, f func(*unit)) {
	var wg sync.WaitGroup
	for _, u := range units {
		wg.Go(func() { f(u) })
	}
	wg.Wait()
}

// Gateways serves the gateways of all plans under their bases.
func (e *Engine) Gateways() http.Handler { return &e.router }

// Status tells of each resource, in the order of Start.
func (e *Engine) Status() []Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]Status, len(e.units))
	for i, u := range e.units {
		out[i] = u.status()
	}
	passedOn(e.units, out)
	return out
}

// Ready is nil when each plan runs and none drains: a broker that is away later does not make a worker unready, for its callers are
// better served by a 503 that says so than by a refused connection.
func (e *Engine) Ready() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining {
		return errors.New("draining")
	}
	for _, u := range e.units {
		if s := u.status(); s.State == Starting || s.State == Waiting {
			return errors.New(strings.TrimSuffix(u.plan.Resource.String()+" is "+string(s.State)+": "+s.Message, ": "))
		}
	}
	return nil
}

// Drain ends everything within ctx, in the order that loses nothing: unready; gateways answer their long polls and take no new work; the
// requests under way end, which may need the flows; flows and pollers finish what is in flight and hand the rest back uncounted. Until then
// HTTP is served, so that readiness is told and callers are sent elsewhere; then who waits still is told that the outcome is unknown, stopHTTP
// ends it, and the connections close. It returns what each resource drained.
func (e *Engine) Drain(ctx context.Context, stopHTTP func(context.Context)) []Drained {
	e.mu.Lock()
	e.draining = true
	units := e.units
	e.mu.Unlock()

	// Requests that wait for a reply may wait longer than the drain lasts: they get half of it.
	half, cancel := halfOf(ctx)
	defer cancel()
	each(units, func(u *unit) { u.quiesce(half) })
	e.router.wait(half)

	drained := make([]Drained, len(units))
	var wg sync.WaitGroup
	for i, u := range units {
		wg.Go(func() { drained[i] = u.drain(ctx) })
	}
	wg.Wait()
	e.backlogs.forget()
	// The flows have ended, so who waits still has waited in vain; answers that are being written get a moment.
	for i, u := range units {
		if u.endWaits() {
			drained[i].Cut = true
		}
	}
	last, ended := half, context.CancelFunc(func() {})
	if half.Err() != nil {
		last, ended = context.WithTimeout(context.WithoutCancel(ctx), lastAnswers)
	}
	stopHTTP(last)
	ended()

	e.cancel()
	// The deadline bounds the work, not the goodbye: closing releases what is held, and takes its own short time.
	closing, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer done()
	e.desks.close()
	if err := e.conns.close(closing); err != nil {
		e.host.Log.Warn("closing connections", "error", err)
	}
	return drained
}

// lastAnswers is how long answers that are being written when a drain ends may take.
const lastAnswers = time.Second

func halfOf(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/2)
}
