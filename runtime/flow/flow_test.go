package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

func TestDeliversAndSettles(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		tell := r.listen()
		r.cfg.Policy.MaxInFlight = 1
		r.script.add("a0", "b0", "a1", "-0")
		r.start()
		after(0)
		if got := r.sink.got(); got != "a0 b0 a1 -0" {
			t.Errorf("stored %s", got)
		}
		if left := r.script.undone(); left != nil {
			t.Errorf("not settled: %v", left)
		}
		if told := tell(); len(told) != 4 || told[0].Outcome != Done {
			t.Errorf("told of %d: %+v", len(told), told)
		}
		if s := r.flow.Stats(); s.Done != 4 || s.Received != 4 || s.Window != 0 || s.State != Running || !s.Oldest.IsZero() {
			t.Errorf("stats: %+v", s)
		}
	})
}

func TestRetriesWithBackoffAndKeepsTheKeysOrder(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Retry.MaxAttempts = 10
		var at []time.Duration
		begin := time.Now()
		r.sink.handle = func(_ context.Context, id string, attempt int) error {
			if id != "a0" {
				return nil
			}
			at = append(at, time.Since(begin))
			switch attempt {
			case 4:
				return &Fault{Blame: Busy, After: time.Minute, Err: errors.New("HTTP 429")}
			case 5:
				return &Fault{Blame: Busy, After: time.Second, Err: errors.New("HTTP 503")}
			case 6:
				return nil
			}
			return refused
		}
		r.script.add("a0", "a1", "b0", "a2", "b1")
		r.start()
		after(time.Hour)
		s := time.Second
		// Backoff 1, 2, 4; then as long as was asked for; then at least the backoff of the fifth failure.
		if want := []time.Duration{0, s, 3 * s, 7 * s, 67 * s, 83 * s}; !slices.Equal(at, want) {
			t.Errorf("tried at %v, want %v", at, want)
		}
		if got := strings.Join(slices.DeleteFunc(strings.Fields(r.sink.got()), func(id string) bool { return id[0] != 'a' }), " "); got != "a0 a1 a2" {
			t.Errorf("order of the key: %s", got)
		}
		if r.grave.ids() != "" {
			t.Errorf("dead: %s", r.grave.ids())
		}
	})
}

