package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

func TestDeliveriesAreExtendedWhileTheyAreHeld(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.script.lease = 30 * time.Second
		r.cfg.Policy.Retry.Max = 10 * time.Minute
		r.cfg.Policy.Retry.Initial = 5 * time.Minute
		r.sink.handle = func(_ context.Context, id string, attempt int) error {
			switch {
			case id == "a0":
				time.Sleep(3 * time.Minute) // a slow handling
			case id == "b0" && attempt == 1:
				return refused // a long wait
			}
			return nil
		}
		r.script.add("a0", "a1", "b0", "b1")
		r.start()
		after(time.Hour)
		if left := r.script.undone(); left != nil || r.sink.total() != 5 {
			t.Errorf("not settled %v; handled %v", left, r.sink.tries)
		}
		if r.script.extends == 0 || r.script.extends > 4*60 {
			t.Errorf("%d extensions", r.script.extends)
		}
	})
}

func TestALeaseThatEndedSettlesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.AckWait = time.Hour // the flow believes in an hour, the broker gives thirty seconds
		r.script.lease, r.script.unfenced = 30*time.Second, true
		r.sink.handle = func(_ context.Context, id string, attempt int) error {
			if id == "a0" && len(strings.Fields(r.sink.got())) == 0 {
				time.Sleep(time.Minute)
			}
			return nil
		}
		r.script.settleErr = func(rec *record) error {
			if time.Now().After(rec.deadline) {
				r.script.faults = append(r.script.faults, "an ended lease was settled")
			}
			return nil
		}
		r.script.add("a0", "a1")
		r.start()
		after(2 * time.Minute)
		r.script.add("c0") // what ended comes again with the next receive
		after(time.Minute)
		if left := r.script.undone(); left != nil {
			t.Errorf("not settled: %v", left)
		}
		if r.sink.count("a0") != 2 || r.flow.Stats().Forgotten != 2 {
			t.Errorf("a0 handled %d times, %d forgotten", r.sink.count("a0"), r.flow.Stats().Forgotten)
		}
	})
}

// Behind an open breaker the leases of a full window can all end before any of it is tried again.
func TestAWindowWhoseLeasesEndedBehindTheBreakerIsReceivedAnew(t *testing.T) {
	for _, ordering := range []driver.Ordering{driver.None, driver.Key} {
		bubble(t, func(t *testing.T, r *rig) {
			r.cfg.Policy.Ordering, r.cfg.Policy.Window.Messages = ordering, 12
			r.cfg.Policy.AckWait, r.script.lease = time.Hour, 20*time.Second // the flow believes in an hour
			r.cfg.Policy.Retry.Initial, r.cfg.Policy.Retry.Max = time.Minute, time.Minute
			up := time.Now().Add(10 * time.Minute)
			r.sink.handle = func(context.Context, string, int) error {
				if time.Now().Before(up) {
					return errDown
				}
				return nil
			}
			r.script.add(numbered("-", 30)...)
			r.start()
			after(20 * time.Minute)
			r.sink.overlaps = nil // keys mean nothing with None
			if left := r.script.undone(); left != nil {
				t.Errorf("%s: left %v: %+v", ordering, left, r.flow.Stats())
			}
		})
	}
}

func TestLostClaimsAreForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var cancelled, second atomic.Int32
		r.sink.handle = func(ctx context.Context, id string, attempt int) error {
			if attempt != 1 {
				t.Errorf("%s: attempt %d: the count is not forgotten with the claim", id, attempt)
			}
			if second.Load() > 0 {
				return nil
			}
			<-ctx.Done()
			cancelled.Add(1)
			return ctx.Err()
		}
		r.script.add("a0", "a1", "b0")
		r.start()
		after(time.Second)
		second.Store(1)
		r.script.lose("")
		after(time.Second)
		if cancelled.Load() != 2 || r.grave.ids() != "" {
			t.Errorf("%d attempts cancelled, dead %q", cancelled.Load(), r.grave.ids())
		}
		if left := r.script.undone(); left != nil || len(strings.Fields(r.sink.got())) != 3 {
			t.Errorf("not settled %v, stored %q", left, r.sink.got())
		}
		if s := r.flow.Stats(); s.Forgotten != 3 || s.Done != 3 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestDeliveriesOfAClaimThatWasLostOnTheWayAreDropped(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		times := 0
		r.script.fetched = func() {
			if times++; times == 1 {
				r.script.lose("")
			}
		}
		r.script.add("a0", "b0")
		r.start()
		after(time.Second)
		if r.sink.total() != 2 || r.flow.Stats().Forgotten != 2 {
			t.Errorf("handled %v, %d forgotten", r.sink.tries, r.flow.Stats().Forgotten)
		}
	})
}

