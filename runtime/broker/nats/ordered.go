package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// readerIdle is when the server removes the consumer of a reader that went away without a word.
const readerIdle = 2 * time.Minute

// A cursorSource reads a stream in order from a cursor of our own. The server's part is a consumer that acknowledges nothing and lives in
// memory; losing it costs nothing, for it is made anew after the last message that came.
type cursorSource struct {
	conn   *conn
	spec   driver.SourceSpec
	holder string
	claim  driver.Claim
	pull   *puller

	// Of Receive.
	scratch  []arrival
	readers  int
	came     mark   // the last message that came
	delivery uint64 // its number in the consumer
	given    uint64 // of the last message that was given out

	// commit serialises writes of the cursor.
	commit sync.Mutex
	cursor cursor

	mu     sync.Mutex
	lost   error  // why the claim has ended
	done   uint64 // up to here a queue is still to be purged; 0: it was
	reader string // the consumer's name; "" while there is none
	tails  []tail // of what was given out and is not settled
}

// A tail says that behind a message nothing follows, up to a position, but places that others keep in the stream.
type tail struct {
	behind uint64
	to     mark
}

func (c *conn) openCursor(ctx context.Context, spec driver.SourceSpec) (*cursorSource, error) {
	if spec.OnDemand {
		return nil, fmt.Errorf("source of %s: %w: an ordered reader fetches ahead", spec.Object.Name, driver.ErrUnsupported)
	}
	s, err := c.claimCursor(ctx, spec, func(*cursor, *record) error { return nil })
	if err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// claimCursor makes a source of a group's cursor. It is claimed with the record that prepare has seen.
func (c *conn) claimCursor(ctx context.Context, spec driver.SourceSpec, prepare func(*cursor, *record) error) (*cursorSource, error) {
	stream, err := c.streamInfo(ctx, spec.Object.Name)
	if err != nil {
		return nil, err
	}
	cur, err := c.loadCursor(ctx, spec.Object.Name, spec.Group)
	if err != nil {
		return nil, err
	}
	if err := cur.checkStream(spec.Object.Name, spec.Group, stream); err != nil {
		return nil, err
	}
	if err := c.settlePlace(ctx, spec.Object.Name, spec.Group, &cur); err != nil {
		return nil, err
	}
	// Read after the cursor, which may have moved on since, with the stream.
	if stream, err = c.streamInfo(ctx, spec.Object.Name); err != nil {
		return nil, err
	}
	if err := c.checkPosition(ctx, &spec, &cur, &stream.State); err != nil {
		return nil, err
	}
	s := &cursorSource{conn: c, spec: spec, holder: newHolder(), cursor: cur, came: cur.mark, given: cur.Position}
	claimed := cur.record
	claimed.Epoch++
	claimed.Holder, claimed.Stream = s.holder, stream.Created.UnixNano()
	if err := prepare(&cur, &claimed); err != nil {
		return nil, err
	}
	if err := c.storeCursor(ctx, spec.Object.Name, spec.Group, &s.cursor, claimed); err != nil {
		return nil, err
	}
	s.claim = driver.Claim{Epoch: claimed.Epoch}
	// What is fetched ahead is in nobody's hands yet: a quarter of the window keeps the reader busy.
	ahead := driver.Window{Messages: max(1, spec.Window.Messages/4), Bytes: spec.Window.Bytes / 4}
	s.pull = newPuller(c, ahead, false)
	if spec.Object.Kind == driver.Queue && stream.State.Msgs > 0 && stream.State.FirstSeq <= cur.Position {
		s.done = cur.Position // an earlier reader did not come to it
	}
	return s, nil
}

// checkStream refuses to go on in another stream of the same name: somebody has deleted the one that the position is in.
func (r *record) checkStream(name, group string, stream *jetstream.StreamInfo) error {
	if r.Stream == 0 || r.Stream == stream.Created.UnixNano() {
		return nil
	}
	return fmt.Errorf("stream %s, group %s: %w: it stood at %d of a stream that was deleted, and there is another of that name since %s; seek to a new position to go on",
		name, group, driver.ErrPositionLost, r.Position, stream.Created.UTC().Format(time.RFC3339))
}

// checkPosition refuses to go on where messages of a topic were deleted before they were read. A queue's messages expire because its
// owner said so.
func (c *conn) checkPosition(ctx context.Context, spec *driver.SourceSpec, cur *cursor, state *jetstream.StreamState) error {
	if cur.Stream != 0 {
		var err error
		if cur.mark, err = c.left(ctx, spec.Object.Name, cur.mark, state); err != nil {
			return err
		}
	}
	if cur.Position > state.LastSeq || spec.Object.Kind == driver.Topic && lost(cur.Position, state) {
		return positionLost(spec.Object.Name, spec.Group, cur.Position, state.FirstSeq)
	}
	return nil
}

// readerName is the consumer of one reader of a group. Every start has one of its own, so that nothing of an earlier one can be taken for
// its messages; epochs begin anew with a cursor that is made anew, holders do not.
func readerName(group string, epoch uint64, holder string, n int) string {
	return readersOf(group, epoch) + holder + "-" + strconv.Itoa(n)
}

// readersOf is what the names of the consumers of one claim begin with.
func readersOf(group string, epoch uint64) string {
	if group == "" {
		group = queueCursor
	}
	return strings.Join([]string{"reader", group, strconv.FormatUint(epoch, 10), ""}, "-")
}

func (s *cursorSource) Settling() driver.Settling { return driver.Positional }

// start makes a consumer after the last message given out and pulls from it.
func (s *cursorSource) start(ctx context.Context) error {
	if err := s.conn.waitOnline(ctx); err != nil {
		return err
	}
	if err := s.purge(ctx); err != nil {
		return err
	}
	stream, err := s.conn.streamInfo(ctx, s.spec.Object.Name)
	if err != nil {
		return err
	}
	left, err := s.conn.left(ctx, s.spec.Object.Name, s.came, &stream.State)
	if err != nil {
		return err
	}
	if left != s.came {
		err := fmt.Errorf("stream %s: %w: the server has lost messages that it had given out", s.spec.Object.Name, driver.ErrStale)
		s.lose(err, true)
		return err
	}
	s.forget(ctx)
	s.readers++
	name := readerName(s.spec.Group, s.claim.Epoch, s.holder, s.readers)
	_, err = s.conn.js.CreateConsumer(ctx, s.spec.Object.Name, jetstream.ConsumerConfig{
		Name:              name,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       s.came.Position + 1,
		AckPolicy:         jetstream.AckNonePolicy,
		MaxDeliver:        1,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: readerIdle,
		Metadata:          map[string]string{metaKind: "Reader", metaGroup: s.spec.Group},
	})
	if err != nil {
		return missing("stream "+s.spec.Object.Name, err)
	}
	s.setReader(name)
	s.delivery = 0
	s.pull.forget()
	return s.pull.start(s.spec.Object.Name, name)
}

// forget removes the consumer, as a courtesy: the server would do it after a while.
func (s *cursorSource) forget(ctx context.Context) {
	if name := s.setReader(""); name != "" {
		_ = s.conn.js.DeleteConsumer(ctx, s.spec.Object.Name, name)
	}
}

// setReader returns the reader there was.
func (s *cursorSource) setReader(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.reader
	s.reader = name
	return old
}

func (s *cursorSource) Receive(ctx context.Context, into []driver.Delivery) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	for {
		if err := s.lostErr(); err != nil {
			return 0, err
		}
		batch, err := s.pull.take(ctx, s.scratch[:0], len(into))
		s.scratch = batch
		if err == nil {
			if len(batch) == 0 {
				return 0, nil
			}
			var n int
			if n, err = s.deliver(ctx, batch, into); n > 0 {
				return n, nil
			}
		}
		if restartable(err) {
			err = s.start(ctx)
		}
		if err != nil {
			if ctx.Err() != nil {
				return 0, nil
			}
			if !away(err) {
				return 0, err
			}
		}
	}
}

