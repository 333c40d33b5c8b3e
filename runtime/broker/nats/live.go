package nats

import (
	"context"
	"fmt"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// A liveSource reads a topic for somebody who keeps his place himself: an ordered reader without a cursor.
type liveSource struct{ *cursorSource }

func (c *conn) openLive(ctx context.Context, spec driver.SourceSpec) (driver.Source, error) {
	stream, err := c.streamInfo(ctx, spec.Object.Name)
	if err != nil {
		return nil, err
	}
	holder := newHolder()
	spec.Group = "live-" + holder // names its consumers apart from others'
	s := &cursorSource{conn: c, spec: spec, holder: holder, claim: driver.Claim{Epoch: 1}}
	switch at := spec.Live; {
	case len(at.After) > 0:
		after := at.After[0]
		s.came = markAt(max(after.Position, 0), after.Stored)
		left, err := c.left(ctx, spec.Object.Name, s.came, &stream.State)
		if err != nil {
			return nil, err
		}
		if left != s.came || lost(s.came.Position, &stream.State) {
			return nil, positionLost(spec.Object.Name, "", s.came.Position, stream.State.FirstSeq)
		}
	case at.Start.Position == driver.Latest:
		s.came.Position = stream.State.LastSeq
	case at.Start.Position == driver.Earliest:
		s.came.Position = max(stream.State.FirstSeq, 1) - 1
	default:
		return nil, fmt.Errorf("live source of %s: start %q: %w", spec.Object.Name, at.Start.Position, driver.ErrUnsupported)
	}
	s.pull = newPuller(c, spec.Window, false)
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return liveSource{s}, nil
}

// Settle has nothing to note.
func (s liveSource) Settle(_ context.Context, settlements []driver.Settlement) []error {
	return make([]error, len(settlements))
}