func TestALoneFailingMessageUsesItsAttemptsUp(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.sink.handle = func(_ context.Context, id string, attempt int) error {
			if id == "a0" {
				return fmt.Errorf("HTTP 500 number %d", attempt)
			}
			return nil
		}
		tell := r.listen()
		m := message.Message{ID: "a0", Source: "/s", Key: "a", Data: []byte("x"), Attributes: []message.Attribute{{Name: "wbreason", Value: "old"}, {Name: "color", Value: "red"}}}
		r.script.publish(m)
		r.script.add("a1")
		r.start()
		after(time.Hour)
		if n := r.sink.count("a0"); n != 3 {
			t.Errorf("handled %d times, maxAttempts is 3", n)
		}
		if r.sink.got() != "a1" {
			t.Errorf("the key does not go on: %s", r.sink.got())
		}
		if len(r.grave.ms) != 1 {
			t.Fatalf("dead letters: %s", r.grave.ids())
		}
		d := r.grave.ms[0]
		var got []string
		for _, a := range d.Attributes {
			got = append(got, a.Name+"="+a.Value)
		}
		want := []string{"color=red", "wbreason=AttemptsExhausted", "wbattempts=3", "wbfirsterror=HTTP 500 number 1", "wblasterror=HTTP 500 number 3",
			"wborigin=Subscription/default/billing", "wbtime=2000-01-01T00:00:03Z"}
		if !slices.Equal(got, want) || d.ID != "a0" || d.Source != "/s" || string(d.Data) != "x" {
			t.Errorf("dead letter %s %s %v\nwant %v", d.ID, d.Source, got, want)
		}
		if left := r.script.undone(); left != nil {
			t.Errorf("not settled: %v", left)
		}
		if told := tell(); len(told) != 2 || told[0].Outcome != DeadLettered || told[0].Reason != "AttemptsExhausted" || told[0].Err == "" {
			t.Errorf("told %+v", told)
		}
		if s := r.flow.Stats(); s.DeadLettered[AttemptsExhausted] != 1 || s.Retried != 2 || s.Done != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestAnOutageIsNotPoison(t *testing.T) {
	for name, fault := range map[string]error{"500": errDown, "refused": refused, "404": nowhere404, "429": &Fault{Blame: Busy, After: time.Second, Err: errors.New("HTTP 429")}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				up := time.Now().Add(3 * time.Hour)
				r.sink.handle = func(context.Context, string, int) error {
					if time.Now().Before(up) {
						return fault
					}
					return nil
				}
				r.script.add(append(numbered("-", 60), numbered("a", 60)...)...)
				r.start()
				after(time.Minute)
				s := r.flow.Stats()
				if s.State != DestinationDown || s.BreakerSince.IsZero() {
					t.Errorf("after a minute of faults: %s, breaker since %s", s.State, s.BreakerSince)
				}
				// Not yet started, in handling when the breaker opened, and one for each probe.
				if s.Window > hoard*r.cfg.Policy.MaxInFlight+openAfter+r.cfg.Policy.MaxInFlight+10 {
					t.Errorf("%d messages are hoarded behind the breaker", s.Window)
				}
				tries := r.sink.total()
				after(time.Hour)
				if n := r.sink.total() - tries; n < 50 || n > 70 {
					t.Errorf("%d probes in an hour with a backoff of a minute at most", n)
				}
				after(3 * time.Hour)
				if r.grave.ids() != "" {
					t.Errorf("an outage dead-lettered %s", r.grave.ids())
				}
				if left := r.script.undone(); left != nil {
					t.Errorf("not delivered after the outage: %v", left)
				}
				if s := r.flow.Stats(); s.State != Running || !s.BreakerSince.IsZero() {
					t.Errorf("after the outage: %s", s.State)
				}
			})
		})
	}
}

func TestTheBreakerOpensAtTheTenthFaultAndTakesTheCountsBack(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.MaxInFlight = 3
		r.cfg.Policy.Retry = Retry{MaxAttempts: 4, Initial: time.Second, Max: time.Second, Multiplier: 1}
		var down atomic.Bool
		down.Store(true)
		r.sink.handle = func(_ context.Context, id string, _ int) error {
			if down.Load() || id == "a0" {
				return errDown
			}
			return nil
		}
		r.script.add("a0", "b0", "c0")
		r.start()
		after(2500 * time.Millisecond)
		if s := r.flow.Stats(); !s.BreakerSince.IsZero() || r.sink.total() != 9 {
			t.Fatalf("after %d faults: open since %s", r.sink.total(), s.BreakerSince)
		}
		after(time.Second)
		if s := r.flow.Stats(); s.BreakerSince.IsZero() {
			t.Fatalf("closed after %d faults", r.sink.total())
		}
		down.Store(false)
		after(time.Hour)
		if r.sink.got() != "b0 c0" && r.sink.got() != "c0 b0" {
			t.Errorf("stored %q", r.sink.got())
		}
		if r.grave.ids() != "a0" {
			t.Errorf("dead: %q", r.grave.ids())
		}
		// Its counts of the run were taken back: it had all of its four attempts after the destination was well again.
		if got := r.grave.ms[0].Attribute(message.Attempts); got != "4" {
			t.Errorf("attempts %s", got)
		}
		if n := r.sink.count("a0"); n < 7 || n > 9 {
			t.Errorf("a0 was handled %d times: up to 4 of the run, perhaps a probe, and 4 that count", n)
		}
	})
}

