package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

func TestDialsAgainUntilTheBrokerAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(driver.PerMessage)
		s.refuse = errors.New("dial tcp: refused for user:hunter2")
		b := connect(t, s, driver.Config{Addresses: []string{"nats://user:hunter2@broker:4222"}, Password: "hunter2"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := b.WaitReady(ctx)
		if !errors.Is(err, ErrAway) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("WaitReady without a broker: %v", err)
		}
		away := b.Away().Error()
		if !strings.Contains(away, "nats://broker:4222") || strings.Contains(away, "hunter2") {
			t.Errorf("Away must name the address and no password: %s", away)
		}
		if s.dials < 8 || s.dials > 60 {
			t.Errorf("%d dials in a minute of two sessions: the backoff goes up to %s", s.dials, lastDial)
		}
		s.mu.Lock()
		s.refuse = nil
		s.mu.Unlock()
		if err := b.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Away(); err != nil {
			t.Errorf("connected, yet away: %v", err)
		}
		s.cut()
		synctest.Wait()
		if b.Away() == nil {
			t.Error("the session is lost and Away says nothing")
		}
		if f, ok := b.Features(); !ok || f.Server != "script" {
			t.Error("features are forgotten with the session")
		}
		if err := b.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRefreshKeepsTheOldSessionWhenTheNewOneFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(driver.PerMessage)
		b := connect(t, s, driver.Config{})
		if err := b.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		old := b.publish.last()
		s.mu.Lock()
		s.refuse = errors.New("authorization violation")
		s.mu.Unlock()
		if err := b.Refresh(t.Context()); err == nil || b.Away() != nil {
			t.Fatalf("a refused refresh: error %v, away %v", err, b.Away())
		}
		s.mu.Lock()
		s.refuse = nil
		s.mu.Unlock()
		if err := b.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if b.publish.last() == old {
			t.Error("the session is still the old one")
		}
		select {
		case <-old.Done():
		default:
			t.Error("the old session was not closed")
		}
	})
}

func messages(keys string) []message.Message {
	ms := make([]message.Message, len(keys))
	for i := range keys {
		ms[i] = message.Message{ID: fmt.Sprint(i), Key: strings.Trim(keys[i:i+1], "-")}
	}
	return ms
}

func ids(ms []message.Message) string {
	var out []string
	for _, m := range ms {
		out = append(out, m.ID)
	}
	return strings.Join(out, " ")
}

func TestPublishRetriesWhatFailedInPassing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(driver.PerMessage)
		b := connect(t, s, driver.Config{})
		round := 0
		s.publish = func(ms []message.Message) []error {
			if round++; round == 1 {
				// 1 fails in passing, and with it 3, which has the same key.
				return []error{nil, errors.New("timeout"), nil, errors.New("not tried"), nil}
			}
			return nil
		}
		if errs := b.Publisher(driver.Ref{Name: "orders"}).Publish(t.Context(), messages("abcb-")); errs != nil {
			t.Fatal(errs)
		}
		if got := ids(s.stored); got != "0 2 4 1 3" {
			t.Errorf("stored %s", got)
		}
	})
}

func TestPublishHoldsAKeyBehindWhatFailedForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(driver.PerMessage)
		b := connect(t, s, driver.Config{})
		round := 0
		passing := errors.New("timeout")
		s.publish = func(ms []message.Message) []error {
			if round++; round == 1 { // a b a b a - -
				return []error{passing, driver.ErrTooLarge, driver.ErrTooLarge, passing, passing, driver.ErrTooLarge, passing}
			}
			return nil
		}
		errs := b.Publisher(driver.Ref{Name: "orders"}).Publish(t.Context(), messages("ababa--"))
		for i, want := range []error{nil, driver.ErrTooLarge, driver.ErrTooLarge, ErrHeld, ErrHeld, driver.ErrTooLarge, nil} {
			if !errors.Is(errs[i], want) {
				t.Errorf("message %d: %v, want %v", i, errs[i], want)
			}
		}
		if got := ids(s.stored); got != "0 6" {
			t.Errorf("stored %s: what stands behind a lost message of its key must not be stored", got)
		}
	})
}

