package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// scripted is a publisher that does as it is told.
type scripted struct {
	mu      sync.Mutex
	batches []int
	stored  []string
	answer  func(m message.Message) error // nil: stored
	block   chan struct{}                 // nil: at once
}

func (p *scripted) publish(ctx context.Context, ms []message.Message) []error {
	if p.block != nil {
		select {
		case <-p.block:
		case <-ctx.Done():
			return repeated(ctx.Err(), len(ms))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.batches = append(p.batches, len(ms))
	errs := make([]error, len(ms))
	for i, m := range ms {
		if p.answer != nil {
			errs[i] = p.answer(m)
		}
		if errs[i] == nil {
			p.stored = append(p.stored, m.ID)
		}
	}
	return errs
}

func newTestStore(p *scripted) (*store, *counters, *budget) {
	c, b := &counters{}, &budget{limit: 1 << 20}
	return newStore(p.publish, b, c, slog.New(slog.DiscardHandler)), c, b
}

func take(b *budget, ids ...string) *intake {
	in := &intake{budget: b, bytes: int64(len(ids)), batch: len(ids) > 1}
	for _, id := range ids {
		in.events = append(in.events, message.Message{ID: id, Source: "/s", Type: "t"})
	}
	b.take(in.bytes)
	return in
}

func TestStoreSharesABatchAmongRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{block: make(chan struct{})}
		s, c, b := newTestStore(p)
		var wg sync.WaitGroup
		for i := range 11 {
			wg.Go(func() {
				if errs := s.stored(t.Context(), take(b, fmt.Sprint(i))); errs != nil {
					t.Error(errs)
				}
			})
			synctest.Wait()
		}
		close(p.block)
		wg.Wait()
		if fmt.Sprint(p.batches) != "[1 10]" || fmt.Sprint(p.stored) != "[0 1 2 3 4 5 6 7 8 9 10]" {
			t.Fatalf("got %v, %v", p.batches, p.stored)
		}
		synctest.Wait()
		if s.running || c.stored.Load() != 11 || c.buffered.Load() != 0 || b.used.Load() != 0 {
			t.Fatalf("running %v, stored %d, buffered %d, bytes %d", s.running, c.stored.Load(), c.buffered.Load(), b.used.Load())
		}
	})
}

func TestStoreTellsEachRequestItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{answer: func(m message.Message) error {
			if m.ID == "b" {
				return driver.ErrFull
			}
			return nil
		}}
		s, _, b := newTestStore(p)
		in := take(b, "a", "b", "c")
		errs := s.stored(t.Context(), in)
		if errs[0] != nil || !errors.Is(errs[1], driver.ErrFull) || errs[2] != nil {
			t.Fatalf("got %v", errs)
		}
		pr := in.notStored(errs)
		if pr.Status != http.StatusServiceUnavailable || pr.RetryAfter == 0 || fmt.Sprint(pr.Results[0].Status, pr.Results[1].Status, pr.Results[2].Status) != "202 507 202" {
			t.Fatalf("got %+v", pr)
		}
		if errs := s.stored(t.Context(), take(b, "a")); errs != nil {
			t.Fatalf("got %v", errs)
		}
		if pr := (&intake{batch: true, events: in.events[:1]}).notStored([]error{driver.ErrFull}); pr.Status != http.StatusInsufficientStorage {
			t.Fatalf("got %+v", pr)
		}
	})
}

func TestStoreWhatGaveUpBeforeItWasSentIsNeverSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{block: make(chan struct{})}
		s, _, b := newTestStore(p)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if errs := s.stored(ctx, take(b, "on its way")); !errors.Is(errs[0], driver.ErrUnknown) {
				t.Errorf("got %v", errs)
			}
		})
		synctest.Wait()
		if errs := s.stored(ctx, take(b, "queued")); !errors.Is(errs[0], errNotStored) {
			t.Fatalf("got %v", errs)
		}
		wg.Wait()
		close(p.block)
		synctest.Wait()
		if fmt.Sprint(p.stored) != "[on its way]" || b.used.Load() != 0 {
			t.Fatalf("got %v, %d bytes held", p.stored, b.used.Load())
		}
	})
}

