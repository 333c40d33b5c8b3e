package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// A transferSource reads a Topic for a group and stores what became of its messages in another Topic of the server, together with how far
// it has come: one atomic batch holds both.
//
// Where the group stands is kept twice. Its place lies in the stream that is written to and counts while the transfer is open; its cursor
// lies where other ordered readers have theirs and counts before and after. What leads from one to the other is done in this order, so that
// a kill between any two steps leaves a position that is right:
//
//   - Open: a transfer that was not closed is settled first (settlePlace), which fences its reader. Where there is no place one is written.
//     Only then is the cursor marked as open, so an open cursor without a place means that retention has deleted the place: PositionLost.
//   - Closed: the last batch is known to be stored or not, then the cursor takes the position and is marked as closed. It is as exact from then
//     on, whatever becomes of the place.
//
// Messages that came to nothing move only the cursor.
type transferSource struct {
	*cursorSource
	name       placeName
	subject    string // of what is published
	maxMessage int    // bytes with headers
	renewEvery time.Duration

	// Under cursorSource.commit.
	place   placeAt
	answers *answers
	enc     *encoder
	doubt   bool // whether the last batch was stored is not known
	written time.Time
	closed  bool

	end  context.CancelFunc
	work sync.WaitGroup
}

var _ driver.Carrier = (*transferSource)(nil)

// renewEvery is how often an idle transfer looks whether retention comes near its place.
const renewEvery = 30 * time.Second