// deliver turns arrivals into deliveries as long as none is missing between them. A gap that the stream does not explain is fetched anew;
// messages that the stream deleted before they were read end the claim.
func (s *cursorSource) deliver(ctx context.Context, batch []arrival, into []driver.Delivery) (int, error) {
	var dec decoder
	var ids identities
	n := 0
	var end error
	s.mu.Lock()
	reader := s.reader
	s.mu.Unlock()
	explained := false
	for i := range batch {
		m := batch[i].m
		o, ok := parseReply(m.Reply)
		if !ok || o.consumer != reader || o.sequence <= s.came.Position {
			continue
		}
		if o.delivery != s.delivery+1 {
			end = errSilent
			break
		}
		if o.sequence != s.came.Position+1 && s.spec.Object.Kind == driver.Topic && !explained {
			if end = s.explain(ctx); end != nil {
				break
			}
			explained = true // for all that came with it
		}
		s.came, s.delivery = mark{o.sequence, int64(o.stored)}, o.delivery
		if isPlace(m.Subject) {
			s.pass(s.came)
			continue
		}
		s.given = o.sequence
		d := &into[n]
		*d = driver.Delivery{Claim: s.claim, Position: int64(o.sequence), Count: int(o.deliveries), Stored: o.at(), Ref: s}
		dec.decode(&d.Message, m, s.spec.Object.Name, o.sequence)
		ids.add(o.sequence)
		n++
	}
	ids.assign(s.spec.Object.Name, into[:n])
	if end != nil {
		s.pull.interrupt(end)
	} else if n == 0 {
		end = s.settleTail(ctx)
	}
	return n, end
}