func TestRevokeFinishesWhatIsInHands(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.sink.handle = func(ctx context.Context, id string, _ int) error {
			switch id {
			case "a0":
				time.Sleep(5 * time.Second)
			case "b0":
				<-ctx.Done()
				return ctx.Err()
			case "c0":
				return refused
			case "d0":
				time.Sleep(3 * time.Second)
				return refused // in the middle of the revocation: not tried again under the old claim
			}
			return nil
		}
		r.script.add("a0", "a1", "b0", "c0", "d0", "d1")
		r.start()
		after(time.Second)
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		r.script.taken = func() {
			if n := r.sink.count("d0") + r.sink.count("d1"); n != 1 {
				t.Errorf("%d handlings of d0 and d1 before they came again", n)
			}
			if !slices.Equal(r.script.settled(), []string{"a0"}) {
				t.Errorf("settled %v before the claims were given up", r.script.settled())
			}
		}
		r.script.take(ctx, "")
		if d := time.Since(begin); d != 20*time.Second {
			t.Errorf("returned after %s; b0 hangs until its ctx ends", d)
		}
		after(0)
		if r.sink.count("a1") != 1 || r.flow.Stats().Forgotten != 5 {
			t.Errorf("a1 handled %d times, %d forgotten", r.sink.count("a1"), r.flow.Stats().Forgotten)
		}
	})
}

func TestDrainFinishesCancelsAndReleases(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.MaxInFlight = 3
		r.sink.handle = func(ctx context.Context, id string, _ int) error {
			switch id {
			case "a0":
				time.Sleep(5 * time.Second)
			case "b0":
				<-ctx.Done()
				return ctx.Err()
			case "c0":
				return refused
			}
			return nil
		}
		r.script.add("a0", "a1", "b0", "c0", "d0", "d1")
		r.sink.handle = func(next func(context.Context, string, int) error) func(context.Context, string, int) error {
			return func(ctx context.Context, id string, n int) error {
				if id == "d0" {
					time.Sleep(time.Second)
				}
				return next(ctx, id, n)
			}
		}(r.sink.handle)
		r.start()
		after(500 * time.Millisecond)
		begin := time.Now()
		got := r.drain(20 * time.Second)
		if d := time.Since(begin); d != 20*time.Second {
			t.Errorf("took %s", d)
		}
		if want := (Drained{Finished: 2, Cancelled: 1, Released: 4}); got != want {
			t.Errorf("drained %+v, want %+v", got, want)
		}
		if !slices.Equal(r.script.settles, []string{"d0", "a0"}) || r.script.out != 0 || r.script.source != nil {
			t.Errorf("settled %v, %d still out", r.script.settles, r.script.out)
		}
		if r.flow.Stats().State != Stopped || r.grave.ids() != "" {
			t.Errorf("state %s, dead %q", r.flow.Stats().State, r.grave.ids())
		}
	})
}

func TestDrainDoesNotWaitForRetries(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.sink.handle = func(context.Context, string, int) error { return refused }
		r.script.add("a0", "a1")
		r.start()
		after(time.Minute)
		begin := time.Now()
		if got := r.drain(time.Minute); got != (Drained{Released: 2}) || time.Since(begin) != 0 {
			t.Errorf("%+v after %s", got, time.Since(begin))
		}
	})
}

