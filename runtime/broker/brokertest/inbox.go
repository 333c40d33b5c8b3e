package brokertest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

func inbox(h *Harness) bool { return h.Can.Inbox }

func (e *env) inbox(t *testing.T, c driver.Conn, namespace string) driver.Inbox {
	t.Helper()
	in, err := c.Inbox(within(t), namespace)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(within(t)); err != nil {
			t.Error(err)
		}
	})
	return in
}

func replies(t *testing.T, in driver.Inbox, n int) []message.Message {
	t.Helper()
	got := make([]message.Message, n)
	have := 0
	for have < n {
		k, err := in.Receive(within(t), got[have:])
		if err != nil || k == 0 {
			t.Fatalf("Receive of the inbox: %d, %v (after %d of %d)", k, err, have, n)
		}
		have += k
	}
	return got
}

var inboxCases = []testCase{
	{name: "inbox: replies from other connections arrive, from the moment it is open", needs: inbox, run: func(t *testing.T, e *env) {
		c, other := e.conn(t), e.conn(t)
		for i := range 20 {
			in := e.inbox(t, c, "default")
			m := msg(fmt.Sprint("reply", i), "k")
			m.Attributes = []message.Attribute{{Name: message.Correlation, Value: "7 %"}}
			if err := other.Reply(within(t), "default", in.Address(), m); err != nil {
				t.Fatalf("Reply: %v", err)
			}
			same(t, replies(t, in, 1)[0], m)
		}
	}},
	{name: "inbox: inboxes are apart", needs: inbox, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		one, two := e.inbox(t, c, "default"), e.inbox(t, e.conn(t), "default")
		if one.Address() == two.Address() {
			t.Fatal("two inboxes have one address")
		}
		for i := range 50 {
			in := one
			if i%2 == 1 {
				in = two
			}
			if err := c.Reply(within(t), "default", in.Address(), msg(fmt.Sprint(i), "")); err != nil {
				t.Fatal(err)
			}
		}
		for i, m := range replies(t, one, 25) {
			if m.ID != fmt.Sprint(2*i) {
				t.Fatalf("reply %d is %s", i, m.ID)
			}
		}
		replies(t, two, 25)
		ctx, cancel := context.WithTimeout(context.Background(), quiet)
		defer cancel()
		if n, err := one.Receive(ctx, make([]message.Message, 1)); n != 0 || err != nil {
			t.Fatalf("one too many: %d, %v", n, err)
		}
	}},
	{name: "inbox: a reply address that is forged is refused", needs: inbox, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		in := e.inbox(t, c, "default")
		q := e.queue(t, c, driver.None)
		for _, address := range []string{"", q.Name, in.Address() + " x", in.Address() + ".>", "*", in.Address()[:len(in.Address())/3]} {
			if err := c.Reply(within(t), "default", address, msg("a", "")); !errors.Is(err, driver.ErrInvalid) {
				t.Errorf("Reply to %q: %v", address, err)
			}
		}
		if err := c.Reply(within(t), "other", in.Address(), msg("a", "")); !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("Reply to another namespace's inbox: %v", err)
		}
		if _, err := c.Inbox(within(t), "a.>"); !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("Inbox of a namespace that is none: %v", err)
		}
	}},
	{name: "inbox: a requester that has gone is known to be gone", needs: inbox, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		in := e.inbox(t, e.conn(t), "default")
		if err := in.Close(within(t)); err != nil {
			t.Fatal(err)
		}
		if n, err := in.Receive(within(t), make([]message.Message, 1)); n != 0 || !errors.Is(err, driver.ErrDrained) {
			t.Fatalf("Receive of a closed inbox: %d, %v", n, err)
		}
		eventually(t, "the broker's knowledge", func() bool {
			err := c.Reply(within(t), "default", in.Address(), msg("late", ""))
			if err != nil && (!errors.Is(err, driver.ErrGone) || c.Class(err) != driver.Stale) {
				t.Fatalf("Reply to a closed inbox: %v, class %v", err, c.Class(err))
			}
			return err != nil
		})
	}},
}