func TestThreeMessagesOrMoreInARunAreNotDeadLettered(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Retry = Retry{MaxAttempts: 2, Initial: time.Second, Max: time.Second, Multiplier: 1}
		r.sink.handle = func(context.Context, string, int) error { return errDown }
		r.script.add("a0", "b0")
		r.start()
		after(time.Minute)
		if got := r.grave.ids(); got != "a0 b0" && got != "b0 a0" {
			t.Errorf("two messages alone: dead %q", got)
		}
		r.script.add("c0", "d0", "e0")
		after(time.Hour)
		if len(r.grave.ms) != 2 {
			t.Errorf("dead %q, although the run covers five messages", r.grave.ids())
		}
	})
}

func TestTheBreakerFindsTheHealthyMessageAmongPoison(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.sink.handle = func(_ context.Context, id string, _ int) error {
			if id[0] == 'p' {
				return errDown
			}
			return nil
		}
		r.script.add("p0", "pp0", "ppp0", "pppp0")
		r.start()
		after(time.Hour)
		if r.flow.Stats().State != DestinationDown {
			t.Fatalf("state %s", r.flow.Stats().State)
		}
		r.script.add("a0", "b0")
		after(5 * time.Minute)
		if r.sink.got() != "a0 b0" {
			t.Errorf("stored %q: a destination that is well stays behind the breaker", r.sink.got())
		}
	})
}

func TestUnreachableNeverCounts(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Retry.Max = time.Second
		r.sink.handle = func(_ context.Context, _ string, attempt int) error {
			if attempt <= 500 {
				return refused
			}
			return nil
		}
		r.script.add("a0")
		r.start()
		after(time.Hour)
		if r.sink.got() != "a0" || r.grave.ids() != "" {
			t.Errorf("stored %q, dead %q", r.sink.got(), r.grave.ids())
		}
	})
}

func TestAddressFaultsCountOnceAnotherMessageGotThrough(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Retry = Retry{MaxAttempts: 3, Initial: time.Second, Max: time.Second, Multiplier: 1}
		r.sink.handle = func(_ context.Context, id string, _ int) error {
			if id == "a0" {
				return nowhere404
			}
			return nil
		}
		r.script.add("a0")
		r.start()
		after(10 * time.Minute)
		if r.grave.ids() != "" {
			t.Fatalf("a wrong path dead-lettered %s", r.grave.ids())
		}
		tries := r.sink.count("a0")
		r.script.add("b0")
		after(time.Minute)
		if r.grave.ids() != "a0" {
			t.Fatalf("dead %q", r.grave.ids())
		}
		if n := r.sink.count("a0") - tries; n != 3 {
			t.Errorf("%d attempts since another message got through, maxAttempts is 3", n)
		}
		if got := r.grave.ms[0].Attribute(message.Attempts); got != "3" {
			t.Errorf("wbattempts %s", got)
		}
	})
}

func TestBrokerFaultsNeitherCountNorOpenTheBreaker(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Retry.Max = time.Second
		r.sink.handle = func(_ context.Context, _ string, attempt int) error {
			if attempt <= 100 {
				return &Fault{Blame: Broker, Err: errors.New("the broker is away")}
			}
			return nil
		}
		r.script.add("a0", "b0", "c0", "d0")
		r.start()
		after(50 * time.Second)
		if s := r.flow.Stats(); s.State != Running {
			t.Errorf("state %s", s.State)
		}
		after(time.Hour)
		if len(strings.Fields(r.sink.got())) != 4 || r.grave.ids() != "" {
			t.Errorf("stored %q, dead %q", r.sink.got(), r.grave.ids())
		}
	})
}

func TestTerminalIsParkedAtOnceAndTheKeyGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.BatchSize = 8
		r.sink.handle = func(_ context.Context, id string, _ int) error {
			if id == "a2" {
				return poison
			}
			return nil
		}
		r.script.add(numbered("a", 6)...)
		r.start()
		after(0)
		if r.sink.got() != "a0 a1 a3 a4 a5" || r.grave.ids() != "a2" || r.sink.count("a2") != 1 || r.sink.count("a3") != 1 {
			t.Errorf("stored %q, dead %q, tries %v", r.sink.got(), r.grave.ids(), r.sink.tries)
		}
		if got := r.grave.ms[0].Attribute(message.Reason) + r.grave.ms[0].Attribute(message.Attempts); got != "Terminal1" {
			t.Error(got)
		}
	})
}

