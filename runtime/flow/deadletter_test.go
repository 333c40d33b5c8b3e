package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// taker stores what its accept allows.
type taker struct {
	accept func(m message.Message) error
	stored []message.Message
}

func (p *taker) Publish(_ context.Context, ms []message.Message) []error {
	errs := make([]error, len(ms))
	for i, m := range ms {
		if errs[i] = p.accept(m); errs[i] == nil {
			p.stored = append(p.stored, m)
		}
	}
	if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return nil
	}
	return errs
}

func TestADeadLetterIsNoRequest(t *testing.T) {
	m := message.Message{ID: "1", Source: "/s", Type: "t", Data: []byte("x"), Attributes: []message.Attribute{
		{Name: message.ReplyTo, Value: "inbox"}, {Name: message.Correlation, Value: "rABC"}, {Name: message.ExpiryTime, Value: "2000-01-01T00:00:00Z"}, {Name: "color", Value: "red"}, {Name: message.Hops, Value: "2"}}}
	letter := DeadLetter(m, Death{Reason: Terminal, Attempts: 1, Origin: "Mailbox/default/work", Time: time.Now()})
	for _, name := range []string{message.ReplyTo, message.Correlation, message.ExpiryTime} {
		if letter.Attribute(name) != "" {
			t.Errorf("it has %s", name)
		}
		if m.Attribute(name) == "" {
			t.Errorf("the request has lost %s", name)
		}
	}
	if letter.Attribute("color") != "red" || letter.Attribute(message.Hops) != "2" {
		t.Errorf("got %v", letter.Attributes)
	}
}

func TestBuryLeavesTheErrorsOutOfALetterThatIsTooLarge(t *testing.T) {
	full := errors.New("full")
	letter := func(id string) message.Message {
		return DeadLetter(message.Message{ID: id, Source: "/s", Type: "t"}, Death{Reason: Terminal, Attempts: 1, First: "first", Last: "last", Origin: "Mailbox/default/work", Time: time.Now()})
	}
	p := &taker{accept: func(m message.Message) error {
		switch {
		case m.ID == "large" && m.Attribute(message.LastError)+m.Attribute(message.FirstError) != "", m.ID == "too large":
			return fmt.Errorf("no: %w", driver.ErrTooLarge)
		case m.ID == "full":
			return full
		}
		return nil
	}}
	errs := Bury(t.Context(), p, []message.Message{letter("full"), letter("large"), letter("small"), letter("too large")})
	if len(errs) != 4 || !errors.Is(errs[0], full) || errs[1] != nil || errs[2] != nil || !errors.Is(errs[3], driver.ErrTooLarge) {
		t.Fatalf("got %v", errs)
	}
	if len(p.stored) != 2 || p.stored[0].ID != "small" || p.stored[0].Attribute(message.LastError) != "last" || p.stored[1].ID != "large" || p.stored[1].Attribute(message.Reason) != "Terminal" {
		t.Fatalf("stored %v", p.stored)
	}
}

func TestADeadLetterThatIsTriedAgainIsTheSameOne(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var tried []string
		grave := &taker{accept: func(m message.Message) error {
			if tried = append(tried, m.DedupID()); len(tried) < 3 {
				return driver.ErrUnknown
			}
			return nil
		}}
		r.cfg.DeadLetter = grave
		r.sink.handle = func(context.Context, string, int) error { return &Fault{Blame: Message, Err: errors.New("refused")} }
		r.script.add("-0")
		r.start()
		after(time.Hour)
		if len(tried) != 3 || tried[0] != tried[1] || tried[1] != tried[2] || len(grave.stored) != 1 {
			t.Errorf("tried %q, stored %v", tried, grave.stored)
		}
	})
}
