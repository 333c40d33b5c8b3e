package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/message/cehttp"
	"github.com/waybill-dev/waybill/runtime/schema"
)

const (
	// How long a client may take to send its body: what it has sent is held in memory.
	bodyTimeout = 30 * time.Second
	// maxBatchBytes and maxBatchEvents bound one batch.
	maxBatchBytes  = 8 << 20
	maxBatchEvents = 10_000
	// maxFaults bounds the faults that one answer names.
	maxFaults = 100
	// spelling is how many bytes of a structured event one of its data can take: as text six at the most (\u0041), as base64 eight, four
	// such escapes for three. So it is the data that decide; the budget bounds all bodies together, whatever one may have.
	spelling = 8
	// envelope is what a structured event may have beside its data.
	envelope = spelling*message.MaxAttributeBytes + 8<<10
)

// budget bounds the bytes of requests that are in memory at the same time.
type budget struct {
	limit int64
	used  atomic.Int64
}

func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// intake is what came in with one request. Close it, or hand its bytes on to the store, which gives them back itself.
type intake struct {
	events []message.Message
	batch  bool
	bytes  int64
	budget *budget
}

func (in *intake) close() {
	in.budget.give(in.bytes)
	in.bytes = 0
}

// limits of one request: of its body, 0 for as large as the events may be, of one event's data, and what the data must meet (nil: anything
// goes).
type limits struct {
	body, data int
	schema     *schema.Schema
}

const schemaDetail = "the data do not meet the topic's schema; nothing was stored"

// violations holds an event against the schema; nil: it meets it.
func (l *limits) violations(m *message.Message) []fault {
	if l.schema == nil {
		return nil
	}
	var faults []fault
	for _, v := range l.schema.Violations(m) {
		faults = append(faults, fault{Path: v.Path, Detail: v.Detail})
	}
	return faults
}

// Fields that set a limit.
const (
	messageField = "spec.maxMessageBytes" // of the Topic or Mailbox that takes the event
	bodyField    = "spec.limits.maxBodyBytes"
)

// attributeRoom is what is kept free at the broker beside an event's data, less what a dead letter's history needs at the least.
const attributeRoom = 24<<10 - 768

// read takes a request's events. When it returns nil it has answered.
func (f *front) read(w http.ResponseWriter, r *http.Request, l limits) *intake {
	mode, err := cehttp.ModeOf(r.Header)
	if err != nil {
		f.refuseUnread(w, err)
		return nil
	}
	limit, field := int64(l.data), messageField
	written := min(spelling*limit+envelope, f.budget.limit) // what finds no room even when nothing else waits is too large, and not 503
	switch mode {
	case cehttp.ModeStructured:
		limit = written
	case cehttp.ModeBatched:
		limit, field = max(maxBatchBytes, written), ""
	}
	if l.body > 0 && int64(l.body) < limit {
		limit, field = int64(l.body), bodyField
	}
	body, reserved, ok := f.readWithin(w, r, limit, field)
	if !ok {
		return nil
	}
	in := &intake{bytes: reserved, budget: &f.budget}
	if p := in.take(r.Header, body, f.defaults, l); p != nil {
		in.close()
		f.refuse(w, *p)
		return nil
	}
	return in
}

func (f *front) refuseUnread(w http.ResponseWriter, err error) {
	p := malformed(err)
	if u, ok := errors.AsType[*cehttp.UnsupportedError](err); ok && u.Encoding {
		w.Header().Set("Accept-Encoding", "identity") // RFC 9110, 12.5.3
	}
	f.refuse(w, p)
}

// take makes events of a body. Of a batch it names the faults of all members at once.
func (in *intake) take(h http.Header, body []byte, d cehttp.Defaults, l limits) *problem {
	var err error
	in.events, in.batch, err = cehttp.Read(h, body, d)
	bad, members := errors.AsType[*message.BatchError](err)
	switch {
	case err != nil && !members:
		p := malformed(err)
		return &p
	case len(in.events) > maxBatchEvents:
		return &problem{Status: http.StatusRequestEntityTooLarge, Reason: "BatchTooLarge", Limit: maxBatchEvents,
			Detail: fmt.Sprintf("a batch may have %d events; send several", maxBatchEvents)}
	case !in.batch:
		return in.takeOne(l)
	}
	var found []fault // the first
	count, malformed, violated := 0, 0, 0
	add := func(f fault) {
		if count++; count <= maxFaults {
			found = append(found, f)
		}
	}
	for i := range in.events {
		if members && len(bad.Members) > malformed && bad.Members[malformed].Index == i {
			add(fault{Index: &i, Detail: bad.Members[malformed].Err.Error()})
			malformed++
			continue
		}
		m := &in.events[i]
		if p := tooMuch(m, l); p != nil {
			add(fault{Index: &i, Detail: p.Detail})
			continue
		}
		for _, one := range l.violations(m) {
			one.Index = &i
			add(one)
			violated++
		}
	}
	if count == 0 {
		return nil
	}
	p := problem{Status: http.StatusUnprocessableEntity, Reason: "BadMember", Errors: found,
		Detail: "members of the batch cannot be taken; nothing of it was stored"}
	if violated == count {
		p.Reason, p.Detail = "SchemaViolation", schemaDetail
	}
	if count > maxFaults {
		p.Detail += fmt.Sprintf("; the first %d of %d faults are listed", maxFaults, count)
	}
	return &p
}