func TestBlockStopsTheKeyUntilItIsMended(t *testing.T) {
	for name, fault := range map[string]error{"terminal": poison, "exhausted": errDown} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.cfg.Policy.OnFailure = Block
				var mended atomic.Bool
				r.sink.handle = func(_ context.Context, id string, _ int) error {
					if id == "a1" && !mended.Load() {
						return fault
					}
					return nil
				}
				r.script.add("a0", "a1", "b0", "a2", "b1", "a3")
				r.start()
				after(time.Hour)
				if s := r.flow.Stats(); s.State != BlockedKeys || s.Blocked != 1 || s.Window != 3 {
					t.Errorf("state %s, %d blocked, window %d", s.State, s.Blocked, s.Window)
				}
				if n := r.sink.count("a1"); n < 55 || n > 65 {
					t.Errorf("tried %d times in an hour with backOff.max of a minute", n)
				}
				mended.Store(true)
				after(time.Minute)
				if got := r.sink.got(); !strings.HasSuffix(got, "a1 a2 a3") || r.grave.ids() != "" {
					t.Errorf("stored %q, dead %q", got, r.grave.ids())
				}
				if s := r.flow.Stats(); s.State != Running || s.Blocked != 0 {
					t.Errorf("state %s, %d blocked", s.State, s.Blocked)
				}
			})
		})
	}
}

func TestABlockedKeysFollowersDoNotStopTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.OnFailure = Block
		r.sink.handle = func(_ context.Context, id string, _ int) error {
			if id == "a0" {
				return poison
			}
			return nil
		}
		r.script.add(numbered("a", 80)...) // five times what may be held unstarted, yet less than the window
		r.script.add("b0")
		r.start()
		after(0)
		if r.sink.got() != "b0" {
			t.Errorf("stored %q", r.sink.got())
		}
		r.script.add(numbered("a", 40)...)
		after(0)
		r.script.add("b1")
		after(time.Second)
		if s := r.flow.Stats(); s.State != RetryWindowFull || s.Window != 100 || r.sink.got() != "b0" {
			t.Errorf("state %s, window %d, stored %q", s.State, s.Window, r.sink.got())
		}
	})
}

func TestGuards(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.script.add("a0", "a1", "b0")
		r.script.msgs[0].count = 3*3 + 10 // its next delivery is one too many
		r.script.msgs[1].count = 3*3 + 9
		loop := message.Message{ID: "c0", Attributes: []message.Attribute{{Name: message.Hops, Value: "17"}}}
		last := message.Message{ID: "c1", Attributes: []message.Attribute{{Name: message.Hops, Value: "16"}}}
		r.script.publish(loop, last)
		r.start()
		after(0)
		if r.sink.count("a0")+r.sink.count("c0") != 0 || len(strings.Fields(r.sink.got())) != 3 {
			t.Errorf("stored %q, tried %v", r.sink.got(), r.sink.tries)
		}
		reasons := map[string]string{}
		for _, m := range r.grave.ms {
			reasons[m.ID] = m.Attribute(message.Reason)
		}
		if reasons["a0"] != "CrashLoop" || reasons["c0"] != "Loop" || len(reasons) != 2 {
			t.Errorf("dead %v", reasons)
		}
	})
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.OnFailure = Block
		r.script.add("a0")
		r.script.msgs[0].count = 1000
		r.start()
		after(0)
		if r.sink.got() != "a0" {
			t.Error("the crash-loop guard broke the order of a key that is to block")
		}
	})
}