func TestWhatIsFullIsNamed(t *testing.T) {
	s := newServer(driver.PerMessage)
	s.publish = func(ms []message.Message) []error { return all(len(ms), driver.ErrFull) }
	p := connect(t, s, driver.Config{}).Publisher(driver.Ref{Kind: driver.Queue, Name: "default_dead_mailbox"})
	errs := p.Publish(t.Context(), []message.Message{{ID: "1"}})
	if len(errs) != 1 || !errors.Is(errs[0], driver.ErrFull) || !strings.Contains(errs[0].Error(), "Queue default_dead_mailbox: ") {
		t.Errorf("who is to make room somewhere is told %v", errs)
	}
}

func TestPublishOutlivesASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(driver.PerMessage)
		b := connect(t, s, driver.Config{})
		p := b.Publisher(driver.Ref{Name: "orders"})
		if errs := p.Publish(t.Context(), messages("a")); errs != nil {
			t.Fatal(errs)
		}
		s.cut()
		if errs := p.Publish(t.Context(), messages("b")); errs != nil {
			t.Fatal(errs)
		}
		if len(s.stored) != 2 {
			t.Errorf("stored %d of 2", len(s.stored))
		}
		s.mu.Lock()
		s.refuse = errors.New("refused")
		s.mu.Unlock()
		s.cut()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		errs := p.Publish(ctx, messages("ab"))
		if len(errs) != 2 || !errors.Is(errs[0], ErrAway) || !errors.Is(errs[1], ErrAway) || b.Class(errs[0]) != driver.Transient {
			t.Errorf("without a broker: %v", errs)
		}
	})
}

func receive(t *testing.T, src driver.Source, n int) []driver.Delivery {
	t.Helper()
	var got []driver.Delivery
	buf := make([]driver.Delivery, 64)
	for len(got) < n {
		k, err := src.Receive(t.Context(), buf[:min(64, n-len(got))])
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:k]...)
	}
	return got
}

func done(ds []driver.Delivery, at ...int) []driver.Settlement {
	var list []driver.Settlement
	for _, i := range at {
		list = append(list, driver.Settlement{D: &ds[i], Verb: driver.Done})
	}
	return list
}

func TestPositionalSourceCommitsTheLowWatermark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(driver.Positional)
		s.add(10)
		b := connect(t, s, driver.Config{})
		src, err := b.Source(t.Context(), driver.SourceSpec{})
		if err != nil {
			t.Fatal(err)
		}
		ds := receive(t, src, 10)
		if errs := src.Settle(t.Context(), done(ds, 1, 2, 5)); errs != nil {
			t.Fatal(errs)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(s.commits) != 0 {
			t.Fatalf("committed %v behind a gap", s.commits)
		}
		src.Settle(t.Context(), done(ds, 0))
		time.Sleep(commitEvery)
		synctest.Wait()
		if !slices.Equal(s.commits, []int64{2}) {
			t.Fatalf("committed %v, want 2", s.commits)
		}
		src.Settle(t.Context(), append(done(ds, 3), driver.Settlement{D: &ds[4], Verb: driver.Release}))
		if err := src.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.commits, []int64{2, 3}) {
			t.Errorf("committed %v: closing commits what is done, and nothing that was released", s.commits)
		}
	})
}

func TestPositionalSourceStopsAtItsGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(driver.Positional)
		s.add(maxGap + 100)
		b := connect(t, s, driver.Config{})
		src, err := b.Source(t.Context(), driver.SourceSpec{})
		if err != nil {
			t.Fatal(err)
		}
		ds := receive(t, src, maxGap)
		for i := 1; i < maxGap; i++ {
			src.Settle(t.Context(), done(ds, i))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if n, err := src.Receive(ctx, make([]driver.Delivery, 64)); n != 0 || err != nil {
			t.Fatalf("received %d more (%v) with a full gap", n, err)
		}
		if _, at, since, ok := src.(*Source).Blocked(); !ok || at != 0 || time.Since(since) != time.Minute {
			t.Errorf("Blocked: %v at %d since %s", ok, at, since)
		}
		src.Settle(t.Context(), done(ds, 0))
		receive(t, src, 100)
		if _, _, _, ok := src.(*Source).Blocked(); ok {
			t.Error("still blocked")
		}
		if err := src.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.position != maxGap-1 {
			t.Errorf("committed %d", s.position)
		}
	})
}

