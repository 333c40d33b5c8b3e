package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

const (
	// maxLive bounds the readers of live events at a replica: each has a reader of its own at the broker.
	maxLive = 100
	// heartbeat is how often a silent stream shows that it is alive.
	heartbeat = 15 * time.Second
	// writeTimeout is how long a reader may stall before it is cut off.
	writeTimeout = 30 * time.Second
)

// liveReaders counts who reads.
type liveReaders struct{ n atomic.Int64 }

func (l *liveReaders) enter() bool {
	if l.n.Add(1) > maxLive {
		l.n.Add(-1)
		return false
	}
	return true
}

func (l *liveReaders) leave() { l.n.Add(-1) }

// place is where a reader stands: the position that it saw last in each partition.
type place []driver.Mark

// at moves the place behind a delivery.
func (p place) at(d *driver.Delivery) place {
	for i := range p {
		if p[i].Claim == d.Claim.Name {
			p[i].Position, p[i].Stored = d.Position, d.Stored
			return p
		}
	}
	return append(p, driver.Mark{Claim: d.Claim.Name, Position: d.Position, Stored: d.Stored})
}

// placeVersion is the first byte of an id.
const placeVersion = 2

// id is the place as an event's id: opaque to clients, and good for this topic only.
func (p place) id(object string) string {
	b := appendField([]byte{placeVersion}, object)
	for _, m := range p {
		stored := int64(0)
		if !m.Stored.IsZero() {
			stored = m.Stored.UnixNano()
		}
		b = appendNumber(appendNumber(appendField(b, m.Claim), m.Position), stored)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// parsePlace reads an id that a client brings back.
func parsePlace(id, object string) (place, bool) {
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(id) > maxTokenBytes || len(b) == 0 || b[0] != placeVersion {
		return nil, false
	}
	r := fieldReader{b: b[1:]}
	if string(r.field()) != object {
		return nil, false
	}
	var p place
	for len(r.b) > 0 && !r.bad {
		m := driver.Mark{Claim: string(r.field()), Position: r.number()}
		if m.Position < 0 {
			return nil, false
		}
		if stored := r.number(); stored != 0 {
			m.Stored = time.Unix(0, stored)
		}
		p = append(p, m)
	}
	return p, !r.bad && len(p) > 0
}

// acceptsEvents reports whether the client takes text/event-stream.
func acceptsEvents(h http.Header) bool {
	for _, line := range h["Accept"] {
		for part := range strings.SplitSeq(line, ",") {
			media, params, _ := strings.Cut(part, ";")
			if refused(params) {
				continue
			}
			switch strings.ToLower(strings.TrimSpace(media)) {
			case "text/event-stream", "text/*", "*/*":
				return true
			}
		}
	}
	return false
}

// refused reports whether the parameters of a media type have a weight of nothing: q=0, with as many zeros behind a point as one likes.
func refused(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if q, err := strconv.ParseFloat(value, 64); strings.EqualFold(name, "q") && err == nil && q == 0 {
			return true
		}
	}
	return false
}

// serveLive serves GET: one event of the stream for each message of the topic, from now on or behind Last-Event-ID.
func (t *Topic) serveLive(w http.ResponseWriter, r *http.Request) {
	if !acceptsEvents(r.Header) {
		t.refuse(w, problem{Status: http.StatusNotAcceptable, Reason: "NotAcceptable", Detail: "live events are sent as text/event-stream; accept it"})
		return
	}
	var from place
	last := r.Header.Get("Last-Event-ID")
	if last != "" {
		var ok bool
		if from, ok = parsePlace(last, t.plan.Object.Name); !ok {
			t.refuse(w, badArgument("header Last-Event-ID: is no id of this topic's live events"))
			return
		}
	}
	if t.refuseAway(w, t.deps.Broker(t.plan.Object.Broker)) {
		return
	}
	if !t.live.enter() {
		t.refuse(w, problem{Status: http.StatusServiceUnavailable, Reason: "TooManyReaders", Detail: "too many readers of live events at this replica; try again", RetryAfter: 5 * time.Second})
		return
	}
	t.stats.live.Add(1)
	defer func() { t.live.leave(); t.stats.live.Add(-1) }()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-t.drained:
			cancel()
		case <-ctx.Done():
		}
	}()
	s := &stream{topic: t, w: w, control: http.NewResponseController(w), cancel: cancel, place: from, lastID: last}
	if err := s.open(ctx, driver.Latest); err != nil {
		if ctx.Err() == nil {
			t.log.Warn("cannot read live events", "error", err)
		}
		if errors.Is(err, driver.ErrUnsupported) {
			t.refuse(w, problem{Status: http.StatusNotAcceptable, Reason: "Unsupported", Detail: "this broker has no live events"})
		} else {
			t.refuse(w, storeProblemFor(err))
		}
		return
	}
	defer s.close()
	defer func() { _ = s.control.SetWriteDeadline(time.Time{}) }() // the connection may serve other requests
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	if err := s.run(ctx); err != nil && ctx.Err() == nil {
		t.log.Warn("live events end", "error", err)
	}
}

