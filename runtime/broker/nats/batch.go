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
	// minBatch is where a batch begins to be cheaper than messages one by one.
	minBatch = 2
	// confirmWait bounds the wait for an answer, so that a lost one does not hold up later callers for ever.
	confirmWait = 10 * time.Second
)

// sender turns calls into batches. It belongs to one collector.
type sender struct {
	p       *publisher
	enc     *encoder
	entries []entry
	failed  map[failedKey]int // the first failed message of each call and key
	full    error             // set once the stream has refused a message for want of room: no more are tried
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

// heldBack is the error of a message that was not published because one before it with the same key was not.
var heldBack = fmt.Errorf("%w: it was not tried", driver.ErrHeldBack)

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
			if !s.p.atomic || c.sizes[i]+batchOverhead > s.p.conn.features.MaxMessageBytes {
				flush() // a message at the limit has no room for the headers of a batch
				s.single(e)
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

// publish sends entries, as one batch if it can.
func (s *sender) publish(entries []entry) {
	if len(entries) < minBatch {
		for _, e := range entries {
			s.single(e)
		}
		return
	}
	err := s.batch(entries)
	switch {
	case err == nil:
	case errors.Is(err, errRefused):
		// Nothing of it was stored. Halves tell which message it was, in order, and let the rest go in batches still.
		if len(entries) <= 8 {
			for _, e := range entries {
				s.single(e)
			}
			return
		}
		s.publish(entries[:len(entries)/2])
		s.publish(entries[len(entries)/2:])
	default:
		for _, e := range entries {
			if e.call.errs[e.index] == nil {
				s.fail(e, err)
			}
		}
	}
}

func (s *sender) fail(e entry, err error) {
	e.fail(err)
	if s.failed == nil {
		s.failed = make(map[failedKey]int)
	}
	k := failedKey{e.call, e.message().Key}
	if first, ok := s.failed[k]; !ok || e.index < first {
		s.failed[k] = e.index
	}
}

// held fails e if a message before it, of the same call and key, has failed, or if the stream is full.
func (s *sender) held(e entry) bool {
	if s.full != nil {
		e.fail(s.full)
		return true
	}
	if s.failed == nil {
		return false
	}
	if first, ok := s.failed[failedKey{e.call, e.message().Key}]; ok && e.index > first {
		e.fail(heldBack)
		return true
	}
	return false
}

// single publishes one message alone and waits for the answer.
func (s *sender) single(e entry) {
	if s.held(e) {
		return
	}
	s.enc.event(e.message(), true)
	ctx, cancel := context.WithTimeout(context.Background(), confirmWait)
	defer cancel()
	m := &natsgo.Msg{Subject: s.p.subject, Header: s.enc.header, Data: e.message().Data}
	reply, sent, err := s.p.conn.request(ctx, m)
	if err != nil {
		s.fail(e, s.fate(sent, err))
		return
	}
	if _, err := replied(reply); err != nil {
		err = asRefusal(err)
		if errors.Is(err, driver.ErrFull) {
			s.full = err
		}
		s.fail(e, err)
	}
}

// errRefused says that the server stored nothing of a batch and that the fault may lie with some of its messages only.
var errRefused = errors.New("batch refused")

// batch publishes entries atomically, without those that must be held back.
func (s *sender) batch(entries []entry) error {
	sess, err := s.p.conn.online()
	if err != nil {
		return err
	}
	if s.failed != nil || s.full != nil {
		entries = slices.DeleteFunc(slices.Clone(entries), s.held)
	}
	if len(entries) < minBatch {
		for _, e := range entries {
			s.single(e)
		}
		return nil
	}
	id := s.p.conn.batchID + strconv.FormatUint(s.p.conn.batchIDs.Add(1), 36)
	m := natsgo.Msg{Subject: s.p.subject}
	for i := range entries {
		s.enc.event(entries[i].message(), true)
		s.enc.set(batchID, id)
		s.enc.set(batchSeq, strconv.Itoa(i+1))
		m.Header, m.Data = s.enc.header, entries[i].message().Data
		if i == len(entries)-1 {
			break
		}
		if err := s.p.conn.nc.PublishMsg(&m); err != nil { // without the commit nothing of it is stored
			return s.fate(false, err)
		}
	}
	s.enc.set(batchCommit, "1")
	ctx, cancel := context.WithTimeout(context.Background(), confirmWait)
	defer cancel()
	stop := context.AfterFunc(sess.ctx, cancel) // a new connection must not commit what the old one began
	defer stop()
	reply, sent, err := s.p.conn.request(ctx, &m)
	if err != nil {
		if sess.ctx.Err() != nil {
			err = errAway
		}
		return s.fate(sent, err)
	}
	_, err = replied(reply)
	switch apiCode(err) {
	case 0:
		return err
	case codeAtomicDuplicate, codeAtomicIncomplete, codeStreamStoreFailed, codeHeaderTooLarge, codeAtomicTooLarge,
		jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return errRefused
	case codeAtomicDisabled:
		s.p.atomic = false // altered since the publisher was opened
		return errRefused
	}
	return asRefusal(err)
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
		return fmt.Errorf("%w: the server takes %d bytes with headers", driver.ErrTooLarge, s.p.conn.features.MaxMessageBytes)
	case sent:
		return fmt.Errorf("stream %s: %w: %w", s.p.stream, driver.ErrUnknown, err)
	}
	return err
}

func asRefusal(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) {
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
