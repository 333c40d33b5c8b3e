package flow

import (
	"fmt"
	"time"
)

// Blame says whose fault a failure is, and so what is counted and what follows (see docs/guarantees.md).
type Blame int

const (
	// Destination: whoever was to take the message answered badly. Retried and counted; a run of them opens the breaker.
	Destination Blame = iota
	// Message: this message will never be taken. Dead-lettered at once, or blocked.
	Message
	// Unreachable: nobody is there (refused, DNS, TLS). Retried, never counted; a run opens the breaker.
	Unreachable
	// Cut: the connection ended before an answer. An outage looks like that, and so does a message that ends its subscriber: counted only
	// once another message has got through since its last one, and dead-lettered no sooner than the next one gets through.
	Cut
	// Busy: the destination asked for a pause (429, 503 with Retry-After). Retried after it, never counted; a run opens the breaker.
	Busy
	// Address: the destination does not serve this path, method or credential (401, 403, 404, 405, 421). Counted only once another message
	// has got through to the same destination since the first of them.
	Address
	// Broker: a broker is away. Retried, never counted, and the breaker does not look at it: package broker paces the retries.
	Broker
)

// A Fault is a classified failure. An error that is none is treated as Destination.
type Fault struct {
	Blame Blame
	// After is how long the destination asked us to wait; 0: it did not say.
	After time.Duration
	// Err describes the failure without payloads or secrets, at most 1 KiB of it is kept.
	Err error
	// At is the address that failed, as it may be shown to those who run the flow: no credentials, no query. It is in no dead letter.
	At string
}

func (f *Fault) Error() string {
	if f.Err == nil {
		return "the attempt failed"
	}
	return f.Err.Error()
}
func (f *Fault) Unwrap() error { return f.Err }

// In is the same fault, told with the part of the work that it is in.
func (f *Fault) In(part string) *Fault {
	g := *f
	g.Err = fmt.Errorf("%s: %w", part, f.Err)
	return &g
}
