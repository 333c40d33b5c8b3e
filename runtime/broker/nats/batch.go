package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

const (
	batchID     = "Nats-Batch-Id"
	batchSeq    = "Nats-Batch-Sequence"
	batchCommit = "Nats-Batch-Commit"

	maxBatch = 1000 // the server's own limit
	// maxBatchBytes bounds what the server stages for one batch.
	maxBatchBytes = 8 << 20
	// batchOverhead is the most that the three headers of a batch add to a message.
	batchOverhead = 128
	// confirmWait bounds the wait for an answer, so that a lost one does not hold up later callers for ever.
	confirmWait = 10 * time.Second
)

// sender turns calls into batches. It belongs to one collector.
type sender struct {
	p       *publisher
	enc     *encoder
	entries []entry
	failed  map[failedKey]int // the first failed message of each call and key; those without a key hold nothing back
	wave    []entry
	keys    map[failedKey]struct{} // of the wave
	choice  choice
	full    error // set once the stream has refused a message for want of room: no more are tried
}

// entry is one message on its way, with its call.
type entry struct {
	call  *call
	index int
}

func (e *entry) message() *message.Message { return &e.call.ms[e.index] }
func (e *entry) fail(err error)            { e.call.errs[e.index] = err }

type failedKey struct {
	call *call
	key  string
}

// errHeldBack is the error of a message that was not published because one before it with the same key was not.
var errHeldBack = fmt.Errorf("%w: it was not tried", driver.ErrHeldBack)

// send publishes all messages of calls in order and fills their errors.
func (s *sender) send(calls []*call) {
	s.entries = s.entries[:0]
	s.failed, s.full = nil, nil
	bytes := 0
	flush := func() {
		s.publish(s.entries)
		clear(s.entries)
		s.entries, bytes = s.entries[:0], 0
	}
	for _, c := range calls {
		for i := range c.ms {
			e := entry{call: c, index: i}
			if err := c.errs[i]; err != nil {
				s.fail(e, err)
				continue
			}
			if len(s.entries) == maxBatch || bytes+c.sizes[i] > maxBatchBytes {
				flush()
			}
			s.entries = append(s.entries, e)
			bytes += c.sizes[i]
		}
	}
	flush()
}

// publish sends entries the way that has proved quicker for as many.
func (s *sender) publish(entries []entry) {
	n := len(entries)
	if n == 0 {
		return
	}
	batched := s.p.atomic && s.choice.batch(n)
	for i := range entries {
		e := &entries[i]
		// A message at the limit has no room for the headers of a batch.
		batched = batched && e.call.sizes[e.index]+batchOverhead <= s.p.conn.features.MaxMessageBytes
	}
	start := time.Now()
	if batched {
		s.whole(entries)
	} else {
		s.singly(entries)
	}
	s.choice.took(n, batched, time.Since(start))
}

// whole sends entries as one batch, or as halves of it if it is refused.
func (s *sender) whole(entries []entry) {
	if slices.ContainsFunc(entries, s.held) {
		entries = slices.DeleteFunc(slices.Clone(entries), s.held)
	}
	if len(entries) <= 8 {
		s.singly(entries)
		return
	}
	err := s.batch(entries)
	switch {
	case err == nil:
	case errors.Is(err, errRefused):
		// Nothing of it was stored. Halves tell which message it was, in order, and let the rest go in batches still.
		s.whole(entries[:len(entries)/2])
		s.whole(entries[len(entries)/2:])
	default:
		for _, e := range entries {
			s.fail(e, err)
		}
	}
}

// singly sends entries one by one, in waves: the answers of a wave are awaited together, and no two messages of one call and key are in
// the same, so that none overtakes another that fails. Messages without a key are independent of each other.
func (s *sender) singly(entries []entry) {
	if s.keys == nil {
		s.keys = make(map[failedKey]struct{})
	}
	for len(entries) > 0 {
		s.wave = s.wave[:0]
		clear(s.keys)
		n := 0
		for _, e := range entries {
			k := failedKey{e.call, e.message().Key}
			if _, ok := s.keys[k]; ok {
				break
			}
			n++
			if s.held(e) {
				continue
			}
			if k.key != "" {
				s.keys[k] = struct{}{}
			}
			s.wave = append(s.wave, e)
		}
		entries = entries[n:]
		if len(s.wave) > 0 {
			s.sendWave(s.wave)
		}
	}
	clear(s.wave[:cap(s.wave)])
}

func (s *sender) sendWave(wave []entry) {
	conn, a := s.p.conn, s.p.answers
	a.begin()
	settled := make([]bool, len(wave))
	tried, sent := 0, 0
	var broken error
	sess, err := conn.gate.send(func() error {
		m := natsgo.Msg{Subject: s.p.subject}
		for i := range wave {
			s.enc.event(wave[i].message(), true)
			m.Header, m.Data, m.Reply = s.enc.header, wave[i].message().Data, a.subject(i)
			switch err := conn.nc.PublishMsg(&m); {
			case err == nil:
				sent++
			case errors.Is(err, natsgo.ErrMaxPayload): // it alone: the server takes less than when the connection was opened
				s.fail(wave[i], s.fate(false, err))
				settled[i] = true
			default:
				broken = err
				return nil
			}
			tried++
		}
		return nil
	})
	if err != nil {
		for _, e := range wave {
			s.fail(e, err)
		}
		return
	}
	for _, e := range wave[tried:] {
		s.fail(e, s.fate(false, broken))
	}
	settled = settled[:tried]
	ctx, cancel := context.WithTimeout(context.Background(), confirmWait)
	defer cancel()
	err = a.await(ctx, sess, conn.done, sent, func(i int, m *natsgo.Msg) {
		if i >= tried || settled[i] {
			return
		}
		settled[i] = true
		switch err := answered(m); {
		case err == nil:
		case errors.Is(err, natsgo.ErrNoResponders):
			s.fail(wave[i], s.fate(false, err))
		default:
			err = asRefusal(err)
			if errors.Is(err, driver.ErrFull) {
				s.full = err
			}
			s.fail(wave[i], err)
		}
	})
	for i := range settled {
		if !settled[i] {
			s.fail(wave[i], s.fate(true, err))
		}
	}
}

