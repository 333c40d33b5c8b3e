package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/gateway"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/poll"
	"github.com/waybill-dev/waybill/runtime/postgres"
	"github.com/waybill-dev/waybill/runtime/reply"
	"github.com/waybill-dev/waybill/runtime/sink"
	"github.com/waybill-dev/waybill/runtime/step"
	"github.com/waybill-dev/waybill/runtime/tracing"
)

// build makes the parts of a plan. Its brokers may still be away. An error is the plan's fault, or the host's: trying again does not help.
func (u *unit) build() (parts, error) {
	var p parts
	var err error
	for _, spec := range u.plan.Brokers {
		if _, err := u.broker(spec.Name); err != nil {
			return p, err
		}
	}
	switch {
	case u.plan.Topic != nil:
		p.gateway, err = gateway.NewTopic(*u.plan.Topic, u.gatewayDeps())
	case u.plan.Mailbox != nil:
		p.gateway = gateway.NewMailbox(*u.plan.Mailbox, u.gatewayDeps())
	case u.plan.Endpoint != nil:
		p.gateway, err = gateway.NewEndpoint(*u.plan.Endpoint, u.gatewayDeps())
	}
	if err == nil && u.plan.Flow != nil && !u.plan.Paused {
		p.flow, err = u.buildFlow(u.plan.Flow)
	}
	if err == nil && u.plan.Poller != nil && !u.plan.Paused {
		p.poller, err = u.buildPoller(u.plan.Poller)
	}
	if err != nil {
		return parts{}, err
	}
	return p, nil
}

func (u *unit) gatewayDeps() gateway.Deps {
	ns := u.plan.Resource.Namespace
	return gateway.Deps{
		Resource: u.plan.Resource,
		Broker:   u.mustBroker,
		Secret: func(r plan.SecretRef) ([]byte, error) {
			return u.engine.host.Secrets.Value(ns, r.Name, r.Key)
		},
		Desk: func(name string) *reply.Desk {
			return u.engine.desks.get(u.mustBroker(name), ns, u.log)
		},
		Sender: func(name string) *reply.Sender {
			return u.engine.desks.sender(u.mustBroker(name), ns)
		},
		Paused:    u.plan.Paused,
		LeaseKeys: u.engine.host.LeaseKeys,
		Dead:      u.dead.dead,
		Log:       u.engine.host.Log,
	}
}

// desk is where the unit's gateway waits for answers, nil where it never does.
func (u *unit) desk() *reply.Desk {
	var to string
	switch p := u.plan; {
	case p.Mailbox != nil:
		to = p.Mailbox.Object.Broker
	case p.Endpoint != nil && (p.Endpoint.Pattern == "RequestResponse" || p.Endpoint.AckWhen == "Processed"):
		to = p.Endpoint.To.Broker
	default:
		return nil
	}
	return u.engine.desks.get(u.mustBroker(to), u.plan.Resource.Namespace, u.log)
}

// mustBroker is for names that the plan's own parts use, after build has seen that there is a driver for each.
func (u *unit) mustBroker(name string) *broker.Broker {
	b, err := u.broker(name)
	if err != nil {
		panic(err) // the compiler lists each broker that a plan uses
	}
	return b
}

func (u *unit) buildFlow(p *plan.Flow) (*flow.Flow, error) {
	source := u.mustBroker(p.Source.Object.Broker)
	requesters := u.engine.desks.sender(source, u.plan.Resource.Namespace)

	stages := u.engine.host.Tracing.Handling(u.plan.Resource, u.destination(p.Source.Object, p.Source.Group))
	for _, s := range p.Steps {
		stage, err := step.New(s, step.Deps{
			Client: u.engine.host.Outbound, Namespace: u.plan.Resource.Namespace, AtMostOnce: p.Policy.Guarantee == "AtMostOnce",
		})
		if err != nil {
			return nil, fmt.Errorf("step %s: %w", s.Name, err)
		}
		stages = append(stages, stage)
	}
	end, err := u.buildSink(p, requesters)
	if err != nil {
		return nil, err
	}
	stages = append(stages, end...)

	var into driver.Ref
	if carries(p) {
		into = ref(p.Sink.Publish.Object)
	}
	receipt := receipts(requesters, u.log)
	cfg := flow.Config{
		Name: u.plan.Resource.String(),
		Open: func(ctx context.Context, revoke func(context.Context, []driver.Claim), lost func([]driver.Claim)) (driver.Source, error) {
			return source.Source(ctx, driver.SourceSpec{
				Object:   ref(p.Source.Object),
				Group:    p.Source.Group,
				Ordering: driver.Ordering(p.Source.Ordering),
				Window:   driver.Window{Messages: p.Source.WindowMessages, Bytes: p.Source.WindowBytes},
				AckWait:  time.Duration(p.Source.AckWait),
				Into:     into,
				Revoke:   revoke,
				Lost:     lost,
			})
		},
		Stages:  stages,
		Policy:  policy(p),
		Settled: func(ctx context.Context, all []flow.Settled) { u.dead.settled(all); receipt(ctx, all) },
		Log:     u.log,
	}
	if dead := p.Policy.DeadLetter; dead != nil {
		cfg.DeadLetter = u.mustBroker(dead.Broker).Publisher(ref(*dead))
	}
	return flow.New(cfg), nil
}

