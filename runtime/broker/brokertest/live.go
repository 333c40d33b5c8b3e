package brokertest

import (
	"errors"
	"testing"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

func live(h *Harness) bool { return h.Can.Live }

// reader opens a live reader of a topic.
func (e *env) reader(t *testing.T, c driver.Conn, topic driver.Ref, l driver.Live) driver.Source {
	t.Helper()
	return e.source(t, c, driver.SourceSpec{Object: topic, Live: &l})
}

var (
	fromNow   = driver.Live{Start: driver.Start{Position: driver.Latest}}
	fromFirst = driver.Live{Start: driver.Start{Position: driver.Earliest}}
)

var liveCases = []testCase{
	{name: "live: each reader gets everything that is stored after it was opened, and settles nothing", needs: live, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := e.topic(t, c)
		p := e.publisher(t, c, topic)
		publish(t, p, series("old", 0, 5)...)
		one, two := e.reader(t, c, topic, fromNow), e.reader(t, e.conn(t), topic, fromNow)
		publish(t, p, series("a", 0, 20)...)
		for _, s := range []driver.Source{one, two} {
			got := receive(t, s, 20)
			want(t, "live", got, idsOf(series("a", 0, 20))...)
			settle(t, s, driver.Done, got[3]) // changes nothing
			nothing(t, s)
		}
		all := e.reader(t, c, topic, fromFirst)
		want(t, "from the first", receive(t, all, 25), append(idsOf(series("old", 0, 5)), idsOf(series("a", 0, 20))...)...)
	}},
	{name: "live: a reader resumes behind what it has seen", needs: live, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := e.topic(t, c)
		p := e.publisher(t, c, topic)
		publish(t, p, series("a", 0, 10)...)
		s := e.reader(t, c, topic, fromFirst)
		if s.Settling() != driver.Positional {
			return // without positions there is nothing to resume behind
		}
		got := receive(t, s, 6)
		after := driver.Live{After: []driver.Mark{{Claim: got[5].Claim.Name, Position: got[5].Position, Stored: got[5].Stored}}}
		want(t, "resumed", receive(t, e.reader(t, e.conn(t), topic, after), 4), idsOf(series("a", 6, 4))...)
	}},
	{name: "live: a reader whose position is gone is told, and never jumps", needs: func(h *Harness) bool { return h.Can.Live && h.Can.Expire }, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := e.ensure(t, c, driver.Object{Ref: driver.Ref{Kind: driver.Topic}, MaxMessages: 10})
		p := e.publisher(t, c, topic)
		publish(t, p, series("a", 0, 10)...)
		s := e.reader(t, c, topic, fromFirst)
		if s.Settling() != driver.Positional {
			return
		}
		got := receive(t, s, 10)
		publish(t, p, series("b", 0, 30)...) // 20 of them are deleted unread
		after := driver.Live{After: []driver.Mark{{Claim: got[9].Claim.Name, Position: got[9].Position, Stored: got[9].Stored}}}
		late, err := c.Source(within(t), driver.SourceSpec{Object: topic, Live: &after, Window: driver.Window{Messages: 10, Bytes: 1 << 20}})
		if err == nil {
			var into [4]driver.Delivery
			_, err = late.Receive(within(t), into[:])
			if err := late.Close(within(t)); err != nil {
				t.Fatal(err)
			}
		}
		if !errors.Is(err, driver.ErrPositionLost) {
			t.Fatalf("got %v", err)
		}
		want(t, "anew", receive(t, e.reader(t, c, topic, fromFirst), 10), idsOf(series("b", 20, 10))...)
	}},
	{name: "live: a reader whose object was made anew is told, however many messages it has", needs: live, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := e.topic(t, c)
		publish(t, e.publisher(t, c, topic), series("a", 0, 5)...)
		s := e.reader(t, c, topic, fromFirst)
		if s.Settling() != driver.Positional {
			return
		}
		got := receive(t, s, 5)
		if got[4].Stored.IsZero() {
			return // the broker does not tell one message from another that has its position
		}
		if err := c.Admin().Delete(within(t), topic, owner, false); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Admin().Ensure(within(t), driver.Object{Ref: topic, Owner: owner}); err != nil {
			t.Fatal(err)
		}
		publish(t, e.publisher(t, c, topic), series("b", 0, 10)...)
		after := driver.Live{After: []driver.Mark{{Claim: got[4].Claim.Name, Position: got[4].Position, Stored: got[4].Stored}}}
		_, err := c.Source(within(t), driver.SourceSpec{Object: topic, Live: &after, Window: driver.Window{Messages: 10, Bytes: 1 << 20}})
		if !errors.Is(err, driver.ErrPositionLost) {
			t.Fatalf("got %v", err)
		}
	}},
	{name: "live: a connection that heals itself says when its server is away", needs: outage, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		m, ok := c.(driver.Monitor)
		if !ok {
			return // it does not heal itself: Done is closed instead
		}
		if err := m.Away(); err != nil {
			t.Fatalf("away before it is: %v", err)
		}
		e.Stop(t)
		eventually(t, "it to be away", func() bool { return m.Away() != nil })
		if class := c.Class(m.Away()); class != driver.Transient {
			t.Errorf("class %v", class)
		}
		e.Start(t)
		eventually(t, "it to be back", func() bool { return m.Away() == nil })
	}},
}
