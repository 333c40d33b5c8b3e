package poll

import (
	"context"
	"errors"
	"time"

	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/flow"
)

// Reason is why the last poll did not succeed, in a word.
type Reason string

const (
	SourceUnreachable Reason = "SourceUnreachable" // nobody answers at the address
	SourceBusy        Reason = "SourceBusy"        // the server asked for a pause
	SourceRefused     Reason = "SourceRefused"     // the server does not take the address, the credentials or the request
	SourceFailed      Reason = "SourceFailed"      // any other answer that is no page
	PageUnreadable    Reason = "PageUnreadable"    // an expression failed on the page
	TooManyItems      Reason = "TooManyItems"      // more than Changed can remember, or than a page may have
	ItemRefused       Reason = "ItemRefused"       // an item cannot be published; the others were
	BrokerFailed      Reason = "BrokerFailed"      // the broker did not take the items
	CheckpointFailed  Reason = "CheckpointFailed"  // the position could not be written
)

// Stats is what a poller has done since it was started.
type Stats struct {
	Polls       int64 `json:"polls"`       // that were answered
	Rounds      int64 `json:"rounds"`      // that came to their last page
	NotModified int64 `json:"notModified"` // of these, with 304 or, for ETag, with the same ETag or Last-Modified
	Pages       int64 `json:"pages"`
	Items       int64 `json:"items"` // on these pages
	Published   int64 `json:"published"`
	Refused     int64 `json:"refused"` // items that could not be published, each time they were met
	Errors      int64 `json:"errors"`  // polls that failed, for whatever reason
	// Reason and LastError tell how the last poll failed; both are empty when it did not.
	Reason      Reason    `json:"reason,omitempty"`
	LastError   string    `json:"lastError,omitempty"`
	LastSuccess time.Time `json:"lastSuccess,omitzero"`
	Next        time.Time `json:"next,omitzero"`
	// Due is when the poll was due that has not succeeded yet: it lies in the future while all is well.
	Due time.Time `json:"due,omitzero"`
}

// Stats is a snapshot.
func (p *Poller) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

func (p *Poller) count(add func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add(&p.stats)
}

// settle notes how a poll ended. Only a change is worth a line in the log.
func (p *Poller) settle(f *failure, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.stats.Reason
	p.stats.Next = next
	if f == nil || f.reason == ItemRefused && p.plan.Detect != cursor { // behind a refused item a cursor does not move
		p.stats.Due = next
	}
	if f == nil {
		p.stats.Polls++
		p.stats.Reason, p.stats.LastError, p.stats.LastSuccess = "", "", time.Now()
		if was != "" {
			p.deps.Log.Info("polling again", "after", was)
		}
		return
	}
	p.stats.Errors++
	if f.reason == ItemRefused {
		p.stats.Polls++
	}
	p.stats.Reason, p.stats.LastError = f.reason, f.err.Error()
	if was != f.reason {
		p.deps.Log.Warn("the poll failed", "reason", f.reason, "error", f.err.Error(), "next", next)
	}
}

// A failure is why a poll ended early.
type failure struct {
	reason Reason
	after  time.Duration // the server asked for that pause
	err    error
}

func (f *failure) Error() string { return string(f.reason) + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func asFailure(err error) *failure {
	var f *failure
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f):
		return f
	}
	return &failure{reason: SourceFailed, err: err}
}

// sourceFailure classifies what the HTTP client says.
func sourceFailure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f := &failure{reason: SourceFailed, err: err}
	if fault, ok := errors.AsType[*flow.Fault](err); ok {
		f.after = fault.After
		switch fault.Blame {
		case flow.Unreachable, flow.Cut:
			f.reason = SourceUnreachable
		case flow.Busy:
			f.reason = SourceBusy
		case flow.Address, flow.Message:
			f.reason = SourceRefused
		}
	}
	return f
}

func checkpointFailure(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, checkpoint.ErrConflict):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return &failure{reason: CheckpointFailed, err: err}
}