func TestSourceOutlivesASession(t *testing.T) {
	for _, settling := range []driver.Settling{driver.PerMessage, driver.Positional} {
		t.Run(fmt.Sprint(settling), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(settling)
				s.add(4)
				b := connect(t, s, driver.Config{})
				var lost []driver.Claim
				src, err := b.Source(t.Context(), driver.SourceSpec{Lost: func(c []driver.Claim) { lost = append(lost, c...) }})
				if err != nil {
					t.Fatal(err)
				}
				old := receive(t, src, 4)
				s.cut()
				synctest.Wait()
				if !slices.Equal(lost, []driver.Claim{old[0].Claim}) {
					t.Fatalf("lost %v, want %v", lost, old[0].Claim)
				}
				again := receive(t, src, 4)
				if again[0].Claim.Epoch <= old[0].Claim.Epoch {
					t.Errorf("epoch %d after %d", again[0].Claim.Epoch, old[0].Claim.Epoch)
				}
				errs := src.Settle(t.Context(), []driver.Settlement{{D: &old[0]}, {D: &again[0]}, {D: &old[1]}, {D: &again[1]}})
				if !errors.Is(errs[0], driver.ErrStale) || errs[1] != nil || !errors.Is(errs[2], driver.ErrStale) || errs[3] != nil {
					t.Errorf("settling old and new: %v", errs)
				}
				if err := src.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if settling == driver.Positional && s.position != 1 || settling == driver.PerMessage && !slices.Equal(s.settled, []int64{0, 1}) {
					t.Errorf("position %d, settled %v", s.position, s.settled)
				}
			})
		})
	}
}

func TestSourceTellsWhatDoesNotPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(driver.Positional)
		s.receive = func() error { return fmt.Errorf("seq 7: %w", driver.ErrPositionLost) }
		b := connect(t, s, driver.Config{})
		src, err := b.Source(t.Context(), driver.SourceSpec{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := src.Receive(t.Context(), make([]driver.Delivery, 1)); !errors.Is(err, driver.ErrPositionLost) {
			t.Fatalf("a lost position: %v", err)
		}
		fails := 0
		s.mu.Lock()
		s.receive = func() error {
			if fails++; fails <= 7 {
				return errors.New("no heartbeat")
			}
			return nil
		}
		s.mu.Unlock()
		s.add(1)
		receive(t, src, 1)
		if got := src.(*Source).opens; got != 3 {
			t.Errorf("opened %d times over 7 failures", got)
		}
		src.Drain()
		if err := src.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFlushIsStaleWhenAClaimWentUncommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(driver.Positional)
		s.add(3)
		b := connect(t, s, driver.Config{})
		src, err := b.Source(t.Context(), driver.SourceSpec{})
		if err != nil {
			t.Fatal(err)
		}
		ds := receive(t, src, 3)
		src.Settle(t.Context(), done(ds, 0))
		if err := src.(*Source).Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		src.Settle(t.Context(), done(ds, 1, 2))
		s.lost([]driver.Claim{{}})
		if err := src.(*Source).Flush(t.Context()); !errors.Is(err, driver.ErrStale) {
			t.Errorf("Flush after the claim went: %v", err)
		}
		if err := src.(*Source).Flush(t.Context()); err != nil {
			t.Errorf("it was told already, and nothing was done since: %v", err)
		}
		if err := src.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPublishersOfOldSessionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(driver.PerMessage)
		b := connect(t, s, driver.Config{})
		p := b.Publisher(driver.Ref{Kind: driver.Topic, Name: "orders"})
		for range 3 {
			if errs := p.Publish(t.Context(), []message.Message{{ID: "1"}}); errs != nil {
				t.Fatal(errs)
			}
			if err := b.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed != 2 {
			t.Errorf("of three publishers, each in a session of its own, %d were closed before the last", s.closed)
		}
	})
}

func TestFencedCommitLosesTheClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(driver.Positional)
		s.add(3)
		s.commit = func(int64) error { return fmt.Errorf("wrong last sequence: %w", driver.ErrStale) }
		b := connect(t, s, driver.Config{})
		lost := 0
		src, err := b.Source(t.Context(), driver.SourceSpec{Lost: func([]driver.Claim) { lost++ }})
		if err != nil {
			t.Fatal(err)
		}
		ds := receive(t, src, 3)
		src.Settle(t.Context(), done(ds, 0))
		time.Sleep(time.Second)
		synctest.Wait()
		if lost != 1 {
			t.Fatalf("Lost was called %d times", lost)
		}
		if errs := src.Settle(t.Context(), done(ds, 1)); len(errs) != 1 || !errors.Is(errs[0], driver.ErrStale) {
			t.Errorf("settling after the takeover: %v", errs)
		}
		if err := src.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
