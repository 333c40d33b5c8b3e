package brokertest

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// orderings of groups.
var orderings = []driver.Ordering{driver.None, driver.Key, driver.Strict}

func replay(h *Harness) bool { return h.Can.Replay }

func (e *env) groupAt(t *testing.T, c driver.Conn, topic driver.Ref, o driver.Ordering, start driver.Start) driver.Ref {
	t.Helper()
	return e.ensure(t, c, driver.Object{Ref: driver.Ref{Kind: driver.Group, Of: topic.Name}, Ordering: o, Start: start})
}

var positionCases = []testCase{
	{name: "position: Latest receives what is published the moment after Ensure", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		for _, o := range orderings {
			topic := e.topic(t, c)
			p := e.publisher(t, c, topic)
			publish(t, p, series("old", 0, 5)...)
			g := e.groupAt(t, c, topic, o, driver.Start{Position: driver.Latest})
			publish(t, p, series("new", 0, 5)...) // before any source is open
			s := e.source(t, c, of(g, o))
			want(t, string(o), receive(t, s, 5), idsOf(series("new", 0, 5))...)
			nothing(t, s)
		}
	}},
	{name: "position: Earliest and Time", needs: replay, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		for _, o := range orderings {
			topic := e.topic(t, c)
			p := e.publisher(t, c, topic)
			early := e.groupAt(t, c, topic, o, driver.Start{Position: driver.Earliest}) // of an empty topic
			publish(t, p, series("old", 0, 5)...)
			before := time.Now()
			for !time.Now().After(before.Add(2 * time.Millisecond)) { // clocks of brokers have milliseconds
			}
			at := time.Now()
			publish(t, p, series("new", 0, 5)...)
			all := append(idsOf(series("old", 0, 5)), idsOf(series("new", 0, 5))...)
			for _, c2 := range []struct {
				g    driver.Ref
				want []string
			}{
				{early, all},
				{e.groupAt(t, c, topic, o, driver.Start{Position: driver.Earliest}), all},
				{e.groupAt(t, c, topic, o, driver.Start{Position: driver.AtTime, Time: at}), all[5:]},
				{e.groupAt(t, c, topic, o, driver.Start{Position: driver.AtTime, Time: at.Add(-time.Hour)}), all},
				{e.groupAt(t, c, topic, o, driver.Start{Position: driver.AtTime, Time: time.Now().Add(time.Hour)}), nil},
			} {
				s := e.source(t, c, of(c2.g, o))
				want(t, string(o), receive(t, s, len(c2.want)), c2.want...)
				nothing(t, s)
			}
		}
	}},
	{name: "position: an existing one wins over a start", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		for _, o := range orderings {
			topic := e.topic(t, c)
			p := e.publisher(t, c, topic)
			g := e.groupAt(t, c, topic, o, driver.Start{Position: driver.Latest})
			publish(t, p, series("a", 0, 6)...)
			s := e.source(t, c, of(g, o))
			got := receive(t, s, 6)
			settle(t, s, driver.Done, got[:3]...)
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			object := driver.Object{Ref: g, Owner: owner, Ordering: o, AckWait: time.Minute, Start: driver.Start{Position: driver.Earliest}}
			if out, err := c.Admin().Ensure(within(t), object); err != nil || out != driver.Unchanged {
				t.Fatalf("Ensure again: %v, %v", out, err)
			}
			again := receive(t, e.source(t, c, of(g, o)), 3)
			if o == driver.None { // promises no order
				slices.SortFunc(again, func(a, b driver.Delivery) int { return strings.Compare(a.Message.ID, b.Message.ID) })
			}
			want(t, string(o), again, "a0003", "a0004", "a0005")
		}
	}},
	{name: "position: without one a source does not open", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := e.topic(t, c)
		for _, o := range orderings {
			_, err := c.Source(within(t), driver.SourceSpec{Object: topic, Group: "nobody", Ordering: o})
			if !errors.Is(err, driver.ErrPositionLost) || c.Class(err) != driver.Missing {
				t.Errorf("%s: Source without a position: %v", o, err)
			}
			_, err = c.Source(within(t), driver.SourceSpec{Object: driver.Ref{Kind: driver.Topic, Name: e.name}, Group: "nobody", Ordering: o})
			if !errors.Is(err, driver.ErrMissing) || c.Class(err) != driver.Missing {
				t.Errorf("%s: Source of a topic that is not there: %v", o, err)
			}
		}
	}},
	{name: "position: lost to retention it stops and never jumps", needs: func(h *Harness) bool { return h.Can.Expire }, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		for _, o := range orderings {
			topic := e.ensure(t, c, driver.Object{Ref: driver.Ref{Kind: driver.Topic}, MaxMessages: 10})
			p := e.publisher(t, c, topic)
			g := e.groupAt(t, c, topic, o, driver.Start{Position: driver.Latest})
			publish(t, p, series("a", 0, 10)...)
			s := e.source(t, c, of(g, o))
			settle(t, s, driver.Done, receive(t, s, 10)[:10]...)
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			publish(t, p, series("b", 0, 30)...) // 20 of them are deleted unread
			if _, err := c.Source(within(t), of(g, o)); !errors.Is(err, driver.ErrPositionLost) || c.Class(err) != driver.Missing {
				t.Fatalf("%s: Source with a lost position: %v", o, err)
			}
			if err := c.Admin().Seek(within(t), g, driver.Start{Position: driver.Earliest}); err != nil {
				t.Fatalf("%s: Seek: %v", o, err)
			}
			want(t, string(o), receive(t, e.source(t, c, of(g, o)), 10), idsOf(series("b", 20, 10))...)
		}
	}},
	{name: "position: lost under a reader it stops and never jumps", needs: func(h *Harness) bool { return h.Can.Expire && positionalGroup(h) }, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := e.ensure(t, c, driver.Object{Ref: driver.Ref{Kind: driver.Topic}, MaxMessages: 50})
		p := e.publisher(t, c, topic)
		g := e.groupAt(t, c, topic, driver.Key, driver.Start{Position: driver.Latest})
		spec := of(g, driver.Key)
		spec.Window = driver.Window{Messages: 8, Bytes: 1 << 20}
		s := e.source(t, c, spec)
		publish(t, p, series("a", 0, 50)...)
		got := receive(t, s, 1)
		publish(t, p, series("b", 0, 200)...)
		next := 1
		for {
			into := make([]driver.Delivery, 4)
			n, err := s.Receive(within(t), into)
			for _, d := range into[:n] {
				if d.Message.ID != series("a", next, 1)[0].ID {
					t.Fatalf("after %d messages in order came %s", next, d.Message.ID)
				}
				next++
			}
			if err != nil {
				if !errors.Is(err, driver.ErrPositionLost) {
					t.Fatalf("Receive: %v", err)
				}
				break
			}
			if n == 0 {
				t.Fatal("Receive waits although the position is lost")
			}
		}
		if err := s.Settle(within(t), settlements(driver.Done, got...))[0]; err != nil && !errors.Is(err, driver.ErrStale) {
			t.Fatalf("Settle: %v", err)
		}
	}},
	{name: "position: Seek moves it, but not under a reader", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		for _, o := range orderings {
			topic := e.topic(t, c)
			p := e.publisher(t, c, topic)
			g := e.groupAt(t, c, topic, o, driver.Start{Position: driver.Latest})
			publish(t, p, series("a", 0, 5)...)
			s := e.source(t, c, of(g, o))
			settle(t, s, driver.Done, receive(t, s, 5)...)
			nothing(t, s)
			if err := c.Admin().Seek(within(t), g, driver.Start{Position: driver.Latest}); !errors.Is(err, driver.ErrBusy) {
				t.Fatalf("%s: Seek under a reader: %v", o, err)
			}
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			expect := 0
			if e.Can.Replay {
				if err := c.Admin().Seek(within(t), g, driver.Start{Position: driver.Earliest}); err != nil {
					t.Fatalf("%s: Seek: %v", o, err)
				}
				expect = 5
			}
			s = e.source(t, c, of(g, o))
			want(t, string(o), receive(t, s, expect), idsOf(series("a", 0, expect))...)
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			if err := c.Admin().Seek(within(t), g, driver.Start{Position: driver.Latest}); err != nil {
				t.Fatalf("%s: Seek: %v", o, err)
			}
			publish(t, p, msg("last", "a"))
			s = e.source(t, c, of(g, o))
			want(t, string(o), receive(t, s, 1), "last")
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			if err := c.Admin().Seek(within(t), driver.Ref{Kind: driver.Group, Name: "nobody", Of: topic.Name}, driver.Start{Position: driver.Latest}); !errors.Is(err, driver.ErrPositionLost) {
				t.Fatalf("%s: Seek of a group that is not there: %v", o, err)
			}
		}
	}},
	{name: "position: a changed ordering keeps it", needs: positionalGroup, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := e.topic(t, c)
		p := e.publisher(t, c, topic)
		g := e.groupAt(t, c, topic, driver.None, driver.Start{Position: driver.Latest})
		publish(t, p, series("a", 0, 9)...)
		for i, o := range []driver.Ordering{driver.None, driver.Key, driver.None, driver.Strict, driver.Key} {
			object := driver.Object{Ref: g, Owner: owner, Ordering: o, AckWait: time.Minute, Start: driver.Start{Position: driver.Earliest}}
			if _, err := c.Admin().Ensure(within(t), object); err != nil {
				t.Fatal(err)
			}
			s := e.source(t, c, of(g, o))
			d := receive(t, s, 1)
			want(t, string(o), d, series("a", i, 1)[0].ID)
			settle(t, s, driver.Done, d...)
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
		}
	}},
}