func TestWhatExpiredBeforeItsStartIsDropped(t *testing.T) {
	for _, when := range []WhenExpired{Drop, Deliver} {
		bubble(t, func(t *testing.T, r *rig) {
			r.cfg.Policy.WhenExpired = when
			r.cfg.Policy.MaxInFlight = 1
			expires := func(id string, d time.Duration) message.Message {
				return message.Message{ID: id}.With(message.ExpiryTime, time.Now().Add(d).Format(time.RFC3339Nano))
			}
			r.sink.handle = func(_ context.Context, id string, attempt int) error {
				if id == "slow" {
					time.Sleep(time.Second)
				}
				if id == "started" && attempt == 1 {
					return refused // its time passes while it waits: it was started in time
				}
				return nil
			}
			r.script.publish(expires("gone", -time.Second), expires("started", 500*time.Millisecond), expires("slow", time.Hour), expires("late", 500*time.Millisecond))
			r.script.publish(message.Message{ID: "odd"}.With(message.ExpiryTime, "tomorrow"))
			r.start()
			after(time.Minute)
			want, dropped := []string{"slow", "odd", "started"}, uint64(2)
			if when == Deliver {
				want, dropped = []string{"gone", "slow", "late", "odd", "started"}, 0
			}
			got := strings.Fields(r.sink.got())
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) || r.flow.Stats().Expired != dropped {
				t.Errorf("%s: stored %v, want %v; expired %d", when, got, want, r.flow.Stats().Expired)
			}
			if left := r.script.undone(); left != nil {
				t.Errorf("not settled: %v", left)
			}
		})
	}
}

