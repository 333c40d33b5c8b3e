package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// queueConsumer is the durable consumer of a Queue.
const queueConsumer = "waybill"

// defaultWindow is used where a spec gives none.
const defaultWindow = 256

// positional reports whether an object of this kind and ordering is read by a cursor of ours.
func positional(k driver.Kind, o driver.Ordering) bool {
	return o == driver.Key || o == driver.Strict && k != driver.Queue
}

// Source opens a consumer. The position must have been made by Ensure.
func (c *conn) Source(ctx context.Context, s driver.SourceSpec) (driver.Source, error) {
	if err := validStream(s.Object.Name); err != nil {
		return nil, err
	}
	s.OnDemand = s.OnDemand || s.Lease
	switch {
	case s.Object.Kind == driver.Topic && s.Group == "" && s.Live != nil:
		return c.openLive(ctx, s)
	case s.Object.Kind == driver.Queue && s.Group == "":
	case s.Object.Kind == driver.Topic && s.Group != "":
		if err := validStream(s.Group); err != nil {
			return nil, fmt.Errorf("group: %w", err)
		}
	default:
		return nil, fmt.Errorf("source: %w: a Topic is read by a group, a Queue without one", driver.ErrInvalid)
	}
	if s.Window.Messages <= 0 {
		s.Window.Messages = defaultWindow
	}
	if s.Into.Name != "" {
		return c.openTransfer(ctx, s)
	}
	if positional(s.Object.Kind, s.Ordering) {
		return c.openCursor(ctx, s)
	}
	return c.openDurable(ctx, s)
}

// A durableSource reads through a durable consumer: the server counts who has what, each message is settled by itself, and several
// sources share the work.
type durableSource struct {
	conn     *conn
	spec     driver.SourceSpec
	consumer string
	ackWait  atomic.Int64 // a time.Duration: it may be changed while the source is open
	pull     *puller

	scratch []arrival // of Receive

	endKeeping context.CancelFunc
	keeping    sync.WaitGroup

	mu       sync.Mutex
	first    *held // unsettled deliveries in the order in which they came
	last     *held
	draining bool
}

// held is a delivery that is not settled.
type held struct {
	source     *durableSource
	session    *session
	reply      string
	size       int
	until      time.Time // the end of its ack wait
	prev, next *held
	out        bool // settled or given up
}

func (c *conn) openDurable(ctx context.Context, spec driver.SourceSpec) (*durableSource, error) {
	name := spec.Group
	if spec.Object.Kind == driver.Queue {
		name = queueConsumer
	}
	info, err := c.consumerInfo(ctx, spec.Object.Name, name)
	if err != nil {
		return nil, err
	}
	if info.Config.AckPolicy != jetstream.AckExplicitPolicy || info.Config.DeliverSubject != "" {
		return nil, fmt.Errorf("consumer %s of stream %s: %w: it must be a pull consumer with explicit acknowledgement", name, spec.Object.Name, driver.ErrConflict)
	}
	if spec.Object.Kind == driver.Topic {
		stream, err := c.streamInfo(ctx, spec.Object.Name)
		if err != nil {
			return nil, err
		}
		if lost(info.Delivered.Stream, &stream.State) {
			return nil, positionLost(spec.Object.Name, name, info.Delivered.Stream, stream.State.FirstSeq)
		}
	}
	s := &durableSource{conn: c, spec: spec, consumer: name}
	s.ackWait.Store(int64(info.Config.AckWait))
	s.pull = newPuller(c, spec.Window, true)
	if spec.OnDemand {
		return s, nil
	}
	if err := s.pull.start(spec.Object.Name, name); err != nil {
		return nil, err
	}
	keeping, end := context.WithCancel(context.Background())
	s.endKeeping = end
	s.keeping.Go(func() { s.keep(keeping) })
	return s, nil
}

