package nats

import (
	"context"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// keep looks after what a source has until ctx ends or the connection is closed. A receiver may pause for long, as a flow does whose
// destination is away: then nothing more is asked for, which others may have meanwhile, and what has arrived is extended, for each time that
// the server delivered it again would count as a failure to handle it. What was received and ran out is given up, for nobody settles it any
// more: else it would fill the window for ever.
func (s *durableSource) keep(ctx context.Context) {
	every := max(s.wait()/3, 10*time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	looked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.conn.done:
			return
		case <-tick.C:
		}
		if time.Since(looked) >= lookEvery {
			looked = time.Now()
			s.lookAtAckWait(ctx)
		}
		if now := max(s.wait()/3, 10*time.Millisecond); now != every {
			every = now
			tick.Reset(every)
		}
		s.pull.pauseUnless(every)
		s.extendArrivals(ctx)
		s.giveUpEnded(time.Now())
	}
}

// lookEvery is how often an open source asks for its consumer's ack wait: one that was shortened meanwhile ends deliveries earlier than the
// source thinks.
const lookEvery = 10 * time.Second

func (s *durableSource) lookAtAckWait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if info, err := s.conn.consumerInfo(ctx, s.spec.Object.Name, s.consumer); err == nil {
		s.ackWait.Store(int64(info.Config.AckWait))
	}
}

// pauseUnless takes pull requests back when nobody has received for so long. The next take begins anew.
func (p *puller) pauseUnless(within time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.takers > 0 || time.Since(p.lastTaken) < within || p.credit.messages == 0 || p.broken != nil || p.stopping {
		return
	}
	_ = p.sub.Unsubscribe() // fails only when the connection is closed
	p.epoch++
	p.sub, p.credit, p.broken = nil, amount{}, errPaused
}

func (s *durableSource) extendArrivals(ctx context.Context) {
	now := time.Now()
	acks, which := s.pull.waiting(now.Add(-s.wait() / 4))
	if len(acks) == 0 {
		return
	}
	// Where it fails they come again; who receives one that ran out sees it by its Deadline.
	if s.conn.acknowledge(ctx, acks) == nil {
		s.pull.extended(which, now)
	}
}

// waiting are the arrivals from before a time that were not taken, and what extends them.
func (p *puller) waiting(before time.Time) (acks []ack, which map[*natsgo.Msg]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.arrivals {
		if a := &p.arrivals[i]; a.at.Before(before) {
			if which == nil {
				which = map[*natsgo.Msg]bool{}
			}
			which[a.m] = true
			acks = append(acks, ack{a.m.Reply, ackExtend, a.session})
		}
	}
	return acks, which
}

// extended notes since when the ack wait of arrivals runs.
func (p *puller) extended(which map[*natsgo.Msg]bool, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.arrivals {
		if which[p.arrivals[i].m] {
			p.arrivals[i].at = at
		}
	}
}

func (s *durableSource) giveUpEnded(now time.Time) {
	var ended []*held
	s.mu.Lock()
	for h := s.first; h != nil; h = h.next {
		if !now.Before(h.until) {
			ended = append(ended, h)
		}
	}
	s.mu.Unlock()
	for _, h := range ended {
		if s.unlink(h) {
			s.release(1, h.size)
		}
	}
}
