package nats

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// A mark is how far somebody has come in a stream: everything up to Position is done.
type mark struct {
	// Position is the sequence of the last message that is done.
	Position uint64 `json:"position"`
	// At is when the server stored that message, in nanoseconds since 1970; 0: not known. It tells the message from another one that has its
	// sequence later.
	At int64 `json:"at,omitempty"`
}

func markOf(d *driver.Delivery) mark { return markAt(d.Position, d.Stored) }

func markAt(position int64, stored time.Time) mark {
	m := mark{Position: uint64(position)}
	if !stored.IsZero() {
		m.At = stored.UnixNano()
	}
	return m
}

// endOf is after all that is in a stream.
func endOf(state *jetstream.StreamState) mark {
	return markAt(int64(state.LastSeq), state.LastTime)
}

// further is the one of two marks that is; of two that are even, a.
func further(a, b mark) mark {
	if b.Position > a.Position {
		return b
	}
	return a
}

// left is what a server that was killed has left of a mark in its stream: m itself, or one before it.
//
// It may have given out messages that it had not written yet, and what comes next has their sequences again. So a mark behind the end goes
// back to the end; one that others have overtaken meanwhile goes back to where those begin, which are all that were stored after its own
// message was. The server does the first with the consumers that it keeps. ErrPositionLost: the message of that sequence is another one,
// and the server's clock has gone back, so nobody can tell where those begin.
func (c *conn) left(ctx context.Context, stream string, m mark, state *jetstream.StreamState) (mark, error) {
	if m.At == 0 {
		return mark{Position: min(m.Position, state.LastSeq)}, nil
	}
	var at int64 // of the message that has the sequence now
	if m.Position <= state.LastSeq {
		var err error
		if at, err = c.storedAt(ctx, stream, m.Position); err != nil || at == m.At {
			return m, err
		}
	}
	next, err := c.resolve(ctx, stream, driver.Start{Position: driver.AtTime, Time: time.Unix(0, m.At+1)})
	switch {
	case err != nil:
		return m, err
	case next.Position < m.Position:
		return next, nil
	case at == 0:
		return m, nil // its message was deleted since
	}
	return m, fmt.Errorf("stream %s: %w: it stood at message %d, which the server has lost in a crash, and since its clock has gone back nobody can tell which ones came after; seek to a new position to go on",
		stream, driver.ErrPositionLost, m.Position)
}

// storedAt is when the server stored a message, in nanoseconds since 1970; 0 where there is none of that sequence.
func (c *conn) storedAt(ctx context.Context, stream string, sequence uint64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	m := &natsgo.Msg{Subject: c.apiPrefix + "STREAM.MSG.GET." + stream, Data: []byte(`{"seq":` + strconv.FormatUint(sequence, 10) + `}`)}
	answer, err := c.request(ctx, m)
	if err != nil {
		return 0, err
	}
	var found struct {
		Message struct {
			Time time.Time `json:"time"`
		} `json:"message"`
		Error *jetstream.APIError `json:"error"`
	}
	err = json.Unmarshal(answer.Data, &found)
	switch {
	case err != nil:
		return 0, fmt.Errorf("stream %s: the server's answer cannot be read: %w", stream, err)
	case found.Error == nil:
		return found.Message.Time.UnixNano(), nil
	case found.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return 0, nil
	}
	return 0, missing("stream "+stream, found.Error)
}
