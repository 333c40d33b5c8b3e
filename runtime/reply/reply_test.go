package reply_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/reply"
)

// post is a broker's replies in memory: inboxes that can be lost on cue.
type post struct {
	mu      sync.Mutex
	away    bool
	opened  int
	inboxes map[string]*box
}

type box struct {
	address string
	in      chan message.Message
	lost    chan struct{}
}

func (p *post) open(context.Context) (driver.Inbox, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return nil, errors.New("connection refused")
	}
	p.opened++
	b := &box{address: fmt.Sprintf("inbox-%d", p.opened), in: make(chan message.Message, 100), lost: make(chan struct{})}
	if p.inboxes == nil {
		p.inboxes = map[string]*box{}
	}
	p.inboxes[b.address] = b
	return b, nil
}

func (p *post) send(_ context.Context, namespace, address string, m message.Message) error {
	if namespace != "default" {
		return driver.ErrInvalid
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.inboxes[address]
	if b == nil {
		return driver.ErrGone
	}
	b.in <- m
	return nil
}

func (b *box) Address() string             { return b.address }
func (b *box) Close(context.Context) error { return nil }
func (b *box) Receive(ctx context.Context, into []message.Message) (int, error) {
	select {
	case into[0] = <-b.in:
		return 1, nil
	case <-b.lost:
		return 0, errors.New("lost")
	case <-ctx.Done():
		return 0, nil
	}
}

func newDesk(t *testing.T, p *post) (*reply.Desk, *reply.Sender) {
	t.Helper()
	d := reply.NewDesk(p.open, slog.New(slog.DiscardHandler))
	if !p.away {
		if err := d.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return d, reply.NewSender("default", p.send)
}

func expect(t *testing.T, d *reply.Desk, want reply.Kind) (*reply.Call, message.Message) {
	t.Helper()
	m := message.Message{ID: "1", Source: "/s", Type: "t"}
	c, err := d.Expect(reply.Request{Target: "Mailbox/default/m", Source: m.Source, ID: m.ID, Want: want}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	stamped := c.Stamp(m)
	return c, stamped
}

func answer(data string, status int) reply.Answer {
	return reply.Answer{Kind: reply.Reply, Status: status, Message: message.Message{ID: "r", Source: "/r", Type: "t", DataContentType: "text/plain", Data: []byte(data)}}
}

func TestTheFirstReplyWinsAndOthersAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDesk(t, &post{})
		defer d.Close()
		call, request := expect(t, d, reply.Reply)
		for _, data := range []string{"first", "second"} {
			if err := s.Reply(t.Context(), &request, answer(data, 422)); err != nil {
				t.Fatal(err)
			}
		}
		a, err := call.Wait(t.Context())
		if err != nil || string(a.Message.Data) != "first" || a.Status != 422 || a.Message.DataContentType != "text/plain" || len(a.Message.Attributes) != 0 {
			t.Fatalf("got %v, %v", a, err)
		}
		call.Close()

		call, request = expect(t, d, reply.Reply)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := call.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		call.Close()
		call.Close()
		if err := s.Reply(t.Context(), &request, answer("late", 0)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got, want := d.Stats(), (reply.Stats{Delivered: 1, Late: 1, Duplicate: 1}); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		if got := d.Unheard("Mailbox/default/m"); got != (reply.Unheard{Late: 1, Duplicate: 1}) || d.Unheard("Mailbox/default/other") != (reply.Unheard{}) {
			t.Fatalf("got %+v", got)
		}
	})
}

func TestARepeatedRequestGetsTheSameReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDesk(t, &post{})
		defer d.Close()
		first, request := expect(t, d, reply.Reply)
		second, _ := expect(t, d, reply.Reply)
		if first.Joined || !second.Joined {
			t.Fatalf("joined: %v, %v", first.Joined, second.Joined)
		}
		first.Close() // the second goes on waiting
		if err := s.Reply(t.Context(), &request, answer("x", 0)); err != nil {
			t.Fatal(err)
		}
		if a, err := second.Wait(t.Context()); err != nil || string(a.Message.Data) != "x" {
			t.Fatalf("got %v, %v", a, err)
		}
		second.Close()
		if third, _ := expect(t, d, reply.Reply); third.Joined {
			t.Fatal("nobody waits any more: a repeated request is a request of its own")
		}
	})
}

func TestWhoGaveUpAndAsksAgainGetsTheAnswerToTheFirstRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDesk(t, &post{})
		defer d.Close()
		first, request := expect(t, d, reply.Reply)
		first.Close()
		again, _ := expect(t, d, reply.Reply)
		defer again.Close()
		if err := s.Reply(t.Context(), &request, answer("x", 0)); err != nil {
			t.Fatal(err)
		}
		if a, err := again.Wait(t.Context()); err != nil || string(a.Message.Data) != "x" {
			t.Fatalf("got %v, %v", a, err)
		}
	})
}

func TestTheSameEventToAnotherTargetIsAnotherRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDesk(t, &post{})
		defer d.Close()
		m := message.Message{ID: "1", Source: "/s", Type: "t"}
		calls := map[string]*reply.Call{}
		for _, target := range []string{"a", "b"} {
			c, err := d.Expect(reply.Request{Target: target, Source: m.Source, ID: m.ID, Want: reply.Reply}, time.Time{})
			if err != nil || c.Joined {
				t.Fatalf("joined %v, %v", c.Joined, err)
			}
			t.Cleanup(func() { c.Close() })
			calls[target] = c
		}
		for _, target := range []string{"b", "a"} {
			request := calls[target].Stamp(m)
			if err := s.Reply(t.Context(), &request, answer("of "+target, 0)); err != nil {
				t.Fatal(err)
			}
		}
		for target, c := range calls {
			if a, err := c.Wait(t.Context()); err != nil || string(a.Message.Data) != "of "+target {
				t.Errorf("%s got %q, %v", target, a.Message.Data, err)
			}
			c.Close()
		}
	})
}

