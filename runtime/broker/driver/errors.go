package driver

import (
	"errors"
	"fmt"
	"time"
)

// Errors that drivers wrap so that callers can tell them apart with errors.Is.
var (
	ErrStale        = errors.New("the delivery's lease or claim has ended; the message will be delivered again")
	ErrDrained      = errors.New("drained")
	ErrUnsupported  = errors.New("the broker cannot do this")
	ErrUnknown      = errors.New("the message's fate is not known; publishing it again may duplicate it")
	ErrFull         = errors.New("the object is full")
	ErrTooLarge     = errors.New("the message is larger than the broker takes")
	ErrMissing      = errors.New("the object does not exist on the broker")
	ErrConflict     = errors.New("the object on the broker conflicts with what is declared")
	ErrBusy         = errors.New("the object is in use")
	ErrInvalid      = errors.New("invalid")
	ErrGone         = errors.New("nobody listens there any more")
	ErrPositionLost = errors.New("the position is gone from the broker")
	// ErrHeldBack: this message was not published because one before it with the same key was not; publish both again, in order.
	ErrHeldBack = errors.New("a message before it with the same key was not published")
	// ErrNoSubscription: a message published to this topic now would be stored nowhere.
	ErrNoSubscription = errors.New("the topic has no subscription that would store the message")
)

// TooLargeError is ErrTooLarge with what is taken.
type TooLargeError struct {
	Data  int // bytes of the message's data
	Limit int // how many bytes of data are taken beside its headers
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%v: it has %d bytes of data, and with its headers there is room for %d", ErrTooLarge, e.Data, e.Limit)
}
func (e *TooLargeError) Unwrap() error { return ErrTooLarge }

// Class is what package broker makes of an error.
type Class int

const (
	Transient Class = iota // retry with backoff
	Throttled              // retry after a pause
	Denied                 // credentials or permissions
	TooLarge
	Missing
	Conflict
	Invalid
	Stale
	Full
	Drained
)

// ThrottledError carries how long a broker asked us to wait.
type ThrottledError struct {
	After time.Duration
	Err   error
}

func (e *ThrottledError) Error() string { return e.Err.Error() }
func (e *ThrottledError) Unwrap() error { return e.Err }
