package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unsafe"

	natsgo "github.com/nats-io/nats.go"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// What a consumer is told about a delivery.
const (
	ackDone   = "+ACK"
	ackExtend = "+WPI"
	// ackRelease has a delay, of a nanosecond, because the server writes that down: a bare NAK is forgotten when the server ends, and the
	// message waits out its ack wait.
	ackRelease = `-NAK {"delay": 1}`
)

// How long an answer to acks is waited for.
const (
	ackWait = 5 * time.Second
	// ackWaitRenewed is for deliveries of an earlier connection: the server may have crashed and forgotten them.
	ackWaitRenewed = time.Second
	// ackTime is added for each ack: what a queue is done with is deleted one by one, synced to disk where the server syncs always.
	ackTime = 10 * time.Millisecond
)

// ack is one word to a consumer about one delivery.
type ack struct {
	reply   string
	body    string
	session *session // that the delivery came in; nil: unknown
}

// acknowledge sends acks of one consumer and returns when the server has taken all. A consumer works them off in order, so only one asks
// for an answer: the one furthest along in the stream, for the server passes over those that it does not know to have been delivered,
// without a word, when a crash has set the consumer back. That holds within one connection; if it was renewed meanwhile, all fail.
//
// No answer within the time that even a slow disk needs means that the server does not know of the delivery: it will come again.
func (c *conn) acknowledge(ctx context.Context, acks []ack) error {
	s, err := c.online()
	if err != nil {
		return err
	}
	wait := ackWait
	for i := range acks {
		if acks[i].session != nil && acks[i].session != s {
			wait = ackWaitRenewed
		}
	}
	furthest, at := uint64(0), 0
	for i := range acks {
		if o, _ := parseReply(acks[i].reply); o.sequence >= furthest {
			furthest, at = o.sequence, i
		}
	}
	for i, a := range acks {
		if i == at {
			continue
		}
		if err := c.nc.Publish(a.reply, bytesOf(a.body)); err != nil {
			return err
		}
	}
	bounded, cancel := context.WithTimeout(ctx, wait+time.Duration(len(acks))*ackTime)
	defer cancel()
	_, err = c.request(bounded, &natsgo.Msg{Subject: acks[at].reply, Data: bytesOf(acks[at].body)})
	switch {
	case s.ctx.Err() != nil:
		return errAway
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil, errors.Is(err, natsgo.ErrNoResponders):
		return fmt.Errorf("%w: the server gives no answer for it", driver.ErrStale)
	}
	return err
}

func (h *held) ack(body string) ack { return ack{h.reply, body, h.session} }

// bytesOf shows a string as bytes, to be read only.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// handleOf is the Handle of a delivery: its reply subject, not copied.
func handleOf(reply string) []byte { return bytesOf(reply) }

func body(s *driver.Settlement) string {
	switch {
	case s.Verb == driver.Done:
		return ackDone
	case s.After > 0:
		return `-NAK {"delay": ` + strconv.FormatInt(int64(s.After), 10) + "}"
	}
	return ackRelease
}

func (s *durableSource) Settle(ctx context.Context, settlements []driver.Settlement) []error {
	errs := make([]error, len(settlements))
	// A server that crashed may not know what came by an earlier connection and then gives no answer: that must not be taken for one about
	// the others.
	var parts [2]struct {
		acks []ack
		of   []int
	}
	session, _ := s.conn.online() // nil: none of them will be taken
	now := time.Now()
	for i := range settlements {
		if errs[i] = s.owns(settlements[i].D, now); errs[i] != nil {
			continue
		}
		h, part := settlements[i].D.Ref.(*held), &parts[0]
		if h.session != session {
			part = &parts[1]
		}
		if part.acks == nil {
			part.acks, part.of = make([]ack, 0, len(settlements)), make([]int, 0, len(settlements))
		}
		part.acks, part.of = append(part.acks, h.ack(body(&settlements[i]))), append(part.of, i)
	}
	messages, bytes := 0, 0
	for _, part := range parts {
		if len(part.acks) == 0 {
			continue
		}
		err := s.conn.acknowledge(ctx, part.acks)
		if err != nil {
			err = fmt.Errorf("stream %s: settling: %w", s.spec.Object.Name, err)
		}
		for _, i := range part.of {
			errs[i] = err
			if h := settlements[i].D.Ref.(*held); (err == nil || errors.Is(err, driver.ErrStale)) && s.unlink(h) {
				messages++
				bytes += h.size
			}
		}
	}
	if messages > 0 {
		s.release(messages, bytes)
	}
	return errs
}

// owns says whether this source may still settle d. The server would take the word of whoever held it before.
func (s *durableSource) owns(d *driver.Delivery, now time.Time) error {
	h, ok := d.Ref.(*held)
	if !ok || h.source != s {
		return fmt.Errorf("delivery: %w: another source gave it out", driver.ErrInvalid)
	}
	s.mu.Lock()
	out := h.out
	s.mu.Unlock()
	if out {
		return driver.ErrStale
	}
	if !now.Before(d.Deadline) {
		if s.unlink(h) {
			s.release(1, h.size)
		}
		return driver.ErrStale
	}
	return nil
}

func (s *durableSource) Extend(ctx context.Context, ds []*driver.Delivery) []error {
	errs := make([]error, len(ds))
	acks := make([]ack, 0, len(ds))
	now := time.Now() // before the server counts anew
	for i, d := range ds {
		if errs[i] = s.owns(d, now); errs[i] == nil {
			acks = append(acks, d.Ref.(*held).ack(ackExtend))
		}
	}
	if len(acks) == 0 {
		return errs
	}
	err := s.conn.acknowledge(ctx, acks)
	for i, d := range ds {
		switch {
		case errs[i] != nil:
		case err != nil:
			errs[i] = fmt.Errorf("stream %s: extending: %w", s.spec.Object.Name, err)
		default:
			d.Deadline = now.Add(s.wait())
			s.mu.Lock()
			d.Ref.(*held).until = d.Deadline
			s.mu.Unlock()
		}
	}
	return errs
}
