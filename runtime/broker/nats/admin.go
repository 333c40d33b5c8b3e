package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// Metadata that Waybill keeps with streams and consumers.
const (
	metaKind     = "waybill.dev/kind"
	metaOwner    = "waybill.dev/owner"
	metaOrdering = "waybill.dev/ordering"
	metaGroup    = "waybill.dev/group"
)

// inspectors is how many objects Inspect asks for at a time.
const inspectors = 8

type admin struct{ conn *conn }

func (c *conn) Admin() driver.Admin { return admin{c} }

// Inspect asks for each object; the answers are in the order of refs.
func (a admin) Inspect(ctx context.Context, refs []driver.Ref) ([]driver.State, error) {
	states := make([]driver.State, len(refs))
	errs := make([]error, len(refs))
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(inspectors, len(refs)) {
		wg.Go(func() {
			for i := range next {
				states[i], errs[i] = a.inspect(ctx, refs[i])
			}
		})
	}
	for i := range refs {
		next <- i
	}
	close(next)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return states, nil
}

func (a admin) inspect(ctx context.Context, r driver.Ref) (driver.State, error) {
	state := driver.State{Ref: r}
	name := r.Name
	if r.Kind == driver.Group {
		name = r.Of
	}
	stream, err := a.conn.streamInfo(ctx, name)
	if errors.Is(err, driver.ErrMissing) {
		return state, nil
	}
	if err != nil {
		return state, err
	}
	done := uint64(0) // the position of a group; messages after it are its backlog
	switch {
	case r.Kind == driver.Group:
		p, err := a.conn.position(ctx, r.Of, r.Name)
		if errors.Is(err, driver.ErrPositionLost) {
			return state, nil
		}
		if err != nil {
			return state, err
		}
		state.Exists, state.Owner = true, p.owner
		state.Messages, done = p.backlog(&stream.State), p.done
		if hasPlaces(stream) {
			if state.Messages, err = a.backlog(ctx, stream, &p); err != nil {
				return state, err
			}
		}
	default:
		state.Exists, state.Owner = true, stream.Config.Metadata[metaOwner]
		state.Messages = int64(stream.State.Msgs)
		if hasPlaces(stream) {
			if state.Messages, err = a.pending(ctx, stream, 0); err != nil {
				return state, err
			}
		}
		if r.Kind == driver.Queue && stream.Config.Metadata[metaOrdering] == string(driver.Key) {
			cur, err := a.conn.loadCursor(ctx, r.Name, "")
			if err != nil && !errors.Is(err, driver.ErrPositionLost) {
				return state, err
			}
			state.Messages, done = after(cur.Position, &stream.State), cur.Position
		}
	}
	if state.Messages == 0 {
		return state, nil
	}
	state.Oldest = stream.State.FirstTime
	if done >= stream.State.FirstSeq || hasPlaces(stream) {
		s, err := a.conn.js.Stream(ctx, name)
		if err != nil {
			return state, missing("stream "+name, err)
		}
		subject := ">"
		if hasPlaces(stream) {
			subject = name
		}
		m, err := s.GetMsg(ctx, max(done+1, stream.State.FirstSeq), jetstream.WithGetMsgSubject(subject))
		if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return state, fmt.Errorf("stream %s: %w", name, err)
		}
		if err == nil {
			state.Oldest = m.Time
		}
	}
	return state, nil
}

// position is where a group stands: a durable consumer or a cursor.
type position struct {
	durable *jetstream.ConsumerInfo
	cursor  *cursor
	owner   string
	done    uint64 // all up to here is settled
}

func (c *conn) position(ctx context.Context, stream, group string) (position, error) {
	cur, err := c.loadCursor(ctx, stream, group)
	if err == nil {
		done, err := c.furthest(ctx, stream, group, &cur)
		return position{cursor: &cur, owner: cur.Owner, done: done}, err
	}
	if !errors.Is(err, driver.ErrPositionLost) {
		return position{}, err
	}
	info, err := c.consumerInfo(ctx, stream, group)
	if err != nil {
		return position{}, err
	}
	return position{durable: info, owner: info.Config.Metadata[metaOwner], done: info.AckFloor.Stream}, nil
}

func (p *position) backlog(state *jetstream.StreamState) int64 {
	if p.durable != nil {
		return int64(p.durable.NumPending) + int64(p.durable.NumAckPending)
	}
	return after(p.done, state)
}

// hasPlaces reports whether a stream may hold more than messages. The only one that it has may be a place: others were deleted before it.
func hasPlaces(s *jetstream.StreamInfo) bool {
	return (s.State.NumSubjects > 1 || s.State.Msgs == 1) && slices.Contains(s.Config.Subjects, placesOf(s.Config.Name))
}

// backlog of a group in a stream that holds places too.
func (a admin) backlog(ctx context.Context, stream *jetstream.StreamInfo, p *position) (int64, error) {
	if p.durable == nil {
		return a.pending(ctx, stream, p.done)
	}
	n, err := a.pending(ctx, stream, p.durable.Delivered.Stream)
	return n + int64(p.durable.NumAckPending), err
}