func (c *conn) openTransfer(ctx context.Context, spec driver.SourceSpec) (_ *transferSource, err error) {
	switch {
	case !c.features.AtomicBatch:
		return nil, fmt.Errorf("transfer from %s: %w: it takes a server of version 2.12 or later, and this is %s", spec.Object.Name, driver.ErrUnsupported, c.features.Version)
	case spec.Object.Kind != driver.Topic || spec.Group == "" || spec.Into.Kind != driver.Topic || spec.OnDemand:
		return nil, fmt.Errorf("transfer from %s: %w: it goes from a group of a Topic to a Topic", spec.Object.Name, driver.ErrInvalid)
	}
	out, err := c.streamInfo(ctx, spec.Into.Name)
	if err != nil {
		return nil, err
	}
	if err := checkTransfer(&out.Config); err != nil {
		return nil, err
	}
	t := &transferSource{name: placeIn(spec.Into.Name, spec.Object.Name, spec.Group), enc: newEncoder(), maxMessage: c.features.MaxMessageBytes}
	if t.subject, err = publishSubject(&out.Config); err != nil {
		return nil, err
	}
	if n := int(out.Config.MaxMsgSize); n > 0 {
		t.maxMessage = min(t.maxMessage, n)
	}
	t.renewEvery = renewEvery
	if age := out.Config.MaxAge; age > 0 {
		t.renewEvery = max(min(renewEvery, age/4), 100*time.Millisecond)
	}
	if t.answers, err = c.newAnswers(); err != nil {
		return nil, fmt.Errorf("transfer from %s: %w", spec.Object.Name, err)
	}
	defer func() {
		if err != nil {
			t.answers.close()
		}
	}()
	for range fenceTries {
		t.cursorSource, err = c.claimCursor(ctx, spec, func(cur *cursor, next *record) error { return t.prepare(ctx, c, spec, cur, next) })
		if !errors.Is(err, driver.ErrStale) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	t.written = time.Now()
	if err := t.start(ctx); err != nil {
		return nil, err
	}
	renewing, end := context.WithCancel(context.Background())
	t.end = end
	t.work.Go(func() { t.renew(renewing) })
	return t, nil
}

// checkTransfer refuses streams in which no place can be kept.
func checkTransfer(cfg *jetstream.StreamConfig) error {
	const remedy = "let Waybill make the Topic's stream, or use AtLeastOnce"
	switch {
	case cfg.Mirror != nil:
		return conflict(cfg.Name, "mirror", "nothing can be published to a mirror: %s", remedy)
	case !cfg.AllowAtomicPublish:
		return conflict(cfg.Name, "allow_atomic", "messages and the position cannot be stored in one batch: %s", remedy)
	case !cfg.AllowRollup || cfg.DenyPurge:
		return conflict(cfg.Name, "allow_rollup_hdrs", "each position would stay beside the next: %s", remedy)
	case !slices.Contains(cfg.Subjects, placesOf(cfg.Name)):
		return conflict(cfg.Name, "subjects", "%s is not among them, so there is no room for the position: %s", placesOf(cfg.Name), remedy)
	}
	return nil
}

// prepare sees to the place and the record by which the cursor is claimed.
func (t *transferSource) prepare(ctx context.Context, c *conn, spec driver.SourceSpec, cur *cursor, next *record) error {
	if cur.Into != "" && cur.Into != t.name.stream {
		// It went elsewhere before. That is settled; what lies there would only be in the way.
		if err := c.purgePlace(ctx, placeIn(cur.Into, spec.Object.Name, spec.Group)); err != nil {
			return err
		}
	}
	var err error
	if t.place, err = c.loadPlace(ctx, t.name); err != nil {
		return err
	}
	if t.place.sequence == 0 || t.place.Position > cur.Position {
		t.place, err = c.storePlace(t.name, place{mark: cur.mark, Epoch: next.Epoch, Holder: next.Holder}, t.place.sequence)
		if err != nil {
			return err
		}
	}
	t.place.mark = cur.mark // what the place says of an earlier time does not count: the cursor was closed
	next.Into, next.Open = t.name.stream, true
	return nil
}

// Fits is about what the server refuses whatever else is in the batch.
func (t *transferSource) Fits(out []message.Message) error {
	if len(out) > maxBatch-1 {
		return fmt.Errorf("%w: one message became %d, and %d can be stored in one step with its position", driver.ErrTooLarge, len(out), maxBatch-1)
	}
	all := 0
	for i := range out {
		size, err := check(&out[i])
		if err != nil {
			return err
		}
		if size += len(out[i].Data) + batchOverhead; size > t.maxMessage {
			return fmt.Errorf("%w: %d bytes with headers, stream %s takes %d", driver.ErrTooLarge, size, t.name.stream, t.maxMessage)
		}
		if all += size; all > maxBatchBytes {
			return fmt.Errorf("%w: one message became more than the %d bytes that can be stored in one step with its position", driver.ErrTooLarge, maxBatchBytes)
		}
	}
	return nil
}

// Settle stores what became of messages, in order, in as few batches as the server allows.
func (t *transferSource) Settle(ctx context.Context, list []driver.Settlement) []error {
	errs := make([]error, len(list))
	fail := func(from int, err error) []error {
		for i := from; i < len(list); i++ {
			errs[i] = err
		}
		return errs
	}
	for i := range list {
		if err := t.mine(&list[i]); err != nil {
			return fail(i, err)
		}
	}
	t.commit.Lock()
	defer t.commit.Unlock()
	for at := 0; at < len(list); {
		if err := t.able(ctx); err != nil {
			return fail(at, err)
		}
		if uint64(list[at].D.Position) <= t.reached().Position {
			at++ // it was stored by a batch of which no answer came
			continue
		}
		n, messages := t.portion(list[at:])
		upTo := t.past(markOf(list[at+n-1].D))
		var err error
		if messages == 0 {
			err = t.moveTo(ctx, upTo)
		} else {
			err = t.store(list[at:at+n], messages, upTo)
		}
		switch {
		case err == nil:
			at += n
		case !refusedSequence(err):
			return fail(at, err)
		default:
			if err := t.refused(ctx); err != nil {
				return fail(at, err)
			}
		}
	}
	return errs
}

// reached is how far the group has come for certain.
func (t *transferSource) reached() mark { return further(t.cursor.mark, t.place.mark) }

// able says why nothing can be settled now. After a batch of an unknown fate it looks what became of it.
func (t *transferSource) able(ctx context.Context) error {
	if t.closed {
		return driver.ErrStale
	}
	if err := t.lostErr(); err != nil {
		return err
	}
	if t.doubt {
		if _, err := t.look(ctx); err != nil {
			return err
		}
	}
	if t.cursor.Open {
		return nil
	}
	return t.reopen(ctx)
}

// look reads the place, and takes it on if it is of our own writing. A batch that is on its way still can only be stored before the next
// of ours, which then is refused, or be refused itself: both name the same place.
func (t *transferSource) look(ctx context.Context) (placeAt, error) {
	now, err := t.conn.loadPlace(ctx, t.name)
	if err != nil {
		return now, err
	}
	if now.sequence > t.place.sequence && now.Holder == t.holder && now.Epoch == t.claim.Epoch {
		t.place = now
	}
	t.doubt = false
	return now, nil
}

// refused finds out why a batch was: an earlier one of our own was stored after all, retention has deleted the place, or somebody else has
// taken over.
func (t *transferSource) refused(ctx context.Context) error {
	before := t.place.sequence
	now, err := t.look(ctx)
	switch {
	case err != nil:
		return err
	case t.place.sequence != before:
		return nil
	case now.sequence == 0:
		return t.replace(ctx)
	}
	return t.overtaken()
}

// replace writes the place again after retention has deleted it. For that the cursor is closed and opened again, which succeeds only if
// nobody has claimed it in the meantime.
func (t *transferSource) replace(ctx context.Context) error {
	r := t.cursor.record
	r.mark, r.Open = t.reached(), false
	if err := t.write(ctx, r); err != nil {
		return err
	}
	t.place.sequence = 0
	return t.reopen(ctx)
}

// reopen goes on where replace was interrupted. Until it has come to its end no batch is sent.
func (t *transferSource) reopen(ctx context.Context) error {
	if t.place.sequence == 0 {
		p, err := t.conn.storePlace(t.name, place{mark: t.reached(), Epoch: t.claim.Epoch, Holder: t.holder}, 0)
		if errors.Is(err, driver.ErrStale) {
			if p, err = t.conn.loadPlace(ctx, t.name); err == nil && p.Holder != t.holder {
				err = t.overtaken()
			}
		}
		if err != nil {
			return err
		}
		t.place, t.written = p, time.Now()
	}
	r := t.cursor.record
	r.Open = true
	return t.write(ctx, r)
}

// write stores the cursor; that somebody else did ends the claim.
func (t *transferSource) write(ctx context.Context, r record) error {
	err := t.conn.storeCursor(ctx, t.spec.Object.Name, t.spec.Group, &t.cursor, r)
	if errors.Is(err, driver.ErrStale) {
		t.lose(err, true)
	}
	return err
}

// overtaken ends the claim.
func (t *transferSource) overtaken() error {
	err := fmt.Errorf("stream %s, group %s: %w: another reader has taken over", t.spec.Object.Name, t.spec.Group, driver.ErrStale)
	t.lose(err, true)
	return err
}

// portion is how many settlements, with how many messages, make the next batch. Messages of one settlement stay together.
func (t *transferSource) portion(list []driver.Settlement) (n, messages int) {
	bytes := 0
	for ; n < len(list); n++ {
		size := 0
		for i := range list[n].Out {
			m := &list[n].Out[i]
			size += m.Size() + 1<<10 // headers are longer than what they hold; the bound is ours and has room
		}
		if n > 0 && (messages+len(list[n].Out) > maxBatch-1 || bytes+size > maxBatchBytes) {
			break
		}
		messages, bytes = messages+len(list[n].Out), bytes+size
	}
	return n, messages
}

// store publishes the messages of a portion and the place after them.
func (t *transferSource) store(portion []driver.Settlement, messages int, upTo mark) error {
	next := place{mark: upTo, Epoch: t.claim.Epoch, Holder: t.holder}
	data, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("stream %s: %w", t.name.stream, err)
	}
	of, at := 0, 0
	sequence, sent, err := t.conn.sendBatch(t.answers, t.enc, messages+1, func(i int, m *natsgo.Msg) {
		if i == messages {
			t.enc.place(t.place.sequence)
			m.Subject, m.Data = t.name.subject, data
			return
		}
		for at == len(portion[of].Out) {
			of, at = of+1, 0
		}
		out := &portion[of].Out[at]
		at++
		t.enc.event(out, false) // without an id for the server: one that it knows would refuse the whole batch
		m.Subject, m.Data = t.subject, out.Data
	})
	switch {
	case err == nil:
		t.place, t.written = placeAt{next, sequence}, time.Now()
		return nil
	case sent || errors.Is(err, driver.ErrUnknown):
		t.doubt = true
		return fmt.Errorf("stream %s: %w: %w", t.name.stream, driver.ErrUnknown, err)
	case apiCode(err) == codeStreamStoreFailed:
		t.doubt = true // a disk that was full in the middle: the server stores the rest when it is started again
	}
	return asRefusal(err)
}

