package brokertest

import (
	"errors"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// lessee opens a source of leases.
func (e *env) lessee(t *testing.T, c driver.Conn, q driver.Ref, o driver.Ordering) driver.Source {
	t.Helper()
	return e.source(t, c, driver.SourceSpec{Object: q, Ordering: o, Lease: true})
}

// restored makes a delivery of the handle of another one, as whoever was given only that would.
func restored(t *testing.T, s driver.Settler, q driver.Ref, d driver.Delivery) *driver.Delivery {
	t.Helper()
	back, err := s.Restore(q, append([]byte(nil), d.Handle...))
	if err != nil {
		t.Fatal(err)
	}
	return &back
}

func settleOne(t *testing.T, s driver.Settler, one driver.Settlement) {
	t.Helper()
	if err := s.Settle(within(t), []driver.Settlement{one})[0]; err != nil {
		t.Fatal(err)
	}
}

var leaseCases = []testCase{
	{name: "lease: it outlives the source and the connection that gave it out", needs: settler, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		for _, o := range []driver.Ordering{driver.None, driver.Strict} {
			q := e.queue(t, c, o)
			publish(t, e.publisher(t, c, q), series("a", 0, 2)...)
			lending, err := e.Open(within(t), e.Config)
			if err != nil {
				t.Fatal(err)
			}
			s, err := lending.Source(within(t), driver.SourceSpec{Object: q, Ordering: o, Lease: true, AckWait: time.Minute, Window: driver.Window{Messages: 10, Bytes: 1 << 20}})
			if err != nil {
				t.Fatal(err)
			}
			first := receive(t, s, 1)[0]
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			if err := lending.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			next := e.lessee(t, c, q, o)
			if o == driver.Strict {
				nothing(t, next) // the first one is out still
			} else {
				second := receive(t, next, 1)
				want(t, "the next", second, "a0001")
				nothing(t, next)
				settleOne(t, c.Settler(), driver.Settlement{D: &second[0]})
			}
			if err := c.Settler().Extend(within(t), []*driver.Delivery{restored(t, c.Settler(), q, first)})[0]; err != nil {
				t.Fatal(err)
			}
			settleOne(t, c.Settler(), driver.Settlement{D: restored(t, c.Settler(), q, first)})
			if o == driver.Strict {
				second := receive(t, next, 1)
				want(t, "the next", second, "a0001")
				settleOne(t, c.Settler(), driver.Settlement{D: &second[0]})
			}
			eventually(t, "an empty queue", func() bool { return state(t, c, q).Messages == 0 })
		}
	}},
	{name: "lease: nothing is fetched that nobody waits for", needs: settler, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		idle := e.lessee(t, c, q, driver.None)
		nothing(t, idle)
		publish(t, e.publisher(t, c, q), series("a", 0, 6)...)
		got := receive(t, e.lessee(t, e.conn(t), q, driver.None), 6)
		for _, d := range got {
			if d.Count > 1 || len(d.Handle) == 0 || d.Deadline.IsZero() {
				t.Fatalf("%s: delivery %d, a handle of %d bytes, deadline %s", d.Message.ID, d.Count, len(d.Handle), d.Deadline)
			}
		}
		nothing(t, idle)
	}},
	{name: "lease: a broker whose handles any connection settles keeps a delay", needs: settler, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		if !c.Features().NativeDelay {
			t.Fatal("a lease is handed back with a delay, and nobody holds it meanwhile: the broker must keep the delay")
		}
		for _, o := range []driver.Ordering{driver.None, driver.Strict} {
			q := e.queue(t, c, o)
			publish(t, e.publisher(t, c, q), series("a", 0, 2)...)
			s := e.lessee(t, c, q, o)
			d := receive(t, s, 1)[0]
			const delay = time.Second
			began := time.Now()
			settleOne(t, e.conn(t).Settler(), driver.Settlement{D: restored(t, c.Settler(), q, d), Verb: driver.Release, After: delay})
			if o == driver.None {
				want(t, "meanwhile", receive(t, s, 1), "a0001")
			}
			want(t, "again", receive(t, s, 1), "a0000") // in order Strict it is still the first
			if waited := time.Since(began); waited < delay*9/10 {
				t.Fatalf("%s: it came again after %v", o, waited)
			}
		}
	}},
	{name: "lease: its message can be read again until it is settled", needs: settler, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		other := e.conn(t)
		loader, ok := other.Settler().(driver.Loader)
		if !ok {
			return // not promised: what is not kept where it was handed out cannot be dead-lettered from elsewhere
		}
		q := e.queue(t, c, driver.None)
		sent := msg("a", "k").With("color", "red ü %")
		publish(t, e.publisher(t, c, q), sent, msg("b", "k"))
		s := e.lessee(t, c, q, driver.None)
		d := receive(t, s, 1)[0]
		back := restored(t, other.Settler(), q, d)
		for range 2 {
			m, err := loader.Load(within(t), back)
			if err != nil {
				t.Fatal(err)
			}
			same(t, m, sent)
		}
		settleOne(t, c.Settler(), driver.Settlement{D: &d})
		eventually(t, "the message to be gone", func() bool {
			_, err := loader.Load(within(t), back)
			if err != nil && (!errors.Is(err, driver.ErrMissing) || other.Class(err) != driver.Missing) {
				t.Fatalf("Load of a settled message: %v, class %v", err, other.Class(err))
			}
			return err != nil
		})
	}},
}