// pending lets the server count the messages behind a position.
func (a admin) pending(ctx context.Context, stream *jetstream.StreamInfo, position uint64) (int64, error) {
	name := stream.Config.Name
	probe, err := a.conn.js.CreateConsumer(ctx, name, jetstream.ConsumerConfig{
		FilterSubject: name, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: position + 1,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: probeIdle,
	})
	if err != nil {
		return 0, missing("stream "+name, err)
	}
	info := probe.CachedInfo()
	_ = a.conn.js.DeleteConsumer(ctx, name, info.Name) // it would go by itself
	return int64(info.NumPending), nil
}

// after is how many messages a stream holds behind a position. Messages that were deleted one by one are counted, which Waybill never does.
func after(position uint64, state *jetstream.StreamState) int64 {
	if position < state.FirstSeq {
		return int64(state.Msgs)
	}
	if position >= state.LastSeq {
		return 0
	}
	return int64(state.LastSeq - position)
}

func (a admin) Delete(ctx context.Context, r driver.Ref, owner string, ifEmpty bool) error {
	state, err := a.inspect(ctx, r)
	if err != nil || !state.Exists {
		return err
	}
	if state.Owner != owner {
		return fmt.Errorf("%s %s: %w: owner: it belongs to %q", r.Kind, r.Name, driver.ErrConflict, state.Owner)
	}
	if ifEmpty && state.Messages > 0 {
		return fmt.Errorf("%s %s: %w: it holds %d messages", r.Kind, r.Name, driver.ErrBusy, state.Messages)
	}
	if r.Kind == driver.Group {
		if err := a.conn.js.DeleteConsumer(ctx, r.Of, r.Name); err != nil && !notFound(err) {
			return fmt.Errorf("group %s of stream %s: %w", r.Name, r.Of, err)
		}
		return a.deleteCursor(ctx, r)
	}
	if err := a.conn.js.DeleteStream(ctx, r.Name); err != nil && !notFound(err) {
		return fmt.Errorf("stream %s: %w", r.Name, err)
	}
	return a.conn.purgeCursor(ctx, r.Name, "*")
}

// deleteCursor removes a group's cursor, and its place before that: a reader that still goes on is refused from then on.
func (a admin) deleteCursor(ctx context.Context, r driver.Ref) error {
	cur, err := a.conn.loadCursor(ctx, r.Of, r.Name)
	if errors.Is(err, driver.ErrPositionLost) {
		return nil
	}
	if err == nil && cur.Into != "" {
		err = a.conn.purgePlace(ctx, placeIn(cur.Into, r.Of, r.Name))
	}
	if err != nil {
		return err
	}
	return a.conn.purgeCursor(ctx, r.Of, r.Name)
}

func notFound(err error) bool {
	return errors.Is(missing("", err), driver.ErrMissing)
}

// Seek moves a group. A cursor moves in one write, which also ends the claim of a reader that was overlooked.
func (a admin) Seek(ctx context.Context, r driver.Ref, start driver.Start) error {
	if r.Kind != driver.Group {
		return fmt.Errorf("seek of %s %s: %w: only a group has a position", r.Kind, r.Name, driver.ErrInvalid)
	}
	p, err := a.conn.position(ctx, r.Of, r.Name)
	if err != nil {
		return err
	}
	busy := fmt.Errorf("group %s of stream %s: %w: a reader is connected; stop it first", r.Name, r.Of, driver.ErrBusy)
	if p.durable != nil {
		if p.durable.NumWaiting > 0 {
			return busy
		}
		cfg := p.durable.Config
		if err := setStart(&cfg, start); err != nil {
			return err
		}
		if err := a.conn.js.DeleteConsumer(ctx, r.Of, r.Name); err != nil && !notFound(err) {
			return fmt.Errorf("group %s of stream %s: %w", r.Name, r.Of, err)
		}
		if _, err := a.conn.js.CreateConsumer(ctx, r.Of, cfg); err != nil {
			return fmt.Errorf("group %s of stream %s: its position could not be made again: %w", r.Name, r.Of, err)
		}
		return nil
	}
	active, err := a.readerActive(ctx, r, p.cursor.Epoch)
	if err != nil {
		return err
	}
	if active {
		return busy
	}
	at, err := a.conn.resolve(ctx, r.Of, start)
	if err != nil {
		return err
	}
	if err := a.conn.settlePlace(ctx, r.Of, r.Name, p.cursor); err != nil && !errors.Is(err, driver.ErrPositionLost) {
		return err
	}
	stream, err := a.conn.streamInfo(ctx, r.Of)
	if err != nil {
		return err
	}
	moved := p.cursor.record
	moved.Open = false
	moved.mark, moved.Stream, moved.Holder = at, stream.Created.UnixNano(), ""
	moved.Epoch++
	return a.conn.storeCursor(ctx, r.Of, r.Name, p.cursor, moved)
}

// readerActive reports whether a reader of the present claim is asking for messages.
func (a admin) readerActive(ctx context.Context, r driver.Ref, epoch uint64) (bool, error) {
	s, err := a.conn.js.Stream(ctx, r.Of)
	if err != nil {
		return false, missing("stream "+r.Of, err)
	}
	start := readersOf(r.Name, epoch)
	list := s.ListConsumers(ctx)
	active := false
	for info := range list.Info() {
		if strings.HasPrefix(info.Name, start) && info.NumWaiting > 0 {
			active = true
		}
	}
	if err := list.Err(); err != nil {
		return false, fmt.Errorf("stream %s: %w", r.Of, err)
	}
	return active, nil
}