// renew writes the place anew when nothing else does and retention comes near it.
func (t *transferSource) renew(ctx context.Context) {
	tick := time.NewTicker(t.renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.conn.done:
			return
		case <-tick.C:
			// What fails now is tried again at the next tick, or found by the next batch.
			_ = t.renewOnce(ctx)
		}
	}
}

func (t *transferSource) renewOnce(ctx context.Context) error {
	out, err := t.conn.streamInfo(ctx, t.name.stream)
	if err != nil {
		return err
	}
	t.commit.Lock()
	defer t.commit.Unlock()
	cfg, state := &out.Config, &out.State
	old := cfg.MaxAge > 0 && time.Since(t.written) > cfg.MaxAge/2
	if bounded := cfg.MaxMsgs > 0 || cfg.MaxBytes > 0; bounded && t.place.sequence < state.FirstSeq+(state.LastSeq-state.FirstSeq)/2 {
		old = true
	}
	if !old || t.closed || t.doubt || t.lostErr() != nil {
		return nil
	}
	p, err := t.conn.storePlace(t.name, place{mark: t.reached(), Epoch: t.claim.Epoch, Holder: t.holder}, t.place.sequence)
	switch {
	case err == nil:
		t.place, t.written = p, time.Now()
	case errors.Is(err, driver.ErrStale):
		return t.refused(ctx)
	default:
		t.doubt = true
	}
	return err
}

// Close leaves the cursor with the whole position, if that is known and nobody else has it.
func (t *transferSource) Close(ctx context.Context) error {
	t.end()
	t.work.Wait()
	err := t.leave(ctx)
	t.answers.close()
	return errors.Join(err, t.cursorSource.Close(ctx))
}

func (t *transferSource) leave(ctx context.Context) error {
	t.commit.Lock()
	defer t.commit.Unlock()
	if t.closed {
		return nil
	}
	if t.able(ctx) != nil {
		t.closed = true
		return nil // the next to open it settles it
	}
	t.closed = true
	r := t.cursor.record
	r.mark, r.Open = t.reached(), false
	err := t.conn.storeCursor(ctx, t.spec.Object.Name, t.spec.Group, &t.cursor, r)
	if _, away := t.conn.online(); errors.Is(err, driver.ErrStale) || away != nil {
		return nil // the next to open it settles it, also where the connection has broken meanwhile
	}
	return err
}