// stream is one reader of live events.
type stream struct {
	topic   *Topic
	w       http.ResponseWriter
	control *http.ResponseController
	cancel  context.CancelFunc
	src     driver.Source
	place   place
	lastID  string // that the reader has; "" before the first event
	gap     bool   // what follows lastID is gone: say so before the next event
	out     []byte
}

// open opens a source behind s.place, or at start while there is none. A place that is gone is a gap, and the oldest follows.
func (s *stream) open(ctx context.Context, start string) error {
	object := s.topic.plan.Object
	spec := driver.SourceSpec{Object: driverRef(object), Ordering: driver.Strict, Window: driver.Window{Messages: 256, Bytes: 4 << 20},
		Live: &driver.Live{Start: driver.Start{Position: start}, After: slices.Clone(s.place)},
		// Another session would begin where this source began: the reader comes again instead, with the id that it has.
		Lost: func([]driver.Claim) { s.cancel() }}
	opening, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	src, err := s.topic.deps.Broker(object.Broker).Source(opening, spec)
	if errors.Is(err, driver.ErrPositionLost) && s.place != nil {
		s.lose()
		return s.open(ctx, driver.Earliest)
	}
	s.src = src
	return err
}

func (s *stream) lose() {
	s.gap, s.place = true, nil
	s.topic.stats.gaps.Add(1)
}

func (s *stream) close() {
	if s.src == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	if err := s.src.Close(ctx); err != nil {
		s.topic.log.Warn("closing a reader of live events", "error", err)
	}
	s.src = nil
}

func (s *stream) run(ctx context.Context) error {
	s.out = append(s.out[:0], ": live\n\n"...)
	if err := s.flush(); err != nil {
		return nil // the client is gone
	}
	into := make([]driver.Delivery, 64)
	done := make([]driver.Settlement, 0, len(into))
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, heartbeat)
		n, err := s.src.Receive(wait, into)
		cancel()
		if errors.Is(err, driver.ErrPositionLost) && s.place != nil {
			s.close()
			s.lose()
			err = s.open(ctx, driver.Earliest)
		}
		if err != nil {
			return err
		}
		s.out, done = s.out[:0], done[:0]
		for i := range into[:n] {
			s.append(&into[i])
			done = append(done, driver.Settlement{D: &into[i]})
		}
		if n == 0 {
			s.out = append(s.out, ":\n\n"...)
		}
		if err := s.flush(); err != nil {
			return nil // the client is gone
		}
		if n > 0 {
			s.src.Settle(ctx, done) // keeps no position; it frees the window
		}
	}
	return nil
}

// append writes one delivery as an event of the stream.
func (s *stream) append(d *driver.Delivery) {
	s.place = s.place.at(d)
	id := s.place.id(s.topic.plan.Object.Name)
	if s.gap {
		data, _ := json.Marshal(struct { // two strings: cannot fail
			From string `json:"from"`
			To   string `json:"to"`
		}{s.lastID, id})
		s.out = append(append(append(s.out, "event: gap\ndata: "...), data...), "\n\n"...)
		s.gap = false
	}
	s.lastID = id
	s.out = append(append(append(s.out, "id: "...), id...), "\ndata: "...)
	event := d.Message.Without(message.Internal)
	start := len(s.out)
	s.out = message.AppendJSON(s.out, &event)
	s.out = splitLines(s.out, start)
	s.out = append(s.out, "\n\n"...)
}

// splitLines puts "data: " before each further line of out[start:]: JSON data may have line breaks between its tokens.
func splitLines(out []byte, start int) []byte {
	if !slices.ContainsFunc(out[start:], func(c byte) bool { return c == '\n' || c == '\r' }) {
		return out
	}
	text := strings.NewReplacer("\r\n", "\ndata: ", "\n", "\ndata: ", "\r", "\ndata: ").Replace(string(out[start:]))
	return append(out[:start], text...)
}

func (s *stream) flush() error {
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer can
	if _, err := s.w.Write(s.out); err != nil {
		return err
	}
	return s.control.Flush()
}