func TestStoreKeepsAcceptedEventsUntilTheyAreStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 3
		p := &scripted{}
		p.answer = func(m message.Message) error {
			if m.ID == "never" {
				return driver.ErrTooLarge
			}
			if failures > 0 && m.ID == "b" {
				failures--
				return driver.ErrUnknown
			}
			return nil
		}
		s, c, b := newTestStore(p)
		if _, err := s.put(take(b, "a", "b", "never"), true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // virtual: the first attempt has failed by now
		if _, err := s.put(take(b, "c"), true); err != nil {
			t.Fatal(err)
		}
		if err := s.drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if slices.Sort(p.stored); fmt.Sprint(p.stored) != "[a b c]" {
			t.Fatalf("got %v", p.stored)
		}
		if c.stored.Load() != 3 || c.lost.Load() != 1 || c.buffered.Load() != 0 || b.used.Load() != 0 {
			t.Fatalf("stored %d, lost %d, buffered %d, bytes %d", c.stored.Load(), c.lost.Load(), c.buffered.Load(), b.used.Load())
		}
		if _, err := s.put(take(b, "late"), true); !errors.Is(err, errBuffersFull) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestStoreBehindAnotherRequestsFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		var stored []string
		publish := func(_ context.Context, ms []message.Message) []error {
			<-block
			errs := make([]error, len(ms))
			for i, m := range ms {
				switch { // as a broker.Publisher does for one key
				case m.ID == "large":
					errs[i] = driver.ErrTooLarge
				case i > 0 && errs[i-1] != nil:
					errs[i] = fmt.Errorf("%w: %w", broker.ErrHeld, driver.ErrTooLarge)
				default:
					stored = append(stored, m.ID)
				}
			}
			return errs
		}
		c, b := &counters{}, &budget{limit: 1 << 20}
		s := newStore(publish, b, c, slog.New(slog.DiscardHandler))
		if _, err := s.put(take(b, "on its way"), true); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := s.put(take(b, "large"), false); err != nil {
			t.Fatal(err)
		}
		healthy, err := s.put(take(b, "healthy"), false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.put(take(b, "accepted"), true); err != nil {
			t.Fatal(err)
		}
		close(block)
		<-healthy.done
		if p := storeProblem(healthy.errs[0], "healthy"); p.Status != http.StatusServiceUnavailable || p.Reason != "NotStored" || p.RetryAfter == 0 {
			t.Errorf("got %+v", p)
		}
		if err := s.drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(stored) != "[on its way accepted]" || c.lost.Load() != 0 {
			t.Errorf("stored %v, lost %d", stored, c.lost.Load())
		}
	})
}

func TestStoreCountsWhatADrainLeavesBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{block: make(chan struct{})}
		s, c, b := newTestStore(p)
		for _, id := range []string{"a", "b"} {
			if _, err := s.put(take(b, id), true); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if c.lost.Load() != 2 || c.buffered.Load() != 0 || b.used.Load() != 0 {
			t.Fatalf("lost %d, buffered %d, bytes %d", c.lost.Load(), c.buffered.Load(), b.used.Load())
		}
	})
}

func TestStoreIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{block: make(chan struct{})}
		s, _, b := newTestStore(p)
		big := &intake{budget: b, events: make([]message.Message, maxQueued)}
		if _, err := s.put(big, true); err != nil {
			t.Fatal(err)
		}
		if _, err := s.put(take(b, "one more"), true); !errors.Is(err, errBuffersFull) {
			t.Fatalf("got %v", err)
		}
		if errs := s.stored(t.Context(), take(b, "one more")); !errors.Is(errs[0], errBuffersFull) {
			t.Fatalf("got %v", errs)
		}
		close(p.block)
		if err := s.drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestBudget(t *testing.T) {
	b := budget{limit: 10}
	if !b.take(6) || b.take(5) || !b.take(4) || b.take(1) {
		t.Fatal("the bound does not hold")
	}
	if b.give(10); b.used.Load() != 0 {
		t.Fatal("not given back")
	}
}

func TestALargeBatchHasMoreTimeToBeStored(t *testing.T) {
	for events, want := range map[int]time.Duration{1: 10*time.Second + 2*time.Millisecond, maxBatchEvents: 30 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			var given time.Duration
			publish := func(ctx context.Context, ms []message.Message) []error {
				until, _ := ctx.Deadline()
				given = time.Until(until)
				return nil
			}
			b := &budget{limit: 1 << 20}
			s := newStore(publish, b, &counters{}, slog.New(slog.DiscardHandler))
			if errs := s.stored(t.Context(), take(b, make([]string, events)...)); errs != nil || given != want {
				t.Errorf("%d events have %s, want %s: %v", events, given, want, errs)
			}
		})
	}
}
