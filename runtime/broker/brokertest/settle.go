package brokertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

func perMessage(h *Harness) bool {
	return h.Can.Settling(driver.Queue, driver.None) == driver.PerMessage
}

func leases(h *Harness) bool { return perMessage(h) && h.AckWait > 0 }

func settler(h *Harness) bool { return h.Can.Settler }

func positionalGroup(h *Harness) bool {
	return h.Can.Settling(driver.Group, driver.Key) == driver.Positional
}

var settleCases = []testCase{
	{name: "settle: a released message comes again, with a higher count", needs: perMessage, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		publish(t, e.publisher(t, c, q), series("a", 0, 3)...)
		s := e.source(t, c, driver.SourceSpec{Object: q})
		got := receive(t, s, 3)
		settle(t, s, driver.Release, got[1])
		again := receive(t, s, 1)
		want(t, "again", again, got[1].Message.ID)
		if again[0].Identity != got[1].Identity || got[1].Count > 0 && again[0].Count <= got[1].Count {
			t.Fatalf("identity %q then %q, count %d then %d", got[1].Identity, again[0].Identity, got[1].Count, again[0].Count)
		}
		settle(t, s, driver.Done, got[0], again[0], got[2])
		eventually(t, "an empty queue", func() bool { return state(t, c, q).Messages == 0 })
	}},
	{name: "settle: a delayed release keeps its delay", needs: perMessage, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		if !c.Features().NativeDelay {
			return
		}
		q := e.queue(t, c, driver.None)
		publish(t, e.publisher(t, c, q), msg("a", "k"))
		s := e.source(t, c, driver.SourceSpec{Object: q})
		d := receive(t, s, 1)
		const delay = time.Second
		start := time.Now()
		if err := s.Settle(within(t), []driver.Settlement{{D: &d[0], Verb: driver.Release, After: delay}})[0]; err != nil {
			t.Fatal(err)
		}
		receive(t, s, 1)
		if waited := time.Since(start); waited < delay*9/10 {
			t.Fatalf("it came again after %v", waited)
		}
	}},
	{name: "settle: nothing, and nothing twice", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		e.each(t, c, func(t *testing.T, object driver.Ref, spec driver.SourceSpec, _ driver.Settling) {
			publish(t, e.publisher(t, c, object), series("a", 0, 2)...)
			s := e.source(t, c, spec)
			if errs := s.Settle(within(t), nil); len(errs) != 0 {
				t.Fatalf("Settle of nothing: %v", errs)
			}
			if errs := s.Extend(within(t), nil); len(errs) != 0 {
				t.Fatalf("Extend of nothing: %v", errs)
			}
			d := receive(t, s, 1)
			settle(t, s, driver.Done, d...)
			if err := s.Settle(within(t), settlements(driver.Done, d...))[0]; err != nil && !errors.Is(err, driver.ErrStale) {
				t.Fatalf("Settle again: %v", err)
			}
			next := receive(t, s, 1)
			want(t, "next", next, "a0001")
			settle(t, s, driver.Done, next...)
		})
	}},
	{name: "settle: another source's delivery is refused", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		e.each(t, c, func(t *testing.T, object driver.Ref, spec driver.SourceSpec, _ driver.Settling) {
			publish(t, e.publisher(t, c, object), series("a", 0, 1)...)
			s := e.source(t, c, spec)
			d := receive(t, s, 1)
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			s = e.source(t, c, spec)
			if err := s.Settle(within(t), settlements(driver.Done, d...))[0]; !errors.Is(err, driver.ErrStale) && !errors.Is(err, driver.ErrInvalid) {
				t.Fatalf("Settle by another source: %v", err)
			}
			want(t, "still there", receive(t, s, 1), d[0].Message.ID)
		})
	}},
	{name: "settle: a lost consumer's messages come again when their time is up", needs: leases, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.ensure(t, c, driver.Object{Ref: driver.Ref{Kind: driver.Queue}, AckWait: e.AckWait})
		publish(t, e.publisher(t, c, q), series("a", 0, 3)...)
		dying, err := e.Open(within(t), e.Config)
		if err != nil {
			t.Fatal(err)
		}
		s, err := dying.Source(within(t), driver.SourceSpec{Object: q, AckWait: e.AckWait, Window: driver.Window{Messages: 3}})
		if err != nil {
			t.Fatal(err)
		}
		got := receive(t, s, 3)
		for _, d := range got {
			if left := time.Until(d.Deadline); left <= 0 || left > e.AckWait {
				t.Fatalf("the deadline is %v away, ack wait is %v", left, e.AckWait)
			}
		}
		if err := dying.Close(within(t)); err != nil { // without closing the source: nothing is handed back
			t.Fatal(err)
		}
		heir := e.source(t, c, driver.SourceSpec{Object: q, AckWait: e.AckWait})
		again := receive(t, heir, 3)
		settle(t, heir, driver.Done, again...)
	}},
	{name: "settle: an extended message is not delivered again", needs: leases, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.ensure(t, c, driver.Object{Ref: driver.Ref{Kind: driver.Queue}, AckWait: e.AckWait})
		publish(t, e.publisher(t, c, q), msg("kept", "k"), msg("left", "k"))
		s := e.source(t, c, driver.SourceSpec{Object: q, AckWait: e.AckWait})
		got := receive(t, s, 2)
		other := e.source(t, e.conn(t), driver.SourceSpec{Object: q, AckWait: e.AckWait})
		until := got[0].Deadline.Add(2 * e.AckWait)
		came := 0
		for time.Now().Before(until) {
			before := got[0].Deadline
			if err := s.Extend(within(t), []*driver.Delivery{&got[0]})[0]; err != nil {
				t.Fatalf("Extend: %v", err)
			}
			if !got[0].Deadline.After(before) {
				t.Fatalf("Extend moved the deadline from %v to %v", before, got[0].Deadline)
			}
			ctx, cancel := context.WithTimeout(context.Background(), e.AckWait/4)
			var into [2]driver.Delivery
			for range 2 {
				n, err := other.Receive(ctx, into[:])
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range into[:n] {
					if d.Message.ID == "kept" {
						t.Fatal("the extended message was delivered again")
					}
					came++
					settle(t, other, driver.Done, d)
				}
			}
			cancel()
		}
		if came != 1 {
			t.Fatalf("the message that was left came %d times", came)
		}
		settle(t, s, driver.Done, got[0])
		// What was left is another's by now: this source can neither settle nor extend it.
		if err := s.Settle(within(t), settlements(driver.Done, got[1]))[0]; !errors.Is(err, driver.ErrStale) || c.Class(err) != driver.Stale {
			t.Fatalf("Settle after the deadline: %v", err)
		}
		if err := s.Extend(within(t), []*driver.Delivery{&got[1]})[0]; !errors.Is(err, driver.ErrStale) {
			t.Fatalf("Extend after the deadline: %v", err)
		}
	}},
	{name: "settle: any connection settles a handle", needs: settler, run: func(t *testing.T, e *env) {
		for _, o := range []driver.Ordering{driver.None, driver.Strict} {
			c := e.conn(t)
			q := e.queue(t, c, o)
			publish(t, e.publisher(t, c, q), series("a", 0, 3)...)
			s := e.source(t, c, driver.SourceSpec{Object: q, Ordering: o, OnDemand: true})
			other := e.conn(t).Settler()
			restore := func(d driver.Delivery) *driver.Delivery {
				back, err := other.Restore(q, append([]byte(nil), d.Handle...))
				if err != nil {
					t.Fatal(err)
				}
				if back.Identity != d.Identity || back.Count != d.Count {
					t.Fatalf("restored %+v, it was %+v", back, d)
				}
				return &back
			}
			one := restore(receive(t, s, 1)[0])
			if err := other.Extend(within(t), []*driver.Delivery{one})[0]; err != nil {
				t.Fatal(err)
			}
			if err := other.Settle(within(t), []driver.Settlement{{D: one}})[0]; err != nil {
				t.Fatal(err)
			}
			two := receive(t, s, 1)[0]
			want(t, "second", []driver.Delivery{two}, "a0001")
			if err := other.Settle(within(t), []driver.Settlement{{D: restore(two), Verb: driver.Release}})[0]; err != nil {
				t.Fatal(err)
			}
			rest := map[string]bool{}
			for range 2 {
				d := receive(t, s, 1)[0]
				rest[d.Message.ID] = true
				if err := other.Settle(within(t), []driver.Settlement{{D: restore(d)}})[0]; err != nil {
					t.Fatal(err)
				}
			}
			if !rest["a0001"] || !rest["a0002"] {
				t.Fatalf("then came %v", rest)
			}
			eventually(t, "an empty queue", func() bool { return state(t, c, q).Messages == 0 })
		}
	}},
	{name: "settle: a forged or foreign handle is refused without asking the broker", needs: settler, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q, other := e.queue(t, c, driver.None), e.queue(t, c, driver.None)
		publish(t, e.publisher(t, c, q), msg("a", "k"))
		d := receive(t, e.source(t, c, driver.SourceSpec{Object: q}), 1)[0]
		bad := [][]byte{nil, {}, []byte("x"), []byte(q.Name), append([]byte("x"), d.Handle...), append(append([]byte(nil), d.Handle...), " \r\nPUB x 0"...), append([]byte(nil), d.Handle[:len(d.Handle)/2]...)}
		for _, h := range bad {
			if _, err := c.Settler().Restore(q, h); !errors.Is(err, driver.ErrInvalid) || c.Class(err) != driver.Invalid {
				t.Errorf("Restore(%q): %v", h, err)
			}
		}
		if _, err := c.Settler().Restore(other, d.Handle); !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("Restore with another queue's handle: %v", err)
		}
	}},
	{name: "settle: a reader that was replaced settles nothing more", needs: func(h *Harness) bool { return h.Can.Fenced }, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := e.topic(t, c)
		g := e.group(t, c, topic, driver.Key)
		publish(t, e.publisher(t, c, topic), series("a", 0, 10)...)
		lost := make(chan []driver.Claim, 1)
		spec := of(g, driver.Key)
		spec.Lost = func(cs []driver.Claim) { lost <- cs }
		zombie := e.source(t, e.conn(t), spec)
		old := receive(t, zombie, 10)
		settle(t, zombie, driver.Done, old[1])
		heir := e.source(t, c, of(g, driver.Key))
		got := receive(t, heir, 8)
		want(t, "the heir", got, idsOf(series("a", 2, 8))...)
		if got[0].Claim.Epoch <= old[0].Claim.Epoch {
			t.Fatalf("epoch %d follows %d", got[0].Claim.Epoch, old[0].Claim.Epoch)
		}
		err := zombie.Settle(within(t), settlements(driver.Done, old[9]))[0]
		if !errors.Is(err, driver.ErrStale) || c.Class(err) != driver.Stale {
			t.Fatalf("the replaced reader's Settle: %v", err)
		}
		select {
		case cs := <-lost:
			if len(cs) != 1 || cs[0] != old[0].Claim {
				t.Fatalf("Lost(%v), the claim was %v", cs, old[0].Claim)
			}
		case <-within(t).Done():
			t.Fatal("Lost was not called")
		}
		var into [4]driver.Delivery
		if n, err := zombie.Receive(within(t), into[:]); n != 0 || !errors.Is(err, driver.ErrStale) {
			t.Fatalf("the replaced reader's Receive: %d, %v", n, err)
		}
		if backlog := state(t, c, g).Messages; backlog != 8 {
			t.Fatalf("the backlog is %d, want 8", backlog)
		}
		settle(t, heir, driver.Done, got...)
		// A delivery of an old claim means nothing to the present one.
		if err := heir.Settle(within(t), settlements(driver.Done, old[3]))[0]; !errors.Is(err, driver.ErrStale) {
			t.Fatalf("a delivery of the old claim: %v", err)
		}
	}},
}
