package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/message/cehttp"
)

const (
	// How long a client may take to send its body: what it has sent is held in memory.
	bodyTimeout = 30 * time.Second
	// maxBatchBytes and maxBatchEvents bound one batch.
	maxBatchBytes  = 8 << 20
	maxBatchEvents = 10_000
	// envelope is what a structured event may have beside its data.
	envelope = message.MaxAttributeBytes + 8<<10
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

// limits of one request: of its body, 0 for as large as the events may be, and of one event's data.
type limits struct{ body, data int }

// read takes a request's events. When it returns nil it has answered.
func (f *front) read(w http.ResponseWriter, r *http.Request, l limits) *intake {
	mode, err := cehttp.ModeOf(r.Header)
	if err != nil {
		f.refuse(w, malformed(err))
		return nil
	}
	limit := int64(l.data)
	switch mode {
	case cehttp.ModeStructured:
		limit = limit/3*4 + envelope // the data may be base64
	case cehttp.ModeBatched:
		limit = max(maxBatchBytes, limit/3*4+envelope)
	}
	if l.body > 0 {
		limit = min(limit, int64(l.body))
	}
	body, reserved, ok := f.readBody(w, r, limit)
	if !ok {
		return nil
	}
	in := &intake{bytes: reserved, budget: &f.budget}
	in.events, in.batch, err = cehttp.Read(r.Header, body, f.defaults)
	switch {
	case err != nil:
		in.close()
		f.refuse(w, malformed(err))
		return nil
	case len(in.events) > maxBatchEvents:
		in.close()
		f.refuse(w, problem{Status: http.StatusRequestEntityTooLarge, Reason: "BatchTooLarge", Detail: fmt.Sprintf("a batch may have %d events", maxBatchEvents)})
		return nil
	}
	for i := range in.events {
		if len(in.events[i].Data) > l.data {
			in.close()
			p := tooLarge(int64(l.data))
			if in.batch {
				p.Errors = []fault{{Index: &i, Detail: "the data are too large"}}
			}
			f.refuse(w, p)
			return nil
		}
	}
	return in
}

// readBody reads at most limit bytes and reserves them from the budget; the caller gives them back. When ok is false it has answered.
func (f *front) readBody(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, reserved int64, ok bool) {
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // rather than read what is not wanted
		f.refuse(w, tooLarge(limit))
		return nil, 0, false
	}
	reserved = r.ContentLength
	if reserved < 0 {
		reserved = limit
	}
	if !f.budget.take(reserved) {
		f.refuse(w, problem{Status: http.StatusServiceUnavailable, Reason: "BuffersFull", Detail: "too much is waiting to be stored; try again", RetryAfter: time.Second})
		return nil, 0, false
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer can
	body, err := readAll(http.MaxBytesReader(w, r.Body, limit), r.ContentLength)
	_ = control.SetReadDeadline(time.Time{})
	if err == nil {
		if r.ContentLength < 0 { // now its size is known
			f.budget.give(reserved - int64(len(body)))
			reserved = int64(len(body))
		}
		return body, reserved, true
	}
	f.budget.give(reserved)
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		f.refuse(w, tooLarge(limit))
	} else {
		w.Header().Set("Connection", "close")
		f.refuse(w, problem{Status: http.StatusBadRequest, Reason: "BodyIncomplete", Detail: "the body ended before it was complete, or took too long"})
	}
	return nil, 0, false
}

// readAll reads to the end; size is what is expected, -1 when it is not known.
func readAll(r io.Reader, size int64) ([]byte, error) {
	if size < 0 {
		return io.ReadAll(r)
	}
	body := make([]byte, size)
	_, err := io.ReadFull(r, body)
	if err != nil {
		return nil, err
	}
	// One more read meets the end, after which the server can notice that the client went away.
	if _, err := r.Read(make([]byte, 1)); err != nil && err != io.EOF {
		return nil, err
	}
	return body, nil
}

func tooLarge(limit int64) problem {
	return problem{Status: http.StatusRequestEntityTooLarge, Reason: "TooLarge", Detail: fmt.Sprintf("at most %d bytes are taken", limit)}
}

// malformed makes a problem of an error of cehttp.Read.
func malformed(err error) problem {
	if _, unsupported := errors.AsType[*cehttp.UnsupportedError](err); unsupported {
		return problem{Status: http.StatusUnsupportedMediaType, Reason: "UnsupportedMediaType", Detail: err.Error()}
	}
	if b, bad := errors.AsType[*message.BatchError](err); bad {
		p := problem{Status: http.StatusUnprocessableEntity, Reason: "BadMember", Detail: "members of the batch are no valid events; nothing of it was stored"}
		for _, m := range b.Members[:min(len(b.Members), 100)] {
			p.Errors = append(p.Errors, fault{Index: &m.Index, Detail: m.Err.Error()})
		}
		return p
	}
	return problem{Status: http.StatusBadRequest, Reason: "MalformedEvent", Detail: err.Error()}
}
