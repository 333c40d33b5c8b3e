package gateway

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
)

// feed is a source that gives what it is fed.
type feed struct {
	driver.Source // what a pollDesk never calls
	in            chan []driver.Delivery
	fail          chan error
	asked         chan int // what Receive asked for
	closed        bool
}

func (f *feed) Receive(ctx context.Context, into []driver.Delivery) (int, error) {
	select {
	case f.asked <- len(into):
	default:
	}
	select {
	case ds := <-f.in:
		return copy(into, ds), nil
	case err := <-f.fail:
		return 0, err
	case <-ctx.Done():
		return 0, nil
	}
}

func (f *feed) Close(context.Context) error {
	f.closed = true
	return nil
}

func deliveries(ids ...string) []driver.Delivery {
	ds := make([]driver.Delivery, len(ids))
	for i, id := range ids {
		ds[i].Message = message.Message{ID: id}
	}
	return ds
}

func names(ds []driver.Delivery) string {
	s := ""
	for i := range ds {
		s += ds[i].Message.ID
	}
	return s
}

type deskRig struct {
	pollDesk
	feed     *feed
	released string
	putAside string
}

func newDeskRig() *deskRig {
	r := &deskRig{feed: &feed{in: make(chan []driver.Delivery), fail: make(chan error), asked: make(chan int, 100)}}
	r.pollDesk = pollDesk{
		open:    func(context.Context) (driver.Source, error) { return r.feed, nil },
		admit:   func(d *driver.Delivery) bool { return d.Message.ID != "x" },
		aside:   func(_ context.Context, ds []driver.Delivery) { r.putAside += names(ds) },
		release: func(ds []driver.Delivery, _ time.Duration) { r.released += names(ds) },
		log:     slog.New(slog.DiscardHandler),
	}
	r.init()
	return r
}

func TestPollsAreServedInTheOrderOfTheirWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDeskRig()
		defer r.close()
		var wg sync.WaitGroup
		got := make([]string, 3)
		for i, limit := range []int{2, 1, 5} {
			wg.Go(func() {
				ds, err := r.wait(t.Context(), limit)
				if got[i] = names(ds); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		if n := <-r.feed.asked; n != 2 {
			t.Fatalf("the broker was asked for %d when the first poll wanted 2", n)
		}
		r.feed.in <- deliveries("a", "x") // admit does not let x out
		synctest.Wait()
		if n := <-r.feed.asked; n != 6 {
			t.Fatalf("the broker was asked for %d when two polls wanted 1 and 5", n)
		}
		r.feed.in <- deliveries("b", "c", "d")
		wg.Wait()
		if fmt.Sprint(got) != "[a b cd]" || r.released != "" || r.putAside != "x" {
			t.Fatalf("got %v, released %q, put aside %q", got, r.released, r.putAside)
		}
		synctest.Wait()
		select {
		case n := <-r.feed.asked:
			t.Fatalf("nobody waits, and the broker was asked for %d", n)
		default:
		}
	})
}

func TestPollsWhatNobodyTakesIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDeskRig()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if ds, err := r.wait(ctx, 3); len(ds) != 0 || err != nil {
				t.Errorf("got %v, %v", ds, err)
			}
		})
		wg.Go(func() {
			if ds, err := r.wait(t.Context(), 3); names(ds) != "ab" || err != nil {
				t.Errorf("got %v, %v", names(ds), err)
			}
		})
		time.Sleep(2 * time.Second) // virtual
		synctest.Wait()
		r.feed.in <- deliveries("a", "b")
		wg.Wait()
		// A poll that goes away ends the Receive that was for it.
		wg.Go(func() { _, _ = r.wait(ctx, 1) })
		wg.Wait()
		synctest.Wait()
		if left := r.hand(deliveries("c")); names(left) != "c" {
			t.Fatalf("somebody took %q", names(left))
		}
		r.close()
		if !r.feed.closed {
			t.Fatal("the source was left open")
		}
	})
}

func TestPollsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDeskRig()
		var wg sync.WaitGroup
		for range maxPolls {
			wg.Go(func() {
				if ds, err := r.wait(t.Context(), 1); len(ds) != 0 || err != nil {
					t.Errorf("got %v, %v", ds, err)
				}
			})
		}
		synctest.Wait()
		if _, err := r.wait(t.Context(), 1); !errors.Is(err, errTooManyPolls) {
			t.Fatalf("got %v", err)
		}
		r.close() // answers all with nothing, at once
		wg.Wait()
		if ds, err := r.wait(t.Context(), 1); ds != nil || err != nil {
			t.Fatalf("after close: %v, %v", ds, err)
		}
	})
}

func TestPollsHearOfAFailureAndTheSourceIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDeskRig()
		defer r.close()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := r.wait(t.Context(), 1); !errors.Is(err, driver.ErrMissing) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		r.feed.fail <- driver.ErrMissing
		wg.Wait()
		if !r.feed.closed {
			t.Fatal("the failed source was left open")
		}
		wg.Go(func() {
			if ds, err := r.wait(t.Context(), 1); names(ds) != "a" || err != nil {
				t.Errorf("got %v, %v", names(ds), err)
			}
		})
		synctest.Wait()
		r.feed.in <- deliveries("a")
		wg.Wait()
	})
}

func TestLiveReadersAreBounded(t *testing.T) {
	var l liveReaders
	for range maxLive {
		if !l.enter() {
			t.Fatal("refused too early")
		}
	}
	if l.enter() {
		t.Fatal("one too many")
	}
	if l.leave(); !l.enter() {
		t.Fatal("a place was not given back")
	}
}