// pass notes that what came is a place, which nobody is given.
func (s *cursorSource) pass(at mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.tails) - 1; last >= 0 && s.tails[last].behind == s.given {
		s.tails[last].to = at
		return
	}
	s.tails = append(s.tails, tail{s.given, at})
}

// past is where a group stands when all up to done is.
func (s *cursorSource) past(done mark) mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for ; n < len(s.tails) && s.tails[n].behind <= done.Position; n++ {
		done = further(done, s.tails[n].to)
	}
	s.tails = slices.Delete(s.tails, 0, n)
	return done
}

// settleTail moves the cursor over places where all before them is done: else the group would stand, once retention has deleted both, as if
// it had missed messages.
func (s *cursorSource) settleTail(ctx context.Context) error {
	if s.spec.Live != nil {
		return nil
	}
	s.commit.Lock()
	defer s.commit.Unlock()
	at := s.cursor.mark
	if to := s.past(at); to != at && s.lostErr() == nil {
		return s.moveTo(ctx, to)
	}
	return nil
}

// explain says whether the sequences missing after the last message were deleted one by one, which is no loss of ours, or by
// retention.
func (s *cursorSource) explain(ctx context.Context) error {
	info, err := s.conn.streamInfo(ctx, s.spec.Object.Name)
	if err != nil {
		return err
	}
	if info.State.FirstSeq > s.came.Position+1 {
		err := positionLost(s.spec.Object.Name, s.spec.Group, s.came.Position, info.State.FirstSeq)
		s.lose(err, false)
		return err
	}
	return nil
}

func (s *cursorSource) lostErr() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// lose ends the claim.
func (s *cursorSource) lose(err error, tell bool) {
	s.mu.Lock()
	first := s.lost == nil
	if first {
		s.lost = err
	}
	s.mu.Unlock()
	if first {
		s.pull.signal()
		if tell && s.spec.Lost != nil {
			s.spec.Lost([]driver.Claim{s.claim})
		}
	}
}

