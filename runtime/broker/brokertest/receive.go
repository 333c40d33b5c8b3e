package brokertest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// kinds are the ways of reading.
var kinds = []struct {
	kind     driver.Kind
	ordering driver.Ordering
}{
	{driver.Queue, driver.None}, {driver.Queue, driver.Key}, {driver.Queue, driver.Strict},
	{driver.Topic, driver.None}, {driver.Topic, driver.Key}, {driver.Topic, driver.Strict},
}

// each runs f for every way of reading, with the object, and a source spec for it.
func (e *env) each(t *testing.T, c driver.Conn, f func(t *testing.T, object driver.Ref, spec driver.SourceSpec, settling driver.Settling)) {
	for _, k := range kinds {
		t.Run(string(k.kind)+"_"+string(k.ordering), func(t *testing.T) {
			if k.kind == driver.Queue {
				q := e.queue(t, c, k.ordering)
				f(t, q, driver.SourceSpec{Object: q, Ordering: k.ordering}, e.Can.Settling(driver.Queue, k.ordering))
				return
			}
			topic := e.topic(t, c)
			f(t, topic, of(e.group(t, c, topic, k.ordering), k.ordering), e.Can.Settling(driver.Group, k.ordering))
		})
	}
}

var receiveCases = []testCase{
	{name: "receive: settled messages are gone, unsettled ones come again in order", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		e.each(t, c, func(t *testing.T, object driver.Ref, spec driver.SourceSpec, settling driver.Settling) {
			publish(t, e.publisher(t, c, object), series("a", 0, 20)...)
			s := e.source(t, c, spec)
			if s.Settling() != settling {
				t.Fatalf("Settling is %v, the harness says %v", s.Settling(), settling)
			}
			var got []driver.Delivery
			if spec.Ordering == driver.Strict && settling == driver.PerMessage {
				for range 5 { // one at a time
					d := receive(t, s, 1)
					settle(t, s, driver.Done, d...)
					got = append(got, d...)
				}
				got = append(got, receive(t, s, 1)...)
			} else {
				got = receive(t, s, 12)
				settle(t, s, driver.Done, got[:5]...)
			}
			want(t, "first", got, idsOf(series("a", 0, len(got)))...)
			identities := map[string]string{}
			for _, d := range got {
				if other, ok := identities[d.Identity]; ok {
					t.Fatalf("%s and %s have the identity %q", other, d.Message.ID, d.Identity)
				}
				identities[d.Identity] = d.Message.ID
				if d.Count < 0 || (settling == driver.Positional) != (d.Position > 0) {
					t.Fatalf("%s: count %d, position %d", d.Message.ID, d.Count, d.Position)
				}
			}
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			s = e.source(t, c, spec)
			var again []driver.Delivery
			if spec.Ordering == driver.Strict && settling == driver.PerMessage {
				for range 15 {
					d := receive(t, s, 1)
					settle(t, s, driver.Done, d...)
					again = append(again, d...)
				}
			} else {
				again = receive(t, s, 15)
			}
			for _, d := range again {
				if id, ok := identities[d.Identity]; ok && id != d.Message.ID {
					t.Fatalf("identity %s was %s, is %s", d.Identity, id, d.Message.ID)
				}
			}
			if spec.Ordering != driver.None {
				want(t, "again", again, idsOf(series("a", 5, 15))...)
			}
			seen := map[string]bool{}
			for _, d := range again {
				seen[d.Message.ID] = true
			}
			if len(seen) != 15 {
				t.Fatalf("%d different messages came again, want 15", len(seen))
			}
			if settling == driver.Positional {
				settle(t, s, driver.Done, again[14]) // stands for all before it
			} else if spec.Ordering != driver.Strict {
				settle(t, s, driver.Done, again...)
			}
			nothing(t, s)
		})
	}},
	{name: "receive: a waiting receiver gets what is published, and ends with its context", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		e.each(t, c, func(t *testing.T, object driver.Ref, spec driver.SourceSpec, _ driver.Settling) {
			p := e.publisher(t, c, object)
			s := e.source(t, c, spec)
			nothing(t, s)
			got := make(chan []driver.Delivery)
			go func() { got <- receive(t, s, 1) }()
			publish(t, p, msg("one", "k"))
			want(t, "received", <-got, "one")
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			var into [1]driver.Delivery
			if n, err := s.Receive(ctx, into[:]); n != 0 || err != nil {
				t.Fatalf("Receive with an ended context: %d, %v", n, err)
			}
		})
	}},
	{name: "receive: subscriptions are independent", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := e.topic(t, c)
		orderings := []driver.Ordering{driver.None, driver.Key, driver.Strict}
		var groups []driver.Ref
		for _, o := range orderings {
			groups = append(groups, e.group(t, c, topic, o))
		}
		publish(t, e.publisher(t, c, topic), series("a", 0, 30)...)
		for i, o := range orderings {
			s := e.source(t, c, of(groups[i], o))
			got := receive(t, s, 30)
			want(t, string(o), got, idsOf(series("a", 0, 30))...)
			settle(t, s, driver.Done, got...)
		}
		for i := range groups {
			eventually(t, "no backlog", func() bool { return state(t, c, groups[i]).Messages == 0 })
		}
	}},
	{name: "receive: competing consumers share a queue", run: func(t *testing.T, e *env) {
		pub := e.conn(t)
		q := e.queue(t, pub, driver.None)
		const n, consumers = 600, 3
		seen := make(map[string]int)
		had := make([]int, consumers)
		var mu sync.Mutex
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(within(t))
		for i := range consumers {
			s := e.source(t, e.conn(t), driver.SourceSpec{Object: q, Window: driver.Window{Messages: 20, Bytes: 1 << 20}})
			wg.Go(func() {
				into := make([]driver.Delivery, 8)
				for {
					k, err := s.Receive(ctx, into)
					if err != nil {
						t.Errorf("Receive: %v", err)
					}
					if k == 0 {
						return
					}
					for _, err := range s.Settle(within(t), settlements(driver.Done, into[:k]...)) {
						if err != nil {
							t.Errorf("Settle: %v", err)
						}
					}
					mu.Lock()
					for _, d := range into[:k] {
						seen[d.Message.ID]++
					}
					had[i] += k
					if len(seen) == n {
						cancel()
					}
					mu.Unlock()
				}
			})
		}
		publish(t, e.publisher(t, pub, q), series("a", 0, n)...)
		wg.Wait()
		cancel()
		if len(seen) != n {
			t.Fatalf("%d of %d came", len(seen), n)
		}
		for id, times := range seen {
			if times != 1 {
				t.Errorf("%s came %d times", id, times)
			}
		}
		for i, k := range had {
			if k == 0 {
				t.Errorf("consumer %d got nothing: %v", i, had)
			}
		}
	}},
	{name: "receive: a slow consumer holds no more than its window", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		e.each(t, c, func(t *testing.T, object driver.Ref, spec driver.SourceSpec, _ driver.Settling) {
			publish(t, e.publisher(t, c, object), series("a", 0, 200)...)
			spec.Window = driver.Window{Messages: 20, Bytes: 1 << 20}
			s := e.source(t, c, spec)
			if got := e.fetched(t, s, 1); got > 20 {
				t.Fatalf("a source with a window of 20 messages held %d", got)
			}
		})
	}},
	{name: "receive: the window counts bytes, and one message always fits", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		e.each(t, c, func(t *testing.T, object driver.Ref, spec driver.SourceSpec, settling driver.Settling) {
			ms := series("a", 0, 40)
			for i := range ms {
				ms[i].Data = make([]byte, 10_000)
			}
			ms[39].Data = make([]byte, 200_000) // larger than the window
			publish(t, e.publisher(t, c, object), ms...)
			spec.Window = driver.Window{Messages: 1000, Bytes: 100_000}
			s := e.source(t, c, spec)
			if settling == driver.PerMessage && spec.Ordering != driver.Strict {
				var held []driver.Delivery
				for {
					ctx, cancel := context.WithTimeout(context.Background(), quiet)
					into := make([]driver.Delivery, 40)
					n, err := s.Receive(ctx, into)
					cancel()
					if err != nil {
						t.Fatal(err)
					}
					if n == 0 {
						break
					}
					held = append(held, into[:n]...)
				}
				if len(held) == 0 || len(held) > 10 {
					t.Fatalf("a window of 100 kB held %d messages of 10 kB", len(held))
				}
				settle(t, s, driver.Done, held...)
				for rest := 40 - len(held); rest > 0; rest-- {
					settle(t, s, driver.Done, receive(t, s, 1)...)
				}
				return
			}
			for range 40 {
				settle(t, s, driver.Done, receive(t, s, 1)...)
			}
			nothing(t, s)
		})
	}},
	{name: "receive: settling opens the window again", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		e.each(t, c, func(t *testing.T, object driver.Ref, spec driver.SourceSpec, _ driver.Settling) {
			publish(t, e.publisher(t, c, object), series("a", 0, 300)...)
			spec.Window = driver.Window{Messages: 7, Bytes: 1 << 20}
			s := e.source(t, c, spec)
			for i := range 300 {
				d := receive(t, s, 1)
				want(t, "next", d, series("a", i, 1)[0].ID)
				settle(t, s, driver.Done, d...)
			}
			nothing(t, s)
		})
	}},
	{name: "receive: draining gives out what was fetched and lets it be settled", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		e.each(t, c, func(t *testing.T, object driver.Ref, spec driver.SourceSpec, settling driver.Settling) {
			publish(t, e.publisher(t, c, object), series("a", 0, 50)...)
			spec.Window = driver.Window{Messages: 10, Bytes: 1 << 20}
			s := e.source(t, c, spec)
			got := receive(t, s, 1)
			s.Drain()
			got = append(got, drained(t, s)...)
			settle(t, s, driver.Done, got...)
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			s = e.source(t, c, spec)
			next := receive(t, s, 1)
			want(t, "after the drain", next, series("a", len(got), 1)[0].ID)
		})
	}},
	{name: "receive: closing while a receiver waits ends it", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		e.each(t, c, func(t *testing.T, object driver.Ref, spec driver.SourceSpec, _ driver.Settling) {
			s := e.source(t, c, spec)
			ended := make(chan error, 1)
			go func() {
				var into [4]driver.Delivery
				_, err := s.Receive(within(t), into[:])
				ended <- err
			}()
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if !errors.Is(err, driver.ErrDrained) || c.Class(err) != driver.Drained {
					t.Fatalf("Receive ended with %v", err)
				}
			case <-within(t).Done():
				t.Fatal("Receive goes on after Close")
			}
		})
	}},
	{name: "receive: closing while busy loses nothing", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		p := e.publisher(t, c, q)
		const n = 1000
		published := make(chan struct{})
		go func() {
			defer close(published)
			for i := range n / 50 {
				publish(t, p, series("a", i*50, 50)...)
			}
		}()
		done := map[string]bool{}
		for len(done) < n {
			s, err := c.Source(within(t), driver.SourceSpec{Object: q, Window: driver.Window{Messages: 100, Bytes: 1 << 20}, AckWait: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			into := make([]driver.Delivery, 60)
			for round := range 3 {
				ctx := within(t)
				if round > 0 { // what is left may be held by this very source
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, quiet)
					defer cancel()
				}
				k, err := s.Receive(ctx, into)
				if err != nil {
					t.Fatal(err)
				}
				half := into[:(k+1)/2] // the rest is handed back
				settle(t, s, driver.Done, half...)
				for _, d := range half {
					if done[d.Message.ID] {
						t.Fatalf("%s came again after it was settled", d.Message.ID)
					}
					done[d.Message.ID] = true
				}
			}
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
		}
		<-published
	}},
	{name: "receive: on demand nothing is fetched that nobody waits for", needs: func(h *Harness) bool { return h.Can.Settler }, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		for _, o := range []driver.Ordering{driver.None, driver.Strict} {
			q := e.queue(t, c, o)
			p := e.publisher(t, c, q)
			idle := e.source(t, c, driver.SourceSpec{Object: q, Ordering: o, OnDemand: true})
			nothing(t, idle) // a request that was taken back must not swallow what comes later
			publish(t, p, series("a", 0, 10)...)
			other := e.source(t, e.conn(t), driver.SourceSpec{Object: q, Ordering: o, OnDemand: true})
			for i := range 5 {
				d := receive(t, other, 1)
				want(t, "other", d, series("a", i, 1)[0].ID)
				settle(t, other, driver.Done, d...)
			}
			want(t, "idle", receive(t, idle, 1), series("a", 5, 1)[0].ID)
			if o == driver.None {
				want(t, "other again", receive(t, other, 2), idsOf(series("a", 6, 2))...)
			}
		}
	}},
}

// fetched receives n messages, settles none and counts what the source had fetched when it is drained.
func (e *env) fetched(t *testing.T, s driver.Source, n int) int {
	t.Helper()
	receive(t, s, n)
	nothingMore := make([]driver.Delivery, 1)
	ctx, cancel := context.WithTimeout(context.Background(), quiet)
	k, err := s.Receive(ctx, nothingMore) // time to fetch as much as it will
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	s.Drain()
	return n + k + len(drained(t, s))
}

// drained receives until ErrDrained.
func drained(t *testing.T, s driver.Source) []driver.Delivery {
	t.Helper()
	var got []driver.Delivery
	for {
		into := make([]driver.Delivery, 16)
		n, err := s.Receive(within(t), into)
		got = append(got, into[:n]...)
		if errors.Is(err, driver.ErrDrained) {
			return got
		}
		if err != nil || n == 0 {
			t.Fatalf("Receive while draining: %d, %v", n, err)
		}
	}
}