func TestARepeatedRequestKeepsItsExpiryUntilItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := newDesk(t, &post{})
		defer d.Close()
		ask := func(timeout time.Duration) message.Message {
			c, err := d.Expect(reply.Request{Source: "/s", ID: "1", Want: reply.Reply}, time.Now().Add(timeout))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			return c.Stamp(message.Message{ID: "1", Source: "/s", Type: "t"}.With(message.ExpiryTime, "2999-01-01T00:00:00Z"))
		}
		first := ask(time.Minute)
		time.Sleep(59 * time.Second) // virtual, as everywhere here
		again := ask(time.Minute)
		if first.DedupID() != again.DedupID() {
			t.Errorf("a repetition is another message: %v, %v", first.Attributes, again.Attributes)
		}
		time.Sleep(time.Second)
		anew := ask(time.Minute)
		if first.DedupID() == anew.DedupID() {
			t.Errorf("asked anew after the expiry, it is the expired message: %v", anew.Attributes)
		}
		at, err := time.Parse(time.RFC3339, anew.Attribute(message.ExpiryTime))
		if err != nil || !at.Equal(time.Now().Add(time.Minute)) {
			t.Errorf("expires %s, %v", at, err)
		}
	})
}

func TestARequestThatCannotBeSentEndsAllItsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDesk(t, &post{})
		defer d.Close()
		first, _ := expect(t, d, reply.Reply)
		second, _ := expect(t, d, reply.Reply)
		if !first.Close() {
			t.Error("the second waits still")
		}
		broken := errors.New("not stored")
		first.Fail(broken)
		if _, err := second.Wait(t.Context()); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		third, request := expect(t, d, reply.Reply)
		if third.Joined {
			t.Error("joined a request that was never sent")
		}
		if second.Close() {
			t.Error("nobody waits for what failed")
		}
		if err := s.Reply(t.Context(), &request, answer("x", 0)); err != nil {
			t.Fatal(err)
		}
		if a, err := third.Wait(t.Context()); err != nil || string(a.Message.Data) != "x" {
			t.Errorf("got %v, %v", a, err)
		}
		third.Fail(broken) // too late: it was answered
		if _, err := third.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		third.Close()
	})
}

func TestOnlyWhatIsWaitedForIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s := newDesk(t, &post{})
		defer d.Close()
		for _, c := range []struct{ want, send, got reply.Kind }{
			{reply.Reply, reply.Processed, ""}, {reply.Processed, reply.Reply, ""},
			{reply.Processed, reply.Processed, reply.Processed}, {reply.Reply, reply.Failed, reply.Failed}, {reply.Processed, reply.Failed, reply.Failed},
		} {
			call, request := expect(t, d, c.want)
			if reply.Wants(&request) != c.want {
				t.Fatalf("wants %s", reply.Wants(&request))
			}
			a := answer("x", 0)
			a.Kind, a.Reason = c.send, "Rejected"
			if err := s.Reply(t.Context(), &request, a); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			got, _ := call.Wait(ctx)
			if got.Kind != c.got || c.got == reply.Failed && got.Reason != "Rejected" {
				t.Errorf("%s wanted, %s sent: got %+v", c.want, c.send, got)
			}
			cancel()
			call.Close()
		}
		if got := d.Stats(); got.Malformed != 0 || got.Late != 0 {
			t.Fatalf("got %+v", got)
		}
	})
}

func TestNobodyWaitsOrTheRequesterIsGone(t *testing.T) {
	s := reply.NewSender("default", (&post{}).send)
	m := message.Message{ID: "1", Source: "/s", Type: "t"}
	if err := s.Reply(t.Context(), &m, answer("x", 0)); err != nil {
		t.Fatal(err)
	}
	m = m.With(message.ReplyTo, "inbox-9").With(message.Correlation, "rABC")
	if err := s.Reply(t.Context(), &m, answer("x", 0)); err != nil {
		t.Fatal(err)
	}
	forged := reply.NewSender("other", (&post{}).send)
	if err := forged.Reply(t.Context(), &m, answer("x", 0)); !errors.Is(err, driver.ErrInvalid) {
		t.Fatalf("got %v", err)
	}
	if got := s.Stats(); got != (reply.SenderStats{Gone: 1}) {
		t.Fatalf("got %+v", got)
	}
}

func TestTheInboxIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{away: true}
		d, s := newDesk(t, p)
		defer d.Close()
		if _, err := d.Expect(reply.Request{Source: "/s", ID: "1", Want: reply.Reply}, time.Time{}); !errors.Is(err, reply.ErrAway) {
			t.Fatalf("got %v", err)
		}
		p.mu.Lock()
		p.away = false
		p.mu.Unlock()
		if err := d.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		close(p.inboxes["inbox-1"].lost)
		p.mu.Unlock()
		synctest.Wait()
		if err := d.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		call, request := expect(t, d, reply.Processed)
		defer call.Close()
		if err := s.Reply(t.Context(), &request, reply.Answer{Kind: reply.Processed}); err != nil {
			t.Fatal(err)
		}
		if a, err := call.Wait(t.Context()); err != nil || a.Kind != reply.Processed {
			t.Fatalf("got %v, %v", a, err)
		}
	})
}