func TestAtMostOnceSettlesFirstAndTriesOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.AtMostOnce = true
		r.cfg.DeadLetter = nil
		var early []string
		r.sink.handle = func(_ context.Context, id string, _ int) error {
			if slices.Contains(r.script.undone(), id) {
				early = append(early, id)
			}
			if id == "a1" || id == "b0" {
				return poison
			}
			return nil
		}
		r.script.add("a0", "a1", "a2", "b0", "b1")
		r.script.publish(message.Message{ID: "loop"}.With(message.Hops, "99"))
		r.start()
		after(time.Hour)
		if len(early) > 0 || r.sink.total() != 5 {
			t.Errorf("handled before they were settled: %v; tries %v", early, r.sink.tries)
		}
		if s := r.flow.Stats(); s.Failed != 2 || s.Done != 3 || s.Dropped["Loop"] != 1 || s.State != Running {
			t.Errorf("stats %+v", s)
		}
	})
}

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
		r.script.take(ctx, "")
		if n := r.sink.count("d0") + r.sink.count("d1"); n != 1 {
			t.Errorf("%d handlings of d0 and d1 before they came again", n)
		}
		if d := time.Since(begin); d != 20*time.Second {
			t.Errorf("returned after %s; b0 hangs until its ctx ends", d)
		}
		if !slices.Equal(r.script.settled(), []string{"a0"}) {
			t.Errorf("settled %v before the claims were given up", r.script.settled())
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
		if got := r.drain(1500 * time.Millisecond); got.Finished != 4 || got.Lost != 0 || got.Cancelled != 2 {
			// Two were done, two cancelled in their one attempt: all four ended.
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

func TestAPanicStaysWithItsMessage(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.BatchSize = 8
		r.sink.handle = func(_ context.Context, id string, _ int) error {
			if id == "c0" {
				var m map[string]int
				m[id] = 1
			}
			return nil
		}
		r.script.add("a0", "b0", "c0", "c1", "d0")
		r.start()
		after(time.Hour)
		if r.grave.ids() != "c0" || !strings.Contains(r.grave.ms[0].Attribute(message.LastError), "panicked") {
			t.Errorf("dead %q", r.grave.ids())
		}
		if left := r.script.undone(); left != nil {
			t.Errorf("not settled: %v", left)
		}
		if n := r.sink.count("c0"); n != 1+3 {
			t.Errorf("c0 was handled %d times: once with its batch, three times alone", n)
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

func TestADeadLetterThatIsAwayLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.grave.fail = func() error { return errors.New("no stream") }
		r.sink.handle = func(_ context.Context, id string, _ int) error {
			if id == "a0" {
				return poison
			}
			return nil
		}
		r.script.add("a0", "a1", "b0")
		r.start()
		after(time.Hour)
		if s := r.flow.Stats(); s.State != DeadLetterDown || s.Window != 2 || r.sink.got() != "b0" {
			t.Errorf("state %s, window %d, stored %q", s.State, s.Window, r.sink.got())
		}
		r.grave.mu.Lock()
		r.grave.fail = nil
		r.grave.mu.Unlock()
		after(time.Hour)
		if r.grave.ids() != "a0" || r.sink.got() != "b0 a1" || r.sink.count("a0") != 1 {
			t.Errorf("dead %q, stored %q, tried %v", r.grave.ids(), r.sink.got(), r.sink.tries)
		}
		if s := r.flow.Stats(); s.State != Running {
			t.Errorf("state %s", s.State)
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

func TestStrictHandlesOneAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Ordering = driver.Strict
		r.cfg.Policy.BatchSize = 4
		r.sink.strict = true
		r.sink.handle = func(ctx context.Context, id string, attempt int) error {
			if id == "b0" && attempt < 3 {
				return refused
			}
			return wait(ctx, time.Millisecond)
		}
		r.script.add("a0", "b0", "-1", "a1", "c0")
		r.start()
		after(time.Minute)
		if r.sink.got() != "a0 b0 -1 a1 c0" || slices.Max(r.sink.batches) != 1 {
			t.Errorf("stored %q in batches %v", r.sink.got(), r.sink.batches)
		}
	})
}

func TestBatchesHoldBackWhatFollowsAFailure(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.BatchSize, r.cfg.Policy.MaxInFlight = 64, 64
		seen := map[string]int{}
		r.cfg.Stages = []Stage{stageFunc(func(_ context.Context, b *Batch) {
			for _, e := range b.Events {
				seen[e.Message.ID]++
				if e.Message.ID == "a1" && b.Inputs[e.Input].Attempt == 1 {
					b.Fail(e.Input, errDown)
				}
			}
		}), r.sink}
		r.script.add("a0", "b0", "a1", "-1", "a2", "b1", "a3", "-2")
		r.start()
		after(0)
		if got := strings.Fields(r.sink.got()); len(got) != 5 || slices.Contains(got, "a2") {
			t.Errorf("stored %v while a1 waits", got)
		}
		after(time.Minute)
		if got := r.sink.got(); !strings.HasSuffix(got, "a1 a2 a3") {
			t.Errorf("stored %q", got)
		}
		if s := r.flow.Stats(); s.Retried != 1 {
			t.Errorf("%d retries counted: what was held back was not attempted", s.Retried)
		}
	})
}

type stageFunc func(context.Context, *Batch)

func (f stageFunc) Process(ctx context.Context, b *Batch) { f(ctx, b) }

func TestDropsAndCommit(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		c := &committer{}
		r.cfg.Policy.BatchSize = 8
		filter := stageFunc(func(_ context.Context, b *Batch) {
			b.Events = slices.DeleteFunc(b.Events, func(e Event) bool {
				drop := e.Message.ID == "b0"
				if drop {
					b.Inputs[e.Input].Dropped = "filter"
				}
				return drop
			})
		})
		r.sink.handle = func(_ context.Context, id string, attempt int) error {
			if id == "a0" && attempt == 1 {
				return refused
			}
			return nil
		}
		r.cfg.Stages = []Stage{filter, c, r.sink}
		r.script.add("a0", "a1", "b0", "c0")
		r.start()
		after(time.Minute)
		if s := r.flow.Stats(); s.Dropped["filter"] != 1 || s.Done != 3 {
			t.Errorf("stats %+v", s)
		}
		slices.Sort(c.done)
		if !slices.Equal(c.done, []string{"a0", "a1", "b0", "c0"}) {
			t.Errorf("committed %v: once each, and only what was done", c.done)
		}
	})
}

