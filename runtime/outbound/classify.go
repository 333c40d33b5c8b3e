package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/waybill-dev/waybill/runtime/flow"
)

// Bounds on how long an answer can make us wait.
const (
	// maxPause of a message: it is held in memory meanwhile.
	maxPause = 15 * time.Minute
	// maxRetryAfter of anything.
	maxRetryAfter = 24 * time.Hour
)

func (r *Response) ok() bool { return r.Status >= 200 && r.Status <= 299 }

// Check says what the answer's status means for whom: nil for 2xx, else a *flow.Fault that names host and status.
func (r *Response) Check(host string) error {
	if r.ok() {
		return nil
	}
	f := &flow.Fault{Blame: flow.Destination, Err: fmt.Errorf("%s answered %d%s", host, r.Status, statusText(r.Status))}
	switch r.Status {
	case http.StatusBadRequest, http.StatusGone, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		f.Blame = flow.Message
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusMisdirectedRequest:
		f.Blame = flow.Address
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if after, ok := RetryAfter(r.Header, time.Now()); ok {
			f.Blame, f.After = flow.Busy, after
		}
	default:
		if r.Status >= 300 && r.Status <= 399 && r.Status != http.StatusNotModified {
			f.Err = fmt.Errorf("%w; redirects are not followed, so give the address that it points to", f.Err)
		}
	}
	return f
}

func statusText(code int) string {
	if t := http.StatusText(code); t != "" {
		return " " + t
	}
	return ""
}

// RetryAfter reads the header of that name (RFC 9110): seconds, or a date, which is taken by the clock of the server that wrote it where
// the answer says what time that was. ok is false when the header is missing or makes no sense. The result is between 0 and 24 hours.
func RetryAfter(h http.Header, now time.Time) (after time.Duration, ok bool) {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0, false
	}
	if strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) { // out of range: very long
			return maxRetryAfter, true
		}
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), 0), maxRetryAfter), true
}

// fault classifies a call without a complete answer.
func (p *progress) fault(ctx, call context.Context, r *Request, timeout time.Duration, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f := &flow.Fault{Blame: flow.Destination}
	var shown answerError
	ended := call.Err() != nil
	switch {
	case errors.As(err, &shown):
		f.Err = fmt.Errorf("%s: %w", r.URL.Host, shown)
	case ended && p.connected.Load():
		f.Err = fmt.Errorf("%s did not answer within %s", r.URL.Host, timeout)
	case ended:
		f.Blame = flow.Unreachable
		f.Err = fmt.Errorf("%s: no connection within %s", r.URL.Host, timeout)
	case p.answered.Load():
		// The error may quote the answer.
		f.Err = fmt.Errorf("%s: the answer is cut off or is not HTTP", r.URL.Host)
	case p.connected.Load():
		f.Blame = flow.Cut
		f.Err = fmt.Errorf("%s closed the connection before it answered: %w", r.URL.Host, bare(err))
	default:
		f.Blame = flow.Unreachable
		f.Err = fmt.Errorf("%s: no connection: %w", r.URL.Host, bare(err))
	}
	f.Err = cut(f.Err)
	return f
}

// bare is an error of the network without the address, which the reader has already been told.
func bare(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// maxText of an error: it is kept with a dead letter.
const maxText = 1 << 10

type cutError struct {
	text string
	err  error
}

func (e *cutError) Error() string { return e.text }
func (e *cutError) Unwrap() error { return e.err }

// cut bounds an error's text to 1 KiB of UTF-8.
func cut(err error) error {
	text := err.Error()
	if len(text) <= maxText {
		return err
	}
	n := maxText - len("…")
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return &cutError{text[:n] + "…", err}
}
