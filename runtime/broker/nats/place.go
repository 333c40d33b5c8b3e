package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

const (
	// placeSubjects begins the subjects under which a Topic's stream holds the places of those who publish to it exactly once.
	placeSubjects = "waybill.position."

	rollupHeader = "Nats-Rollup"
	rollupOne    = "sub"
)

// placesOf are the subjects of all places in a stream.
func placesOf(stream string) string { return placeSubjects + stream + ".>" }

// isPlace reports whether a message of a stream is nobody's business but that of who wrote it.
func isPlace(subject string) bool { return strings.HasPrefix(subject, placeSubjects) }

// A place is how far a group has been carried into a stream. It lies in that stream, so that one batch can hold it and the messages, and
// each write names the sequence of the one before: of two writers that believe the place is theirs, one is refused, with all its messages.
type place struct {
	mark
	Epoch  uint64 `json:"epoch"`
	Holder string `json:"holder"`
}

// A placeAt is a place with where it lies.
type placeAt struct {
	place
	sequence uint64 // 0: there is none
}

type placeName struct{ stream, subject string }

func placeIn(into, stream, group string) placeName {
	return placeName{into, placeSubjects + into + "." + stream + "." + group}
}

// loadPlace reads a place from its stream's leader; sequence 0 when there is none.
func (c *conn) loadPlace(ctx context.Context, n placeName) (placeAt, error) {
	s, err := c.js.Stream(ctx, n.stream)
	if err != nil {
		return placeAt{}, missing("stream "+n.stream, err)
	}
	m, err := s.GetLastMsgForSubject(ctx, n.subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return placeAt{}, nil
	}
	if err != nil {
		return placeAt{}, fmt.Errorf("stream %s: %w", n.stream, err)
	}
	p := placeAt{sequence: m.Sequence}
	if err := json.Unmarshal(m.Data, &p.place); err != nil {
		return placeAt{}, fmt.Errorf("stream %s: the position under %s cannot be read: %w", n.stream, n.subject, err)
	}
	return p, nil
}

// storePlace writes a place without messages, in the place of the one at sequence. ErrStale: somebody else wrote, or it is gone. A message that
// is nobody's goes before it and stays until retention deletes it: a place is replaced by the next one, and were it the first in its stream,
// that would look as if messages before it had been deleted.
func (c *conn) storePlace(n placeName, p place, sequence uint64) (placeAt, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return placeAt{}, fmt.Errorf("stream %s: %w", n.stream, err)
	}
	a, err := c.newAnswers()
	if err != nil {
		return placeAt{}, fmt.Errorf("stream %s: %w", n.stream, err)
	}
	defer a.close()
	enc := newEncoder()
	at, _, err := c.sendBatch(a, enc, 2, func(i int, m *natsgo.Msg) {
		enc.reset(0)
		if i == 0 {
			m.Subject, m.Data = n.subject+".claimed", data
			return
		}
		m.Subject, m.Data = n.subject, data
		enc.place(sequence)
	})
	if refusedSequence(err) {
		return placeAt{}, fmt.Errorf("stream %s: %w: %w", n.stream, driver.ErrStale, err)
	}
	if err != nil {
		return placeAt{}, fmt.Errorf("stream %s: %w", n.stream, err)
	}
	return placeAt{p, at}, nil
}

// place fills the headers of a place that follows the one at sequence.
func (e *encoder) place(sequence uint64) {
	e.reset(0)
	e.set(rollupHeader, rollupOne)
	e.set(expectedSequence, strconv.FormatUint(sequence, 10))
}

// refusedSequence reports whether a write was refused because the last one was another than it named.
func refusedSequence(err error) bool {
	code := apiCode(err)
	return code == jetstream.JSErrCodeStreamWrongLastSequence || code == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

func (c *conn) purgePlace(ctx context.Context, n placeName) error {
	s, err := c.js.Stream(ctx, n.stream)
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSubject(n.subject))
	}
	if notFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", n.stream, err)
	}
	return nil
}

// furthest is where a group stands whose transfer may be open: what its place and its cursor say of that, whichever is further.
func (c *conn) furthest(ctx context.Context, stream, group string, cur *cursor) (uint64, error) {
	if !cur.Open {
		return cur.Position, nil
	}
	p, err := c.loadPlace(ctx, placeIn(cur.Into, stream, group))
	if err != nil && !errors.Is(err, driver.ErrMissing) {
		return 0, err
	}
	return max(cur.Position, p.Position), nil
}

// settlePlace ends a transfer that was not closed: its reader was killed, or is cut off and believes that it goes on. Writing the place
// refuses whatever that one still sends, and then the cursor alone says where the group stands. ErrPositionLost when retention has deleted
// the place; ErrStale when another is at it.
func (c *conn) settlePlace(ctx context.Context, stream, group string, cur *cursor) error {
	for range fenceTries {
		if !cur.Open {
			return nil
		}
		name := placeIn(cur.Into, stream, group)
		p, err := c.loadPlace(ctx, name)
		if errors.Is(err, driver.ErrMissing) || err == nil && p.sequence == 0 {
			return fmt.Errorf("stream %s, group %s: %w: it lay in stream %s, which has deleted it since the last reader was killed; seek to a new position to go on",
				stream, group, driver.ErrPositionLost, cur.Into)
		}
		if err != nil {
			return err
		}
		settled := cur.record
		settled.mark, settled.Open, settled.Holder = further(cur.mark, p.mark), false, newHolder()
		_, err = c.storePlace(name, place{mark: settled.mark, Epoch: cur.Epoch, Holder: settled.Holder}, p.sequence)
		if errors.Is(err, driver.ErrStale) {
			continue // it has gone on meanwhile, for the last time: or not
		}
		if err != nil {
			return err
		}
		return c.storeCursor(ctx, stream, group, cur, settled)
	}
	return fmt.Errorf("stream %s, group %s: %w: another reader goes on all the time", stream, group, driver.ErrStale)
}

// fenceTries is how often a place is read again that somebody wrote between its reading and its writing.
const fenceTries = 10

func newHolder() string { return natsgo.NewInbox()[len(natsgo.InboxPrefix):] }
