package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

const (
	// cursorStream holds the cursors of an account, one message each.
	cursorStream   = "waybill-cursors"
	cursorSubjects = "waybill.cursor."
	// queueCursor stands for the group in the subject of a Queue's cursor.
	queueCursor = "=queue"

	expectedSequence = "Nats-Expected-Last-Subject-Sequence"
)

func cursorSubject(stream, group string) string {
	if group == "" {
		group = queueCursor
	}
	return cursorSubjects + stream + "." + group
}

// A record is what is stored of a cursor.
type record struct {
	mark
	// Stream is when the stream was created that Position counts in, in nanoseconds since 1970: another of the same name has other messages.
	// 0 is any.
	Stream int64 `json:"stream,omitempty"`
	// Epoch counts the readers that have claimed the cursor, and seeks.
	Epoch uint64 `json:"epoch"`
	// Holder is the reader that wrote the record, so that it knows its own writes.
	Holder string `json:"holder,omitempty"`
	Owner  string `json:"owner,omitempty"`
	// Into is the stream in which a transfer of this group keeps, or kept, its own record (see transfer.go); Open: that one counts, unless this
	// one is further.
	Into string `json:"into,omitempty"`
	Open bool   `json:"open,omitempty"`
}

// A cursor is a record with the sequence that its last write got. Whoever writes next must name that sequence: of two who believe they
// hold the cursor only one can go on.
type cursor struct {
	record
	revision uint64
}

// loadCursor reads a cursor from its stream's leader; ErrPositionLost when there is none.
func (c *conn) loadCursor(ctx context.Context, stream, group string) (cursor, error) {
	lost := fmt.Errorf("stream %s, group %q: %w: it has no position", stream, group, driver.ErrPositionLost)
	s, err := c.js.Stream(ctx, cursorStream)
	if err != nil {
		if apiCode(err) == jetstream.JSErrCodeStreamNotFound {
			return cursor{}, lost
		}
		return cursor{}, fmt.Errorf("stream %s: %w", cursorStream, err)
	}
	m, err := s.GetLastMsgForSubject(ctx, cursorSubject(stream, group))
	if err != nil {
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return cursor{}, lost
		}
		return cursor{}, fmt.Errorf("stream %s: %w", cursorStream, err)
	}
	cur := cursor{revision: m.Sequence}
	if err := json.Unmarshal(m.Data, &cur.record); err != nil {
		return cursor{}, fmt.Errorf("stream %s: the cursor of %s cannot be read: %w", cursorStream, stream, err)
	}
	return cur, nil
}

// store writes r in the place of cur and makes it cur. ErrStale: someone else wrote meanwhile. A write of an unknown fate is looked up, so
// that a reader is not fenced by itself.
func (c *conn) storeCursor(ctx context.Context, stream, group string, cur *cursor, r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("cursor of %s: %w", stream, err)
	}
	for first := true; ; first = false {
		revision, err := c.putCursor(ctx, cursorSubject(stream, group), data, cur.revision)
		if err == nil {
			cur.record, cur.revision = r, revision
			return nil
		}
		if code := apiCode(err); code != jetstream.JSErrCodeStreamWrongLastSequence && code != jetstream.JSErrCodeStreamWrongLastSequenceConstant {
			return fmt.Errorf("cursor of %s: %w", stream, err)
		}
		stale := fmt.Errorf("cursor of %s, group %q: %w", stream, group, driver.ErrStale)
		if !first || r.Holder == "" {
			return stale
		}
		now, err := c.loadCursor(ctx, stream, group)
		switch {
		case errors.Is(err, driver.ErrPositionLost):
			return stale
		case err != nil:
			return err
		case now.Holder != r.Holder || now.Epoch != r.Epoch:
			return stale
		}
		*cur = now // our own, of which no answer came
	}
}

func (c *conn) putCursor(ctx context.Context, subject string, data []byte, revision uint64) (uint64, error) {
	m := &natsgo.Msg{Subject: subject, Data: data, Header: natsgo.Header{expectedSequence: {strconv.FormatUint(revision, 10)}}}
	reply, err := c.request(ctx, m)
	if err != nil {
		return 0, err
	}
	a, err := parseAck(reply.Data)
	if err != nil {
		return 0, err
	}
	if a.Error != nil {
		return 0, a.Error
	}
	return a.Sequence, nil
}

// purgeCursor removes cursors: of one group, or of all groups of a stream with "*".
func (c *conn) purgeCursor(ctx context.Context, stream, group string) error {
	s, err := c.js.Stream(ctx, cursorStream)
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSubject(cursorSubject(stream, group)))
	}
	if apiCode(err) == jetstream.JSErrCodeStreamNotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", cursorStream, err)
	}
	return nil
}

// ensureCursorStream makes the stream that cursors live in.
func (c *conn) ensureCursorStream(ctx context.Context) error {
	_, err := c.js.CreateStream(ctx, jetstream.StreamConfig{
		Name:              cursorStream,
		Description:       "Positions of Waybill's ordered readers, one message each. Deleting one loses that reader's position.",
		Subjects:          []string{cursorSubjects + ">"},
		Storage:           jetstream.FileStorage,
		MaxMsgsPerSubject: 1,
		Replicas:          c.replicas(),
		Metadata:          map[string]string{metaKind: "Cursors"},
	})
	if err != nil && apiCode(err) != jetstream.JSErrCodeStreamNameInUse {
		return fmt.Errorf("stream %s: %w", cursorStream, err)
	}
	return nil
}