// consumerInfo is what the server says of a consumer: ErrMissing when the stream, ErrPositionLost when the consumer is not there.
func (c *conn) consumerInfo(ctx context.Context, stream, name string) (*jetstream.ConsumerInfo, error) {
	cons, err := c.js.Consumer(ctx, stream, name)
	if err != nil {
		if apiCode(err) == jetstream.JSErrCodeConsumerNotFound || apiCode(err) == jetstream.JSErrCodeConsumerDoesNotExist {
			return nil, fmt.Errorf("consumer %s of stream %s: %w", name, stream, driver.ErrPositionLost)
		}
		return nil, missing("stream "+stream, err)
	}
	return cons.CachedInfo(), nil
}

// lost reports whether messages after position were deleted before they were read, or the stream is another than it was.
func lost(position uint64, state *jetstream.StreamState) bool {
	return position+1 < state.FirstSeq || position > state.LastSeq
}

func positionLost(stream, group string, position, first uint64) error {
	return fmt.Errorf("stream %s, group %s: %w: it stood at %d and the oldest message left is %d; seek to a new position to go on",
		stream, group, driver.ErrPositionLost, position, first)
}

// wait is the consumer's ack wait.
func (s *durableSource) wait() time.Duration { return time.Duration(s.ackWait.Load()) }

func (s *durableSource) Settling() driver.Settling { return driver.PerMessage }

func (s *durableSource) Receive(ctx context.Context, into []driver.Delivery) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	if s.spec.OnDemand {
		return s.receiveOnDemand(ctx, into)
	}
	for {
		batch, err := s.take(ctx, s.pull, len(into))
		if err != nil {
			return 0, err
		}
		if n := s.deliver(batch, into); n > 0 || len(batch) == 0 {
			return n, nil
		}
	}
}

// receiveOnDemand asks for len(into) messages, no longer than ctx lasts, and takes the request back where it must return earlier: nothing is
// fetched that nobody waits for.
func (s *durableSource) receiveOnDemand(ctx context.Context, into []driver.Delivery) (int, error) {
	p := newFetch(ctx, s.conn, driver.Window{Messages: len(into), Bytes: s.spec.Window.Bytes})
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return 0, driver.ErrDrained
	}
	s.pull = p
	s.mu.Unlock()
	batch, err := s.take(ctx, p, len(into))
	flush, cancel := context.WithTimeout(context.Background(), apiTimeout)
	defer cancel()
	p.settle(flush)
	p.stop()
	p.stopped(flush)
	batch = append(batch, p.rest()...)
	if len(batch) == 0 {
		return 0, err
	}
	return s.deliver(batch, into), nil
}

// take waits for messages of p, and starts it (anew) where that is needed.
func (s *durableSource) take(ctx context.Context, p *puller, limit int) ([]arrival, error) {
	for {
		batch, err := p.take(ctx, s.scratch[:0], limit)
		s.scratch = batch
		if err == nil || !restartable(err) {
			return batch, err
		}
		if err := s.start(ctx, p); err != nil {
			if ctx.Err() != nil {
				return nil, nil
			}
			if !away(err) {
				return nil, err
			}
		}
	}
}

// start starts p once there is a connection and the consumer is known to be there: a pull request cannot tell one that is gone from one
// that is moving to another server.
func (s *durableSource) start(ctx context.Context, p *puller) error {
	if err := s.conn.waitOnline(ctx); err != nil {
		return err
	}
	info, err := s.conn.consumerInfo(ctx, s.spec.Object.Name, s.consumer)
	if err != nil {
		return err
	}
	s.ackWait.Store(int64(info.Config.AckWait))
	s.forget(p, info.Delivered.Stream)
	return p.start(s.spec.Object.Name, s.consumer)
}

// forget gives up what the server does not know to have delivered: a crash has set it back, and it will deliver that again.
func (s *durableSource) forget(p *puller, delivered uint64) {
	p.drop(func(a *arrival) bool {
		o, _ := parseReply(a.m.Reply)
		return o.sequence > delivered
	})
	var unknown []*held
	s.mu.Lock()
	for h := s.first; h != nil; h = h.next {
		if o, _ := parseReply(h.reply); o.sequence > delivered {
			unknown = append(unknown, h)
		}
	}
	s.mu.Unlock()
	for _, h := range unknown {
		if s.unlink(h) {
			s.release(1, h.size)
		}
	}
}

