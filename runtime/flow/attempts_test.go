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
		if told := tell(); len(told) != 2 || told[1].Outcome != DeadLettered || told[1].Reason != "AttemptsExhausted" || told[1].Err == "" {
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
				if s.State != DestinationDown || s.BreakerSince.IsZero() || s.Detail != fault.Error() {
					t.Errorf("after a minute of faults: %s (%s), breaker since %s", s.State, s.Detail, s.BreakerSince)
				}
				// Not yet started, in handling when the breaker opened, and one for each probe.
				if s.Window > hoard*r.cfg.Policy.MaxInFlight+openAfter+r.cfg.Policy.MaxInFlight+10 {
					t.Errorf("%d messages are hoarded behind the breaker", s.Window)
				}
				tries := r.sink.total()
				after(time.Hour)
				if n := r.sink.total() - tries; n < 115 || n > 125 {
					t.Errorf("%d probes in an hour, although one is due every 30 seconds", n)
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
				return &Fault{Blame: Address, Err: nowhere404, At: "http://a/b"}
			}
			return nil
		}
		r.script.add("a0")
		r.start()
		after(10 * time.Minute)
		if r.grave.ids() != "" {
			t.Fatalf("a wrong path dead-lettered %s", r.grave.ids())
		}
		if s := r.flow.Stats(); s.State != Retrying || s.Detail != nowhere404.Error()+" (http://a/b)" {
			t.Errorf("state %s (%s)", s.State, s.Detail)
		}
		tries := r.sink.count("a0")
		r.script.add("b0")
		after(time.Minute)
		if s := r.flow.Stats(); s.State != Running || s.Detail != "" {
			t.Errorf("afterwards: state %s (%s)", s.State, s.Detail)
		}
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

func TestWhatIsFullIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var room atomic.Bool
		r.sink.handle = func(context.Context, string, int) error {
			if !room.Load() {
				return &Fault{Blame: Broker, Err: fmt.Errorf("Queue box: %w", driver.ErrFull)}
			}
			return nil
		}
		r.script.add("a0", "b0")
		r.start()
		after(10 * time.Minute)
		if s := r.flow.Stats(); s.State != Retrying || !strings.HasPrefix(s.Detail, "Queue box: the object is full; message id=") {
			t.Errorf("state %s (%s)", s.State, s.Detail)
		}
		room.Store(true)
		after(time.Hour)
		if s := r.flow.Stats(); s.State != Running || s.Done != 2 || r.grave.ids() != "" {
			t.Errorf("with room: state %s, %d done, dead %q", s.State, s.Done, r.grave.ids())
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
				if s := r.flow.Stats(); s.State != BlockedKeys || s.Blocked != 1 || s.Window != 3 || s.Detail != fault.Error()+"; message id=a1 source=/test" {
					t.Errorf("state %s, %d blocked, window %d", s.State, s.Blocked, s.Window)
				}
				if told := r.log.String(); strings.Count(told, "id=a1 source=/test") != 1 {
					t.Errorf("the log names it other than once:\n%s", told)
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

func TestAPanicStaysWithItsMessage(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.BatchSize = 8
		r.sink.handle = func(_ context.Context, id string, _ int) error {
			if id == "c0" {
				var nobody *rig
				nobody.t.Log(id)
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

func TestADropThatReachedTheDestinationClosesTheBreaker(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var down atomic.Bool
		down.Store(true)
		r.cfg.Stages = []Stage{stageFunc(func(_ context.Context, b *Batch) {
			for _, e := range b.Events {
				if down.Load() {
					b.Fail(e.Input, errDown)
				} else {
					b.Inputs[e.Input].Dropped = "no content"
					b.Reach(e.Input)
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

// Two steps call two servers. What ends at the first says nothing about the second, whose path is wrong.
func TestADropAtAnEarlierDestinationConvictsNothing(t *testing.T) {
	// The first two of an outage that answers 500 are known for one only by others that fail too.
	for name, c := range map[string]struct {
		fault error
		most  int
	}{"404": {nowhere404, 0}, "500": {errDown, 2}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.cfg.Policy.Ordering = driver.None
				r.cfg.Policy.Retry = Retry{MaxAttempts: 3, Initial: 200 * time.Millisecond, Max: 200 * time.Millisecond, Multiplier: 1}
				first := stageFunc(func(_ context.Context, b *Batch) {
					b.Events = slices.DeleteFunc(b.Events, func(e Event) bool {
						drop := e.Message.Key == "d"
						if drop {
							b.Inputs[e.Input].Dropped = "no content"
							b.Reach(e.Input)
						}
						return drop
					})
				})
				second := stageFunc(func(_ context.Context, b *Batch) { b.FailAll(c.fault) })
				r.cfg.Stages = []Stage{first, second}
				r.start()
				for i := range 50 {
					r.script.add(fmt.Sprintf("d%d", i))
					if i%6 == 0 {
						r.script.add(fmt.Sprintf("m%d", i))
					}
					after(130 * time.Millisecond)
				}
				after(time.Minute)
				if dead := strings.Fields(r.grave.ids()); len(dead) > c.most {
					t.Errorf("dead: %v", dead)
				}
			})
		})
	}
}

// What one message failed at the second does not keep an outage of the first going, and is its own fault.
func TestAnOutageOfTheFirstDestinationEndsThoughOneFailsAtTheSecond(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Ordering = driver.None
		r.cfg.Policy.Retry.MaxAttempts = 5
		begin := time.Now()
		first := stageFunc(func(_ context.Context, b *Batch) {
			past := time.Since(begin)
			b.Events = slices.DeleteFunc(b.Events, func(e Event) bool {
				switch {
				case past > 500*time.Millisecond && past < time.Minute:
					b.Fail(e.Input, errDown)
				case e.Message.ID != "x0":
					b.Inputs[e.Input].Dropped = "no content"
					b.Reach(e.Input)
					return true
				}
				return false
			})
		})
		r.cfg.Stages = []Stage{first, stageFunc(func(_ context.Context, b *Batch) { b.FailAll(errDown) })}
		r.script.add("x0")
		r.start()
		after(600 * time.Millisecond)
		r.script.add(numbered("d", 12)...)
		after(3 * time.Minute)
		if s := r.flow.Stats(); s.State == DestinationDown || s.Dropped["no content"] != 12 {
			t.Errorf("two minutes after the first is well again: %+v", s)
		}
		for i := range 200 {
			r.script.add(fmt.Sprintf("d%d", 100+i))
			after(6 * time.Second)
		}
		if s := r.flow.Stats(); s.State != Running || r.grave.ids() != "x0" {
			t.Errorf("in the end: %s, dead %q", s.State, r.grave.ids())
		}
	})
}

// What waits need not wait longer when an outage is over, in the second one of a process as in its first.
func TestAnOutageThatIsOverIsOverForAllEachTime(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Retry = Retry{MaxAttempts: 5, Initial: 15 * time.Minute, Max: 15 * time.Minute, Multiplier: 1}
		for n := range 3 {
			up := time.Now().Add(time.Minute)
			r.sink.handle = func(context.Context, string, int) error {
				if time.Now().Before(up) {
					return errDown
				}
				return nil
			}
			r.script.add(numbered("a", 12)...)
			r.script.add(numbered("b", 12)...)
			r.script.add(numbered("-", 12)...)
			if n == 0 {
				r.start()
			}
			after(3 * time.Minute)
			if left := r.script.undone(); left != nil {
				t.Errorf("outage %d is over for two minutes: left %v", n, left)
			}
		}
	})
}

// A group of messages that the destination fails for is tried with its backoff, however often others close the breaker, and is used up.
func TestAGroupOfPoisonIsUsedUpBesideOthers(t *testing.T) {
	for _, n := range []int{5, 12, 20, 100} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				p := &r.cfg.Policy
				p.Ordering, p.MaxInFlight, p.Window.Messages = driver.None, 64, 256
				p.Retry.MaxAttempts, p.Retry.JitterPercent = 5, 20
				r.sink.handle = func(_ context.Context, id string, attempt int) error {
					switch {
					case id[0] != 'p':
						return nil
					case attempt > 20:
						t.Errorf("%s is tried the %dth time", id, attempt)
					}
					return errDown
				}
				poison := numbered("p", n)
				r.script.add(poison...)
				r.start()
				const healthy = 2400
				for i := range healthy {
					r.script.add(fmt.Sprintf("h%d", i))
					after(500 * time.Millisecond)
				}
				r.sink.overlaps = nil // keys mean nothing
				if dead := strings.Fields(r.grave.ids()); len(dead) != n {
					t.Errorf("after 20 minutes %d of %d are dead: %v", len(dead), n, dead)
				}
				if left := r.script.undone(); left != nil {
					t.Errorf("left %v", left)
				}
				t.Logf("%+v", r.flow.Stats())
			})
		})
	}
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

func TestErrorTextIsFitForAnAttribute(t *testing.T) {
	got := errorText(strings.Repeat("ä", 600) + "\n")
	if len(got) != 1024 || strings.ContainsAny(got, "\r\n") {
		t.Errorf("%d bytes", len(got))
	}
	if got := errorText("a\r\nb\xff"); got != "a  b?" {
		t.Errorf("%q", got)
	}
}
