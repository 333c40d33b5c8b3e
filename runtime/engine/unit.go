package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/gateway"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/poll"
)

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
	// startTimeout bounds one try to start a unit, so that a broker that never answers does not hold up those beside it.
	startTimeout = 5 * time.Second
)

// A unit is one plan being run: it starts, tries again while it fails, and drains.
type unit struct {
	engine *Engine
	plan   *plan.Plan
	log    *slog.Logger
	dead   *letters
	work   sync.WaitGroup // whatever runs in the background for it
	stop   context.CancelFunc
	ctx    context.Context

	database database // where the plan has one

	answers answers // of its gateway

	mu      sync.Mutex
	state   State
	message string
	parts   parts
	started bool // the flow runs, and so can be drained
	cut     bool // the gateway was told to end before all that it had accepted was stored
}

// parts are what a plan becomes: a Mailbox with a handler has a gateway and a flow, the others one of the three.
type parts struct {
	gateway served
	flow    *flow.Flow
	poller  *poll.Poller
}

// served is what the three gateways have in common.
type served interface {
	http.Handler
	Drain(ctx context.Context) error
	EndWaits() int64
	Stats() gateway.Stats
}

func newUnit(e *Engine, p *plan.Plan) *unit {
	u := &unit{engine: e, plan: p, log: e.host.Log.With("resource", p.Resource.String()), state: Starting}
	u.dead = newLetters(u.log, graveOf(p))
	u.ctx, u.stop = context.WithCancel(e.ctx)
	return u
}

func (u *unit) broker(name string) (*broker.Broker, error) {
	for _, spec := range u.plan.Brokers {
		if spec.Name == name {
			return u.engine.conns.get(u.plan.Resource.Namespace, spec)
		}
	}
	return nil, fmt.Errorf("the plan of %s names no broker %q", u.plan.Resource, name)
}

// launch starts the unit. Its gateway is there at once, to answer 503 while the broker is away. When the first try to start the rest fails
// it goes on trying in the background.
func (u *unit) launch(ctx context.Context) {
	p, err := u.build()
	if err != nil {
		u.set(Failed, err.Error())
		u.log.Error("cannot be run", "error", err)
		return
	}
	u.mu.Lock()
	u.parts = p
	u.mu.Unlock()
	if p.gateway != nil {
		u.engine.router.add(u.engine.host.Base(u.plan.Resource), u.observed(p.gateway))
	}

	first, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if u.try(first) {
		return
	}
	u.work.Go(func() {
		for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
			select {
			case <-u.ctx.Done():
				return
			case <-time.After(pause):
			}
			again, cancel := context.WithTimeout(u.ctx, startTimeout)
			settled := u.try(again)
			cancel()
			if settled {
				return
			}
		}
	})
}

// try starts the unit and reports whether there is nothing left to try.
func (u *unit) try(ctx context.Context) bool {
	err := u.start(ctx)
	switch {
	case err == nil:
		running := Running
		if u.plan.Paused {
			running = Paused
		}
		u.set(running, "")
		return true
	case errors.Is(ctx.Err(), context.Canceled):
		// Told to stop: that says nothing about the resource, but a broker that could not be reached before does.
		if errors.Is(err, broker.ErrAway) && !errors.Is(err, broker.ErrNotYet) {
			u.set(Waiting, u.away())
		}
		return u.ctx.Err() != nil
	default:
		if u.set(Waiting, err.Error()) {
			u.log.Info("waits", "error", err)
		}
		return false
	}
}

// set reports whether anything changed. A unit that drains stays so.
func (u *unit) set(s State, message string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.state == Draining || u.state == Stopped || u.state == s && u.message == message {
		return false
	}
	u.state, u.message = s, message
	return true
}

func (u *unit) start(ctx context.Context) error {
	for _, spec := range u.plan.Brokers {
		b, err := u.broker(spec.Name)
		if err != nil {
			return err
		}
		if err := b.WaitReady(ctx); err != nil {
			return err
		}
	}
	if u.engine.host.Administer {
		if err := u.ensure(ctx); err != nil {
			return err
		}
	}
	if d := u.desk(); d != nil {
		if err := d.Ready(ctx); err != nil {
			return err
		}
	}
	if err := u.database.ready(ctx); err != nil {
		return err
	}

	u.mu.Lock()
	defer u.mu.Unlock()
	if u.state == Draining || u.state == Stopped {
		return nil
	}
	if f := u.parts.flow; f != nil {
		u.started = true
		u.work.Go(func() { u.ended(f.Run(u.ctx)) })
		u.work.Go(func() { u.database.tend(u.ctx) })
	}
	if p := u.parts.poller; p != nil {
		u.work.Go(func() { u.ended(p.Run(u.ctx)) })
	}
	return nil
}

// ended notes that a flow or poller stopped of itself: its position is lost, or somebody else writes its checkpoint. The others go on.
func (u *unit) ended(err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	if u.set(Failed, err.Error()) {
		u.log.Error("stopped", "error", err)
	}
}

// quiesce takes no new work over HTTP; what waits in a long poll is answered.
func (u *unit) quiesce(ctx context.Context) {
	u.mu.Lock()
	u.state = Draining
	g := u.parts.gateway
	u.mu.Unlock()
	if g == nil {
		return
	}
	if err := g.Drain(ctx); err != nil {
		u.log.Warn("gateway drained in part", "error", err)
		u.mu.Lock()
		u.cut = true
		u.mu.Unlock()
	}
}

// endWaits answers who still waits for an answer of the gateway, and reports whether anybody did.
func (u *unit) endWaits() bool {
	u.mu.Lock()
	g := u.parts.gateway
	u.mu.Unlock()
	return g != nil && g.EndWaits() > 0
}

// Drained is what one resource finished and handed back while it drained.
type Drained struct {
	Resource plan.Resource
	flow.Drained
	// AcceptedLost are messages that a gateway accepted, never promised to be stored, and could not store.
	AcceptedLost int64
	// Cut: the time was over before all had ended; what had promised nothing was lost, all else comes again, and who waited for an answer was
	// told that the outcome is unknown.
	Cut bool
}

func (u *unit) drain(ctx context.Context) Drained {
	u.mu.Lock()
	p, started := u.parts, u.started
	u.mu.Unlock()
	d := Drained{Resource: u.plan.Resource}
	if started {
		d.Drained = p.flow.Drain(ctx)
	}
	u.stop()
	u.work.Wait()
	u.database.close()
	u.dead.flush()
	if p.gateway != nil {
		d.AcceptedLost = p.gateway.Stats().Lost
	}
	u.mu.Lock()
	u.state = Stopped
	d.Cut = u.cut || d.Cancelled > 0 || d.Drained.Lost > 0
	u.mu.Unlock()
	return d
}
