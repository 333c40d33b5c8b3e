package main

import (
	"context"
	"slices"
	"time"

	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// announce tells of each resource when it runs, and returns once none is left that still tries to start, or ctx ends. It reports whether
// all of them run, or would have if ctx had not ended. wait is called while some do not.
func (s *speaker) announce(ctx context.Context, eng *engine.Engine, outcomes []compile.Outcome, elsewhere *compile.Result,
	address func(*compile.Outcome) string, wait func()) (untroubled bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		running, waiting := started(eng)
		var ready, later []compile.Outcome
		for _, o := range outcomes {
			if running[o.Resource] || o.Plan == nil && reached(o.Resource, outcomes, running) {
				ready = append(ready, o)
			} else {
				later = append(later, o)
			}
		}
		s.ready(ready, elsewhere, address)
		outcomes = later
		if waiting == 0 {
			return len(outcomes) == 0
		}
		wait()
		select {
		case <-ctx.Done():
			return !slices.ContainsFunc(eng.Status(), func(s engine.Status) bool { return s.State == engine.Waiting || s.State == engine.Failed })
		case <-tick.C:
		}
	}
}

// started tells which resources run, and how many still try to.
func started(eng *engine.Engine) (running map[plan.Resource]bool, waiting int) {
	running = map[plan.Resource]bool{}
	for _, s := range eng.Status() {
		switch s.State {
		case engine.Running, engine.Paused:
			running[plan.Resource{Kind: s.Kind, Namespace: s.Namespace, Name: s.Name}] = true
		case engine.Starting, engine.Waiting:
			waiting++
		}
	}
	return running, waiting
}

// reached reports whether a Broker answered: no resource that uses it is left that does not run.
func reached(broker plan.Resource, outcomes []compile.Outcome, running map[plan.Resource]bool) bool {
	return !slices.ContainsFunc(outcomes, func(o compile.Outcome) bool {
		return o.Plan != nil && !running[o.Resource] && slices.ContainsFunc(o.Plan.Brokers, func(b plan.Broker) bool {
			return b.Name == broker.Namespace+"/"+broker.Name
		})
	})
}