type committer struct{ done []string }

func (*committer) Process(context.Context, *Batch) {}
func (c *committer) Commit(b *Batch) {
	for _, in := range b.Inputs {
		if in.Err == nil {
			c.done = append(c.done, in.Delivery.Message.ID)
		}
	}
}

func TestADropThatReachedTheDestinationClosesTheBreaker(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var down atomic.Bool
		down.Store(true)
		r.cfg.Stages = []Stage{stageFunc(func(_ context.Context, b *Batch) {
			for _, e := range b.Events {
				if down.Load() {
					b.Fail(e.Input, errDown)
				} else {
					b.Inputs[e.Input].Dropped, b.Inputs[e.Input].Reached = "no content", true
				}
			}
		})}
		r.script.add(numbered("-", 12)...)
		r.start()
		after(time.Minute)
		if s := r.flow.Stats(); s.State != DestinationDown {
			t.Fatalf("state %s", s.State)
		}
		down.Store(false)
		after(10 * time.Minute)
		if s := r.flow.Stats(); s.State != Running || s.Dropped["no content"] != 12 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestThreeRestartsDeadLetterNothingHealthy(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Retry.MaxAttempts = 2
		starts := 0
		r.sink.handle = func(ctx context.Context, id string, _ int) error {
			if starts < 4 {
				if id[0] == 'f' {
					return errDown // one failed attempt in each life
				}
				return wait(ctx, time.Hour) // cancelled by each shutdown
			}
			return nil
		}
		r.script.add("a0", "a1", "b0", "c0", "f0")
		for starts = 1; starts <= 3; starts++ {
			r.start()
			after(100 * time.Millisecond)
			r.drain(100 * time.Millisecond)
		}
		r.start()
		after(time.Minute)
		if r.grave.ids() != "" || len(strings.Fields(r.sink.got())) != 5 {
			t.Errorf("dead %q, stored %q", r.grave.ids(), r.sink.got())
		}
	})
}

func TestNoHoarding(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Ordering = driver.None
		r.cfg.Policy.MaxInFlight = 4
		r.sink.handle = func(ctx context.Context, _ string, _ int) error { return wait(ctx, time.Second) }
		r.script.add(numbered("-", 50)...)
		r.start()
		for range 20 {
			after(300 * time.Millisecond)
			if out := r.script.given(); out > 4+hoard*4 {
				t.Fatalf("%d are held, 4 are in handling", out)
			}
		}
		after(time.Minute)
		if left := r.script.undone(); left != nil {
			t.Errorf("left %v", left)
		}
	})
}

func TestTheWindowBoundsBytes(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Window.Bytes = 10_000
		r.sink.handle = func(_ context.Context, id string, _ int) error { return refused }
		var ms []message.Message
		for i := range 50 {
			ms = append(ms, message.Message{ID: strconv.Itoa(i), Data: make([]byte, 1000)})
		}
		r.script.publish(ms[0])
		r.start()
		after(0)
		r.script.publish(ms[1:]...)
		after(time.Minute)
		if s := r.flow.Stats(); s.WindowBytes > 10_000 || s.Window < 8 || s.State != RetryWindowFull && s.State != DestinationDown {
			t.Errorf("%d messages, %d bytes, %s", s.Window, s.WindowBytes, s.State)
		}
	})
}

func TestErrorTextIsFitForAnAttribute(t *testing.T) {
	got := errorText(strings.Repeat("ä", 600) + "\n")
	if len(got) != 1024 || strings.ContainsAny(got, "\r\n") {
		t.Errorf("%d bytes", len(got))
	}
	if got := errorText("a\r\nb\xff"); got != "a  b?" {
		t.Errorf("%q", got)
	}
}
