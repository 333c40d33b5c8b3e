package flow

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// Reason says why a message was dead-lettered.
type Reason string

const (
	Terminal          Reason = "Terminal"          // the destination or a step refused this message for good
	AttemptsExhausted Reason = "AttemptsExhausted" // it failed as often as it may
	Rejected          Reason = "Rejected"          // its receiver asked for it
	CrashLoop         Reason = "CrashLoop"         // the broker delivered it so often that it seems to end its handlers
	Loop              Reason = "Loop"              // it went through more than MaxHops flows
)

// Reasons are all of them.
var Reasons = [...]Reason{Terminal, AttemptsExhausted, Rejected, CrashLoop, Loop}

// MaxHops is how many flows may carry one message on.
const MaxHops = 16

// maxErrorText is how many bytes of an error a dead letter carries.
const maxErrorText = 1 << 10

// Death is the history that a dead letter carries.
type Death struct {
	Reason      Reason
	Attempts    int
	First, Last string // errors; cut at 1 KiB
	Origin      string // KIND/NAMESPACE/NAME
	Time        time.Time
	// Identity, where it is set, tells this death from others in the place of Time: a letter that is stored again at another time, or by
	// another replica, is the same one to the broker. It is a delivery's Identity, of a queue only: there a message dies once.
	Identity string
}

// DeadLetter returns m with its history in place of any earlier one. Id, source and data stay. What made it a request goes: nobody waits
// for a dead letter, and it must not expire where it is kept.
func DeadLetter(m message.Message, d Death) message.Message {
	attrs := make([]message.Attribute, 0, len(m.Attributes)+7)
	for _, a := range m.Attributes {
		switch a.Name {
		case message.Reason, message.Attempts, message.FirstError, message.LastError, message.Origin, message.DeadTime, message.Death,
			message.ReplyTo, message.Correlation, message.AnswerKind, message.AnswerCode, message.ExpiryTime:
		default:
			attrs = append(attrs, a)
		}
	}
	attrs = append(attrs,
		message.Attribute{Name: message.Reason, Value: string(d.Reason)},
		message.Attribute{Name: message.Attempts, Value: strconv.Itoa(d.Attempts)})
	if d.First != "" {
		attrs = append(attrs, message.Attribute{Name: message.FirstError, Value: errorText(d.First)})
	}
	if d.Last != "" {
		attrs = append(attrs, message.Attribute{Name: message.LastError, Value: errorText(d.Last)})
	}
	attrs = append(attrs,
		message.Attribute{Name: message.Origin, Value: d.Origin},
		message.Attribute{Name: message.DeadTime, Value: d.Time.UTC().Format(time.RFC3339Nano)})
	if d.Identity != "" {
		attrs = append(attrs, message.Attribute{Name: message.Death, Value: d.Identity})
	}
	m.Attributes = attrs
	return m
}

// Bury stores dead letters: nil, or one error a letter. One that is too large with its history is stored without its errors; letters is
// changed by that.
func Bury(ctx context.Context, to Publisher, letters []message.Message) []error {
	errs := to.Publish(ctx, letters)
	for i, err := range errs {
		if !errors.Is(err, driver.ErrTooLarge) || errors.Is(err, driver.ErrHeldBack) {
			continue
		}
		brief := letters[i].Without(func(name string) bool { return name == message.FirstError || name == message.LastError })
		if len(brief.Attributes) == len(letters[i].Attributes) {
			continue
		}
		letters[i] = brief
		if again := to.Publish(ctx, letters[i:i+1]); again != nil {
			errs[i] = again[0]
		} else {
			errs[i] = nil
		}
	}
	return errs
}

// errorText makes an error fit for an attribute: one line, valid UTF-8, at most 1 KiB.
func errorText(s string) string {
	if len(s) > maxErrorText {
		cut := maxErrorText
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