func TestDrainFinishesWhatAtMostOnceHasAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.AtMostOnce = true
		r.cfg.Policy.MaxInFlight = 2
		r.sink.handle = func(ctx context.Context, id string, _ int) error { return wait(ctx, time.Second) }
		r.script.add(numbered("-", 4)...)
		r.start()
		after(0)
		if got := r.drain(1500 * time.Millisecond); got != (Drained{Finished: 2, Cancelled: 2, Lost: 2}) {
			// Two were done; the one attempt of the others was cut off, and they do not come again.
			t.Errorf("%+v", got)
		}
	})
}

func wait(ctx context.Context, d time.Duration) error {
	if sleep(ctx, d) {
		return nil
	}
	return ctx.Err()
}

func TestAnAttemptThatIgnoresItsCancellationDoesNotHangTheDrain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		let := make(chan struct{})
		r.sink.handle = func(context.Context, string, int) error { <-let; return nil }
		r.script.add("a0", "a1")
		r.start()
		after(0)
		begin := time.Now()
		if got := r.drain(time.Second); got.Cancelled != 1 || got.Released != 1 {
			t.Errorf("%+v", got)
		}
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("the drain took %s", d)
		}
		close(let)
		after(0)
		if left := r.script.undone(); len(left) != 2 {
			t.Errorf("settled after the flow had ended: left %v", left)
		}
	})
}

func TestABrokenSourceIsOpenedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		fails, opens := 0, 0
		r.script.openErr = func() error {
			if opens++; opens == 2 {
				return errors.New("no such stream")
			}
			return nil
		}
		r.script.receiveErr = func() error {
			if fails++; fails == 2 {
				return errors.New("consumer deleted")
			}
			return nil
		}
		r.sink.handle = func(ctx context.Context, id string, _ int) error {
			if id == "a0" && opens == 1 {
				return wait(ctx, time.Hour)
			}
			return nil
		}
		r.script.add("a0", "a1")
		r.start()
		after(0)
		r.script.add("b0")
		after(50 * time.Millisecond)
		if s := r.flow.Stats(); s.State != SourceDown || s.Detail != "consumer deleted" {
			t.Errorf("%s: %s", s.State, s.Detail)
		}
		after(time.Minute)
		if left := r.script.undone(); left != nil || r.flow.Stats().State != Running {
			t.Errorf("not settled %v, state %s", left, r.flow.Stats().State)
		}
	})
}

func TestALostPositionStopsTheFlow(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		calls := 0
		r.script.receiveErr = func() error {
			if calls++; calls > 2 {
				return fmt.Errorf("sequence 7: %w", driver.ErrPositionLost)
			}
			return nil
		}
		r.sink.handle = func(ctx context.Context, _ string, _ int) error { return wait(ctx, time.Second) }
		r.script.add("a0")
		r.start()
		after(0)
		r.script.add("a1")
		err := <-r.ended
		if !errors.Is(err, driver.ErrPositionLost) {
			t.Errorf("Run: %v", err)
		}
		if s := r.flow.Stats(); s.State != PositionLost || !strings.Contains(s.Detail, "sequence 7") {
			t.Errorf("%s: %s", s.State, s.Detail)
		}
		if r.sink.got() != "a0" || calls != 3 {
			t.Errorf("stored %q after %d receives", r.sink.got(), calls)
		}
	})
}

func TestSettlingThatFails(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		tell := r.listen()
		tries := map[string]int{} // under the script's lock
		r.script.settleErr = func(rec *record) error {
			tries[rec.m.ID]++
			switch {
			case rec.m.ID == "a0" && tries["a0"] <= 5:
				return errors.New("timeout")
			case rec.m.ID == "b0" && tries["b0"] == 1:
				return fmt.Errorf("lease: %w", driver.ErrStale)
			}
			return nil
		}
		r.script.add("a0", "b0")
		r.start()
		after(time.Minute)
		if r.sink.count("a0") != 1 || tries["a0"] != 6 || r.sink.count("b0") != 2 {
			t.Errorf("tries %v, settles %v", r.sink.tries, tries)
		}
		var told []string
		for _, s := range tell() {
			told = append(told, s.id)
		}
		if slices.Sort(told); !slices.Equal(told, []string{"a0", "b0"}) {
			t.Errorf("told of %v: once each, after the broker took it", told)
		}
	})
}