func (s *sender) fail(e entry, err error) {
	e.fail(err)
	if e.message().Key == "" {
		return
	}
	if s.failed == nil {
		s.failed = make(map[failedKey]int)
	}
	k := failedKey{e.call, e.message().Key}
	if first, ok := s.failed[k]; !ok || e.index < first {
		s.failed[k] = e.index
	}
}

// held fails e if a message before it, of the same call and key, has failed, if the stream is full, or if its caller has gone.
func (s *sender) held(e entry) bool {
	if e.call.abandoned.Load() {
		e.fail(errAbandoned)
		return true
	}
	if s.full != nil {
		e.fail(s.full)
		return true
	}
	if s.failed == nil {
		return false
	}
	if first, ok := s.failed[failedKey{e.call, e.message().Key}]; ok && e.index > first {
		e.fail(errHeldBack)
		return true
	}
	return false
}

// errAbandoned is seen by nobody: the caller has gone.
var errAbandoned = errors.New("the caller waits no more")

// errRefused says that the server stored nothing of a batch and that the fault may lie with some of its messages only.
var errRefused = errors.New("batch refused")

// batch publishes entries atomically: all become visible together, after one round of disk syncs, or none does.
func (s *sender) batch(entries []entry) error {
	_, sent, err := s.p.conn.sendBatch(s.p.answers, s.enc, len(entries), func(i int, m *natsgo.Msg) {
		s.enc.event(entries[i].message(), true)
		m.Subject, m.Data = s.p.subject, entries[i].message().Data
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, natsgo.ErrMaxPayload):
		return errRefused
	}
	switch apiCode(err) {
	case 0:
		return s.fate(sent, err)
	case codeAtomicDuplicate, codeAtomicIncomplete, codeStreamStoreFailed, codeHeaderTooLarge, codeAtomicTooLarge,
		jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return errRefused
	case codeAtomicDisabled:
		s.p.atomic = false // altered since the publisher was opened
		return errRefused
	}
	return asRefusal(err)
}

// sendBatch publishes n messages atomically and gives the sequence of the last. put writes the headers of message i with enc, and its subject and
// data. Where it fails, sent says whether the server may have it all the same.
func (c *conn) sendBatch(a *answers, enc *encoder, n int, put func(i int, m *natsgo.Msg)) (sequence uint64, sent bool, err error) {
	id := c.batchID + strconv.FormatUint(c.batchIDs.Add(1), 36)
	a.begin()
	sess, err := c.gate.send(func() error {
		var m natsgo.Msg
		for i := range n {
			put(i, &m)
			enc.set(batchID, id)
			enc.set(batchSeq, strconv.Itoa(i+1))
			if i == n-1 {
				enc.set(batchCommit, "1")
				m.Reply = a.subject(0)
			}
			m.Header = enc.header
			if err := c.nc.PublishMsg(&m); err != nil { // without the commit nothing of it is stored
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, false, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), confirmWait)
	defer cancel()
	var ack pubAck
	var answer error
	if err := a.await(ctx, sess, c.done, 1, func(_ int, m *natsgo.Msg) { ack, answer = acked(m) }); err != nil {
		return 0, true, err
	}
	return ack.Sequence, false, answer
}

// fate names what became of messages that were not confirmed.
func (s *sender) fate(sent bool, err error) error {
	switch {
	case errors.Is(err, natsgo.ErrNoResponders):
		ctx, cancel := context.WithTimeout(context.Background(), apiTimeout)
		defer cancel()
		if _, found := s.p.conn.streamInfo(ctx, s.p.stream); errors.Is(found, driver.ErrMissing) {
			return found
		}
		return fmt.Errorf("stream %s does not answer: %w", s.p.stream, err)
	case errors.Is(err, natsgo.ErrMaxPayload):
		return fmt.Errorf("%w: the server takes %d bytes with headers", driver.ErrTooLarge, s.p.conn.nc.MaxPayload())
	case sent:
		return fmt.Errorf("stream %s: %w: %w", s.p.stream, driver.ErrUnknown, err)
	}
	return err
}

func asRefusal(err error) error {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return refusal(api)
	}
	return err
}

// pubAck is what a stream answers.
type pubAck struct {
	Error     *jetstream.APIError `json:"error"`
	Stream    string              `json:"stream"`
	Sequence  uint64              `json:"seq"`
	Duplicate bool                `json:"duplicate"`
}

func parseAck(data []byte) (pubAck, error) {
	var ack pubAck
	err := json.Unmarshal(bytes.TrimSpace(data), &ack)
	if err == nil && ack.Error == nil && ack.Stream == "" {
		err = errors.New("it is no acknowledgement")
	}
	return ack, err
}
