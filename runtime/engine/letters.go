package engine

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// In a flood of dead letters so many are told one by one, then one more a second; how many others there were follows.
const (
	lettersAtOnce  = 10
	lettersSummary = 10 * time.Second
	longestID      = 128
)

// letters tells in a resource's log of each message that was dead-lettered: which, why, and where it lies.
type letters struct {
	log *slog.Logger
	in  string // the broker object

	mu     sync.Mutex
	room   int
	filled time.Time
	untold int
	timer  *time.Timer // nil while nothing is untold
}

func newLetters(log *slog.Logger, to *plan.Ref) *letters {
	l := &letters{log: log, room: lettersAtOnce, filled: time.Now()}
	if to != nil {
		l.in = to.Name
	}
	return l
}

// graveOf is where p's dead letters lie; nil: it makes none.
func graveOf(p *plan.Plan) *plan.Ref {
	switch {
	case p.Flow != nil:
		return p.Flow.Policy.DeadLetter
	case p.Mailbox != nil:
		return p.Mailbox.DeadLetter
	}
	return nil
}

// dead tells of one. What its receiver said when it rejected the message stays in the letter, for it may quote the message.
func (l *letters) dead(m *message.Message, reason, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if more := int(now.Sub(l.filled) / time.Second); more > 0 {
		l.room, l.filled = min(l.room+more, lettersAtOnce), now
	}
	if l.room == 0 {
		l.untold++
		if l.timer == nil {
			l.timer = time.AfterFunc(lettersSummary, l.flush)
		}
		return
	}
	l.room--
	if reason == string(flow.Rejected) {
		text = "its receiver rejected it; the letter has the receiver's words"
	}
	l.log.Warn("A message was dead-lettered", "id", strings.ToValidUTF8(m.ID[:min(len(m.ID), longestID)], ""), "reason", reason, "error", text, "deadLetter", l.in)
}

// settled tells of those among a flow's messages.
func (l *letters) settled(all []flow.Settled) {
	for i := range all {
		if s := &all[i]; s.Outcome == flow.DeadLettered {
			l.dead(&s.Delivery.Message, s.Reason, s.Err)
		}
	}
}

// flush tells how many were not told one by one.
func (l *letters) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if l.untold > 0 {
		l.log.Warn("More messages were dead-lettered", "messages", l.untold, "deadLetter", l.in)
		l.untold = 0
	}
}