func (in *intake) takeOne(l limits) *problem {
	m := &in.events[0]
	if p := tooMuch(m, l); p != nil {
		return p
	}
	if faults := l.violations(m); faults != nil {
		return &problem{Status: http.StatusUnprocessableEntity, Reason: "SchemaViolation", Detail: schemaDetail, ID: m.ID, Errors: faults}
	}
	return nil
}

// tooMuch says whether an event is too large: its data by themselves, or with its attributes more than could be dead-lettered.
func tooMuch(m *message.Message, l limits) *problem {
	if len(m.Data) > l.data {
		p := tooLarge(int64(l.data), messageField)
		p.Detail, p.ID = fmt.Sprintf("the data have %d bytes, and at most %d are taken (%s)", len(m.Data), l.data, messageField), m.ID
		return &p
	}
	if most := l.data + attributeRoom - len(m.Data); m.HeaderSize() > most {
		p := tooLarge(int64(most), messageField)
		p.Detail, p.ID = fmt.Sprintf("the attributes have %d bytes, percent-encoded, and beside these data at most %d are taken (%s)", m.HeaderSize(), most, messageField), m.ID
		return &p
	}
	return nil
}

// readBody is readWithin a limit that no field sets.
func (f *front) readBody(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, reserved int64, ok bool) {
	return f.readWithin(w, r, limit, "")
}

// readWithin reads at most limit bytes, which field sets, and reserves them from the budget as they come; the caller gives them back. When
// ok is false it has answered.
func (f *front) readWithin(w http.ResponseWriter, r *http.Request, limit int64, field string) (body []byte, reserved int64, ok bool) {
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // rather than read what is not wanted
		f.refuse(w, tooLarge(limit, field))
		return nil, 0, false
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer can
	body, reserved, err := f.budget.read(http.MaxBytesReader(w, r.Body, limit), r.ContentLength)
	_ = control.SetReadDeadline(time.Time{})
	if err == nil {
		return body, reserved, true
	}
	f.budget.give(reserved)
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		f.refuse(w, tooLarge(limit, field))
		return nil, 0, false
	}
	w.Header().Set("Connection", "close")
	if errors.Is(err, errBuffersFull) {
		f.refuse(w, problem{Status: http.StatusServiceUnavailable, Reason: "BuffersFull", Detail: "too much is waiting to be stored; try again", RetryAfter: time.Second})
	} else {
		f.refuse(w, problem{Status: http.StatusBadRequest, Reason: "BodyIncomplete", Detail: "the body ended before it was complete, or took too long"})
	}
	return nil, 0, false
}

// firstBytes of a body are reserved at once; the room then doubles as they are filled. So a client holds what it has sent, and not what it
// says that it will send.
const firstBytes = 16 << 10

// read reads to the end; size is what is expected, -1 when it is not known. reserved bytes are taken from the budget, also with an error.
func (b *budget) read(r io.Reader, size int64) (body []byte, reserved int64, err error) {
	room := int64(firstBytes)
	if size >= 0 {
		room = min(room, size)
	}
	for {
		if !b.take(room - reserved) {
			return nil, reserved, errBuffersFull
		}
		reserved = room
		grown := make([]byte, room)
		n := copy(grown, body)
		for body = grown[:n]; int64(len(body)) < room; body = grown[:n] {
			more, err := r.Read(grown[n:])
			n += more
			switch {
			case err == io.EOF && size < 0:
				b.give(reserved - int64(n))
				return bytes.Clone(grown[:n]), int64(n), nil // without the room that was not needed
			case err == io.EOF && int64(n) < size:
				return nil, reserved, io.ErrUnexpectedEOF
			case err != nil && err != io.EOF: // of a chunked body that is cut off io.ErrUnexpectedEOF too
				return nil, reserved, err
			}
		}
		if int64(len(body)) == size {
			// One more read meets the end, after which the server can notice that the client went away.
			if _, err := r.Read(make([]byte, 1)); err != nil && err != io.EOF {
				return nil, reserved, err
			}
			return body, reserved, nil
		}
		room *= 2
		if size >= 0 {
			room = min(room, size)
		}
	}
}

func tooLarge(limit int64, field string) problem {
	p := problem{Status: http.StatusRequestEntityTooLarge, Reason: "TooLarge", Limit: limit, Field: field, Detail: fmt.Sprintf("the body has more than the %d bytes that are taken", limit)}
	if field != "" {
		p.Detail += " (" + field + ")"
	}
	return p
}

// malformed makes a problem of an error of cehttp.Read.
func malformed(err error) problem {
	if _, unsupported := errors.AsType[*cehttp.UnsupportedError](err); unsupported {
		return problem{Status: http.StatusUnsupportedMediaType, Reason: "UnsupportedMediaType", Detail: err.Error()}
	}
	return problem{Status: http.StatusBadRequest, Reason: "MalformedEvent", Detail: err.Error()}
}