// Settle moves the cursor to the furthest delivery that is done.
func (s *cursorSource) Settle(ctx context.Context, settlements []driver.Settlement) []error {
	errs := make([]error, len(settlements))
	var furthest mark
	for i := range settlements {
		if errs[i] = s.mine(&settlements[i]); errs[i] == nil {
			furthest = further(furthest, markOf(settlements[i].D))
		}
	}
	if furthest.Position == 0 {
		return errs
	}
	if err := s.move(ctx, furthest); err != nil {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = err
			}
		}
	}
	return errs
}

// mine says why a settlement is none that this source can take.
func (s *cursorSource) mine(st *driver.Settlement) error {
	switch {
	case st.Verb != driver.Done:
		return fmt.Errorf("delivery: %w: an ordered reader releases nothing, it is closed instead", driver.ErrUnsupported)
	case st.D.Claim != s.claim:
		return driver.ErrStale
	case st.D.Ref != any(s):
		return fmt.Errorf("delivery: %w: another source gave it out", driver.ErrInvalid)
	}
	return nil
}

func (s *cursorSource) move(ctx context.Context, done mark) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	if err := s.lostErr(); err != nil {
		if errors.Is(err, driver.ErrPositionLost) {
			return fmt.Errorf("%w: %w", driver.ErrStale, err)
		}
		return err
	}
	return s.moveTo(ctx, s.past(done))
}

// moveTo stores where the group stands; s.commit is held.
func (s *cursorSource) moveTo(ctx context.Context, to mark) error {
	if to.Position <= s.cursor.Position {
		return nil
	}
	r := s.cursor.record
	r.mark, r.Epoch, r.Holder = to, s.claim.Epoch, s.holder
	if err := s.conn.storeCursor(ctx, s.spec.Object.Name, s.spec.Group, &s.cursor, r); err != nil {
		if errors.Is(err, driver.ErrStale) {
			s.lose(err, true)
		}
		return err
	}
	if s.spec.Object.Kind == driver.Queue {
		s.purgeDone(ctx, to.Position)
	}
	return nil
}

// purgeDone removes what is done up to position. If that fails Receive repeats it: a full queue that is not purged sees no further move.
func (s *cursorSource) purgeDone(ctx context.Context, position uint64) {
	s.mu.Lock()
	s.done = position
	s.mu.Unlock()
	if s.purge(ctx) != nil {
		s.pull.interrupt(errNotPurged)
	}
}

// purge repeats or begins what purgeDone says.
func (s *cursorSource) purge(ctx context.Context) error {
	s.mu.Lock()
	position := s.done
	s.mu.Unlock()
	if position == 0 {
		return nil
	}
	if err := s.conn.purgeUpTo(ctx, s.spec.Object.Name, position); err != nil {
		return fmt.Errorf("queue %s: removing what is done: %w", s.spec.Object.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == position {
		s.done = 0
	}
	return nil
}

// purgeUpTo deletes the messages of a stream up to position.
func (c *conn) purgeUpTo(ctx context.Context, stream string, position uint64) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	m := &natsgo.Msg{Subject: c.apiPrefix + "STREAM.PURGE." + stream, Data: []byte(`{"seq":` + strconv.FormatUint(position+1, 10) + `}`)}
	answer, err := c.request(ctx, m)
	if err != nil {
		return err
	}
	var outcome struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &outcome); err != nil {
		return fmt.Errorf("the server's answer cannot be read: %w", err)
	}
	if outcome.Error != nil {
		return outcome.Error
	}
	return nil
}

// Extend does nothing: a claim has no deadline.
func (s *cursorSource) Extend(_ context.Context, ds []*driver.Delivery) []error {
	return make([]error, len(ds))
}

func (s *cursorSource) Drain() { s.pull.stop() }

// Close stops reading. What is not settled is read again from the cursor by whoever opens it next.
func (s *cursorSource) Close(ctx context.Context) error {
	s.pull.stop()
	s.pull.stopped(ctx)
	if _, err := s.conn.online(); err == nil {
		s.forget(ctx)
	}
	return nil
}