// carries reports whether a flow's source stores what became of its messages, together with its position.
func carries(p *plan.Flow) bool {
	return p.Policy.Guarantee == "ExactlyOnce" && p.Sink.Publish != nil
}

func policy(p *plan.Flow) flow.Policy {
	return flow.Policy{
		Ordering:    driver.Ordering(p.Source.Ordering),
		AtMostOnce:  p.Policy.Guarantee == "AtMostOnce",
		Carries:     carries(p),
		MaxInFlight: p.Policy.MaxInFlight,
		BatchSize:   p.Policy.BatchSize,
		Window:      driver.Window{Messages: p.Source.WindowMessages, Bytes: p.Source.WindowBytes},
		AckWait:     time.Duration(p.Source.AckWait),
		Retry: flow.Retry{
			MaxAttempts:   p.Policy.Retry.MaxAttempts,
			Initial:       time.Duration(p.Policy.Retry.Initial),
			Max:           time.Duration(p.Policy.Retry.Max),
			Multiplier:    p.Policy.Retry.Multiplier,
			JitterPercent: p.Policy.Retry.JitterPercent,
		},
		OnFailure:   flow.OnFailure(p.Policy.OnFailure),
		WhenExpired: flow.WhenExpired(p.Policy.WhenExpired),
	}
}

func (u *unit) buildSink(p *plan.Flow, requesters *reply.Sender) ([]flow.Stage, error) {
	switch s := p.Sink; {
	case s.Publish != nil && carries(p):
		return sink.NewCarry(*s.Publish)
	case s.Publish != nil:
		return sink.NewPublish(*s.Publish, u.outlet(s.Publish.Object))
	case s.Push != nil:
		deps := sink.PushDeps{
			Client:     u.engine.host.Outbound,
			Namespace:  u.plan.Resource.Namespace,
			Source:     u.plan.Resource.Path(),
			AtMostOnce: p.Policy.Guarantee == "AtMostOnce",
			Sender:     requesters,
		}
		if s.Push.ReplyTo != nil {
			deps.ReplyTo = u.outlet(s.Push.ReplyTo.Object)
		}
		stage, err := sink.NewPush(*s.Push, deps)
		return []flow.Stage{stage}, err
	case s.Reply != nil:
		return []flow.Stage{sink.NewReply(requesters)}, nil
	case s.Postgres != nil:
		return u.buildRows(s.Postgres)
	}
	return nil, fmt.Errorf("the plan of %s has no sink that this worker knows", u.plan.Resource)
}

func (u *unit) outlet(r plan.Ref) sink.Outlet {
	b := u.mustBroker(r.Broker)
	return sink.Outlet{Publisher: b.Publisher(ref(r)), Class: b.Class}
}

// destination is a broker object as traces name it.
func (u *unit) destination(r plan.Ref, group string) tracing.Destination {
	d := tracing.Destination{Name: r.Name, Group: group}
	for _, b := range u.plan.Brokers {
		if b.Name == r.Broker {
			d.Protocol = b.Protocol
		}
	}
	return d
}

func (u *unit) buildPoller(p *plan.Poller) (*poll.Poller, error) {
	store, err := u.engine.host.Checkpoint(u.plan.Resource)
	if err != nil {
		return nil, err
	}
	var db *postgres.Database
	if p.SQL != nil {
		db = u.openDatabase(p.SQL.DSN)
	}
	return poll.New(*p, poll.Deps{
		Database:   db,
		Client:     u.engine.host.Outbound,
		Namespace:  u.plan.Resource.Namespace,
		Publisher:  u.engine.host.Tracing.Publisher(u.mustBroker(p.To.Broker).Publisher(ref(p.To)), u.plan.Resource, u.destination(p.To, "")),
		Checkpoint: store,
		Log:        u.log,
	})
}
