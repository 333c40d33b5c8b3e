package engine

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// lines are what was logged.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(p))
	return len(p), nil
}

func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.all = nil }()
	return l.all
}

func TestDeadLettersAreToldOneByOneAndAFloodInNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		l := newLetters(slog.New(slog.NewTextHandler(&out, nil)).With("resource", "Subscription/default/s"), &plan.Ref{Broker: "default/main", Name: "s-dead"})
		die := func(n int, outcome flow.Outcome) {
			for i := range n {
				d := driver.Delivery{Message: message.Message{ID: fmt.Sprint("m", i), Data: []byte("secret")}}
				l.settled([]flow.Settled{{Delivery: &d, Outcome: outcome, Reason: "Terminal", Err: "h answered 400 Bad Request"}})
			}
		}

		die(3, flow.Done)
		if got := out.take(); len(got) > 0 {
			t.Fatalf("told of what was delivered: %q", got)
		}
		die(1, flow.DeadLettered)
		got := strings.Join(out.take(), "\n")
		for _, want := range []string{"level=WARN", "resource=Subscription/default/s", "id=m0", "reason=Terminal", `error="h answered 400 Bad Request"`, "deadLetter=s-dead"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q lacks %s", got, want)
			}
		}
		if strings.Contains(got, "secret") {
			t.Errorf("the payload is in %q", got)
		}

		die(1000, flow.DeadLettered)
		if n := len(out.take()); n != lettersAtOnce-1 {
			t.Errorf("%d lines of a flood at once, want %d", n, lettersAtOnce-1)
		}
		time.Sleep(lettersSummary)
		synctest.Wait()
		if got := out.take(); len(got) != 1 || !strings.Contains(got[0], fmt.Sprintf("messages=%d", 1000-lettersAtOnce+1)) {
			t.Errorf("the summary is %q", got)
		}

		die(lettersAtOnce+1, flow.DeadLettered)
		l.flush()
		if got := out.take(); len(got) != lettersAtOnce+1 || !strings.Contains(got[lettersAtOnce], "messages=1") {
			t.Errorf("at the end: %q", got)
		}

		time.Sleep(time.Second)
		l.dead(&message.Message{ID: strings.Repeat("i", 1000)}, "Rejected", "bad: the payload")
		if got := out.take()[0]; len(got) > 600 || strings.Contains(got, "the payload") || !strings.Contains(got, "rejected it") {
			t.Errorf("of a rejected one: %q", got)
		}
	})
}