// deliver turns arrivals into deliveries and notes them as held.
func (s *durableSource) deliver(batch []arrival, into []driver.Delivery) int {
	notes := make([]held, len(batch))
	var dec decoder
	var ids identities
	n := 0
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range batch {
		m := batch[i].m
		o, ok := parseReply(m.Reply)
		if ok && isPlace(m.Subject) {
			_ = s.conn.nc.Publish(m.Reply, []byte(ackDone)) // should it be lost, it comes again
			ok = false
		}
		if !ok {
			s.release(1, m.Size())
			continue
		}
		d := &into[n]
		*d = driver.Delivery{Count: int(o.deliveries), Deadline: batch[i].at.Add(s.wait()), Stored: o.at(), Handle: handleOf(m.Reply)}
		if s.spec.Lease {
			d.Ref = &restored{m.Reply} // not held: it is its receiver's, whatever becomes of this source
		} else {
			h := &notes[i]
			h.source, h.session, h.reply, h.size, h.until = s, batch[i].session, m.Reply, m.Size(), d.Deadline
			s.link(h)
			d.Ref = h
		}
		dec.decode(&d.Message, m, s.spec.Object.Name, o.sequence)
		ids.add(o.sequence)
		n++
	}
	ids.assign(s.spec.Object.Name, into[:n])
	return n
}

func (s *durableSource) link(h *held) {
	h.prev = s.last
	if s.last != nil {
		s.last.next = h
	} else {
		s.first = h
	}
	s.last = h
}

// unlink gives a delivery up, once.
func (s *durableSource) unlink(h *held) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.out {
		return false
	}
	h.out = true
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		s.first = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	} else {
		s.last = h.prev
	}
	h.prev, h.next = nil, nil
	return true
}

// release frees a share of the window.
func (s *durableSource) release(messages, bytes int) {
	if !s.spec.OnDemand {
		s.pull.release(messages, bytes)
	}
}

func (s *durableSource) Drain() {
	s.mu.Lock()
	s.draining = true
	p := s.pull
	s.mu.Unlock()
	p.stop()
}

// Close hands back what is not settled, in the order in which it came.
func (s *durableSource) Close(ctx context.Context) error {
	s.Drain()
	s.mu.Lock()
	p := s.pull
	s.mu.Unlock()
	p.stopped(ctx)
	if s.endKeeping != nil {
		s.endKeeping()
		s.keeping.Wait()
	}
	var acks []ack
	s.mu.Lock()
	for h := s.first; h != nil; h = h.next {
		h.out = true
		acks = append(acks, h.ack(ackRelease))
	}
	s.first, s.last = nil, nil
	s.mu.Unlock()
	for _, a := range p.rest() {
		acks = append(acks, ack{a.m.Reply, ackRelease, a.session})
	}
	if len(acks) == 0 {
		return nil
	}
	if err := s.conn.acknowledge(ctx, acks); err != nil && !errors.Is(err, driver.ErrStale) { // stale ones are back already
		return fmt.Errorf("stream %s: %d messages were not handed back and come again after their ack wait: %w", s.spec.Object.Name, len(acks), err)
	}
	return nil
}

// identities builds the identities of a batch in one string.
type identities struct{ sequences []uint64 }

func (b *identities) add(seq uint64) { b.sequences = append(b.sequences, seq) }

func (b *identities) assign(stream string, into []driver.Delivery) {
	buf := make([]byte, 0, len(b.sequences)*(len(stream)+12))
	ends := make([]int, len(b.sequences))
	for i, seq := range b.sequences {
		buf = append(buf, stream...)
		buf = append(buf, '/')
		buf = strconv.AppendUint(buf, seq, 10)
		ends[i] = len(buf)
	}
	all, start := string(buf), 0
	for i, end := range ends {
		into[i].Identity = all[start:end]
		start = end
	}
}
