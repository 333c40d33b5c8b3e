package flow

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

var errCut = &Fault{Blame: Cut, Err: errors.New("connection reset by peer")}

// TestAnOutageIsNotPoisonForFewMessages: where order, or a low maxAttempts, lets a flow try fewer messages than tell an outage.
func TestAnOutageIsNotPoisonForFewMessages(t *testing.T) {
	for name, set := range map[string]func(p *Policy){
		"strict":      func(p *Policy) { p.Ordering = driver.Strict },
		"strict once": func(p *Policy) { p.Ordering, p.Retry.MaxAttempts = driver.Strict, 1 },
		"one key":     func(*Policy) {},
		"batches":     func(p *Policy) { p.BatchSize = 4 },
		"unordered":   func(p *Policy) { p.Ordering, p.MaxInFlight, p.Retry.MaxAttempts = driver.None, 1, 1 },
	} {
		for _, outage := range []time.Duration{10 * time.Second, time.Minute, 3 * time.Hour} {
			t.Run(name+" "+outage.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, r *rig) {
					set(&r.cfg.Policy)
					up := time.Now().Add(outage)
					r.sink.handle = func(context.Context, string, int) error {
						if time.Now().Before(up) {
							return errDown
						}
						return nil
					}
					r.script.add(numbered("a", 8)...)
					r.start()
					after(outage + 10*time.Minute)
					got := strings.Fields(r.sink.got())
					if r.cfg.Policy.Ordering == driver.None {
						slices.Sort(got)
					}
					if !slices.Equal(got, numbered("a", 8)) || r.grave.ids() != "" {
						t.Errorf("stored %q, dead %q", got, r.grave.ids())
					}
				})
			})
		}
	}
}

func TestPoisonStopsNoOrder(t *testing.T) {
	for name, ordering := range map[string]driver.Ordering{"strict": driver.Strict, "key": driver.Key} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.cfg.Policy.Ordering = ordering
				r.sink.handle = func(_ context.Context, id string, _ int) error {
					if slices.Contains([]string{"a0", "a1", "a4", "a7"}, id) {
						return errDown
					}
					return nil
				}
				r.script.add(numbered("a", 8)...)
				r.start()
				after(10 * time.Minute)
				if r.sink.got() != "a2 a3 a5 a6" || r.grave.ids() != "a0 a1 a4 a7" {
					t.Errorf("stored %q, dead %q", r.sink.got(), r.grave.ids())
				}
				var attempts []string
				for _, m := range r.grave.ms {
					attempts = append(attempts, m.Attribute(message.Attempts))
				}
				// While a1 uses its attempts up, a0 is tried once more before each.
				if got := strings.Join(attempts, " "); got != "5 3 3 3" {
					t.Errorf("attempts %s", got)
				}
				tries := strings.Join(r.sink.tries, " ")
				if want := "a0 a0 a0 a1 a0 a1 a0 a1 a2 a3 a4 a4 a4 a5 a6 a7 a7 a7"; tries != want {
					t.Errorf("tried %s\nwant %s", tries, want)
				}
			})
		})
	}
}

func TestAFilterThatLetsNothingThroughKeepsNoPoison(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Ordering = driver.Strict
		r.cfg.Stages = []Stage{stageFunc(func(_ context.Context, b *Batch) {
			for _, e := range b.Events {
				if e.Message.ID == "a0" {
					b.Fail(e.Input, errDown)
				} else {
					b.Inputs[e.Input].Dropped = "filter"
				}
			}
		})}
		r.script.add("a0")
		stop := time.Now().Add(time.Hour)
		go func() {
			for time.Now().Before(stop) {
				time.Sleep(time.Second)
				r.script.add("a1")
			}
		}()
		r.start()
		after(2 * time.Hour)
		if r.grave.ids() != "a0" {
			t.Errorf("dead %q", r.grave.ids())
		}
	})
}

// A crash is a subscriber of one process that one message ends: whoever is with it is cut off too, and then it is away for a while.
type crash struct {
	handlingFor func() time.Duration

	mu      sync.Mutex
	life    context.Context
	end     context.CancelFunc
	back    time.Time
	crashes int
}

func (c *crash) handle(_ context.Context, id string, _ int) error {
	c.mu.Lock()
	if time.Now().Before(c.back) {
		c.mu.Unlock()
		return refused
	}
	if c.life == nil || c.life.Err() != nil {
		c.life, c.end = context.WithCancel(context.Background())
	}
	life := c.life
	if strings.HasPrefix(id, "poison") {
		c.crashes++
		c.back = time.Now().Add(2 * time.Second)
		c.end()
		life = c.life
	}
	c.mu.Unlock()
	if life.Err() != nil || wait(life, c.handlingFor()) != nil {
		return errCut
	}
	return nil
}

func TestAMessageThatEndsItsSubscriberIsDeadLettered(t *testing.T) {
	for name, busy := range map[string]bool{"quiet": false, "busy": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.cfg.Policy.Ordering = driver.None
				r.cfg.Policy.MaxInFlight = 32
				c := &crash{handlingFor: func() time.Duration { return time.Duration(rand.Int64N(int64(time.Second))) }}
				r.sink.handle = c.handle
				r.start()
				r.script.add("poison")
				n := 0
				for range 3600 {
					if busy || n < 60 {
						r.script.add(numbered("-", 1)...)
						n++
					}
					after(100 * time.Millisecond)
				}
				after(time.Hour)
				if r.grave.ids() != "poison" {
					t.Fatalf("dead %q after %d crashes, stored %d of %d", r.grave.ids(), c.crashes, len(strings.Fields(r.sink.got())), n)
				}
				if got := len(strings.Fields(r.sink.got())); got != n {
					t.Errorf("stored %d of %d", got, n)
				}
				t.Logf("%d crashes", c.crashes)
			})
		})
	}
}

func TestCutConnectionsOfAnOutageCountNothing(t *testing.T) {
	for name, set := range map[string]func(p *Policy){
		"strict":    func(p *Policy) { p.Ordering = driver.Strict },
		"one key":   func(*Policy) {},
		"unordered": func(p *Policy) { p.Ordering = driver.None },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				set(&r.cfg.Policy)
				r.cfg.Policy.Retry.MaxAttempts = 1
				var down atomic.Bool
				r.sink.handle = func(context.Context, string, int) error {
					if down.Load() {
						return errCut
					}
					return nil
				}
				r.script.add(numbered("a", 20)...)
				r.start()
				for range 3 { // and so does an outage that comes back
					after(time.Second)
					down.Store(true)
					r.script.add(numbered("b", 20)...)
					after(time.Hour)
					down.Store(false)
					after(10 * time.Minute)
				}
				if r.cfg.Policy.Ordering == driver.None {
					r.sink.overlaps = nil // keys mean nothing
				}
				if n := len(strings.Fields(r.sink.got())); n != 80 || r.grave.ids() != "" {
					t.Errorf("stored %d of 80, dead %q", n, r.grave.ids())
				}
			})
		})
	}
}

// TestAStrictOutageThatAnswersInMixedWays: with others behind them no message is dead-lettered. Where they come one by one, the first two may
// be: nothing tells an outage from messages that alone get 500 before a third one fails too.
func TestAStrictOutageThatAnswersInMixedWays(t *testing.T) {
	for name, c := range map[string]struct{ pause, most int }{"a backlog": {0, 0}, "one by one": {2000, 2}} {
		t.Run(name, func(t *testing.T) {
			for _, attempts := range []int{1, 3, 10} {
				for seed := range uint64(100) {
					bubble(t, func(t *testing.T, r *rig) {
						random := rand.New(rand.NewPCG(seed, uint64(attempts)))
						answers := []error{errDown, nowhere404, errCut, refused, &Fault{Blame: Busy, After: time.Second, Err: errDown}}
						r.cfg.Policy.Ordering, r.cfg.Policy.Retry.MaxAttempts = driver.Strict, attempts
						up := time.Now().Add(time.Hour)
						r.sink.handle = func(context.Context, string, int) error {
							if time.Now().After(up) {
								return nil
							}
							return answers[random.IntN(len(answers))]
						}
						var pauses []time.Duration
						for range 20 {
							pauses = append(pauses, time.Duration(random.IntN(c.pause+1))*time.Millisecond)
						}
						ids := numbered("a", 20)
						if c.pause == 0 {
							r.script.add(ids...) // they are there before the first is tried
							ids = nil
						}
						r.start()
						for i, id := range ids {
							r.script.add(id)
							after(pauses[i])
						}
						after(2 * time.Hour)
						if dead := len(strings.Fields(r.grave.ids())); dead > c.most || dead+len(strings.Fields(r.sink.got())) != 20 {
							t.Errorf("%d attempts, seed %d: dead %q, stored %q", attempts, seed, r.grave.ids(), r.sink.got())
						}
					})
				}
			}
		})
	}
}

func TestAMessageThatEndsItsSubscriberIsNamedWhereItStopsTheOrder(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Ordering = driver.Strict
		r.sink.handle = func(_ context.Context, id string, _ int) error {
			if id == "a0" {
				return errCut
			}
			return nil
		}
		r.script.add("a0", "a1")
		r.start()
		after(time.Hour)
		if s := r.flow.Stats(); s.State != Retrying || s.Detail != errCut.Error()+"; message id=a0 source=/test" {
			t.Errorf("state %s (%s)", s.State, s.Detail)
		}
		if told := r.log.String(); strings.Count(told, "id=a0 source=/test") != 1 {
			t.Errorf("the log names it other than once:\n%s", told)
		}
	})
}

func TestADrainParksWhatTheOrderWentOnWithout(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Ordering, r.cfg.Policy.Retry.MaxAttempts = driver.Strict, 1
		r.sink.handle = func(ctx context.Context, id string, _ int) error {
			if id == "a0" {
				return errDown
			}
			return wait(ctx, 10*time.Second)
		}
		r.script.add("a0", "a1", "a2")
		r.start()
		after(time.Second)
		if got := r.drain(time.Minute); got.Finished != 2 || got.Released != 1 || r.sink.got() != "a1" || r.grave.ids() != "a0" {
			t.Errorf("%+v, stored %q, dead %q", got, r.sink.got(), r.grave.ids())
		}
	})
}

func TestMessagesThatPanicAreParkedTogether(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.BatchSize, r.cfg.Policy.Retry.MaxAttempts = 8, 1
		r.sink.handle = func(_ context.Context, id string, _ int) error {
			if id != "d0" {
				panic(id)
			}
			return nil
		}
		r.script.add("a0", "b0", "d0")
		r.start()
		after(time.Hour)
		if len(r.grave.ms) != 2 || r.sink.got() != "d0" {
			t.Errorf("dead %q, stored %q", r.grave.ids(), r.sink.got())
		}
	})
}

// stuckGrave is a dead letter that does not answer.
type stuckGrave struct{ calls chan struct{} }

func (g *stuckGrave) Publish(ctx context.Context, ms []message.Message) []error {
	select {
	case g.calls <- struct{}{}:
	default:
	}
	<-ctx.Done()
	errs := make([]error, len(ms))
	for i := range errs {
		errs[i] = ctx.Err()
	}
	return errs
}

func TestADeadLetterThatHangsEndsWithTheDrain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		stuck := &stuckGrave{calls: make(chan struct{}, 1000)}
		r.cfg.DeadLetter = stuck
		r.sink.handle = func(context.Context, string, int) error { return poison }
		r.script.add("a0")
		r.start()
		after(time.Second)
		begin := time.Now()
		got := r.drain(time.Second)
		if got.Cancelled != 1 || got.Released != 1 || time.Since(begin) > time.Second || len(stuck.calls) != 1 {
			t.Errorf("%+v after %v, %d tries", got, time.Since(begin), len(stuck.calls))
		}
	})
}

func TestPoisonThatCutsIsDeadLetteredWhereOthersAreRare(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Ordering = driver.None
		r.sink.handle = func(_ context.Context, id string, _ int) error {
			if id == "poison" {
				return errCut
			}
			return nil
		}
		r.script.add("poison")
		r.start()
		for range 6 {
			after(time.Hour)
			r.script.add("-1")
		}
		after(time.Minute)
		if r.grave.ids() != "poison" {
			t.Errorf("dead %q after %d tries", r.grave.ids(), r.sink.count("poison"))
		}
	})
}

func TestProbesAreNoFurtherApartThanPromised(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Retry.JitterPercent = 50
		var times []time.Time
		r.sink.handle = func(context.Context, string, int) error {
			times = append(times, time.Now())
			return errors.New("HTTP 500")
		}
		r.cfg.Policy.MaxInFlight = 1
		r.script.add("a0", "b0", "c0", "d0")
		r.start()
		after(time.Hour)
		for i := 1; i < len(times); i++ {
			if d := times[i].Sub(times[i-1]); d > probeMost {
				t.Fatalf("%v between two tries", d)
			}
		}
	})
}

// TestAnOutageClearsWhatWaitsBehindWhatIsTried: a0 and a1 were in doubt when a third message failed, while a0 was being tried again.
func TestAnOutageClearsWhatWaitsBehindWhatIsTried(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Retry.MaxAttempts = 1
		var up atomic.Bool
		r.sink.handle = func(ctx context.Context, id string, attempt int) error {
			if up.Load() {
				return nil
			}
			switch {
			case id == "b0" && attempt == 1:
				_ = wait(ctx, 5*time.Second)
			case id == "a0" && attempt == 2:
				_ = wait(ctx, 10*time.Second)
			}
			return errDown
		}
		r.script.add("b0", "a0", "a1")
		r.start()
		after(20 * time.Second)
		up.Store(true)
		r.script.add("c0")
		after(10 * time.Minute)
		if r.grave.ids() != "" {
			t.Errorf("dead %q, stored %q, tried %v", r.grave.ids(), r.sink.got(), r.sink.tries)
		}
	})
}

// TestAFilterBehindWhatIsInDoubtTellsNothing: what follows a0 in its order is dropped, while others show that the destination is away.
func TestAFilterBehindWhatIsInDoubtTellsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Retry.MaxAttempts = 1
		var up atomic.Bool
		r.cfg.Stages = []Stage{stageFunc(func(ctx context.Context, b *Batch) {
			for _, e := range b.Events {
				if e.Message.ID == "a1" {
					_ = wait(ctx, 5*time.Second)
					b.Inputs[e.Input].Dropped = "filter"
				} else if !up.Load() {
					b.Fail(e.Input, errDown)
				}
			}
			if up.Load() {
				r.sink.Process(ctx, b)
			}
		})}
		r.script.add("a0", "a1", "a2")
		r.start()
		after(time.Second)
		r.script.add("b0", "c0", "d0")
		after(time.Second)
		r.script.add("a3")
		after(2900 * time.Millisecond)
		up.Store(true)
		after(10 * time.Minute)
		if got := r.sink.got(); r.grave.ids() != "" || !strings.Contains(got, "a0") || strings.Index(got, "a0") > strings.Index(got, "a2") {
			t.Errorf("dead %q, stored %q", r.grave.ids(), r.sink.got())
		}
	})
}

// TestWhatIsGivenUpIsParkedBeforeTheOrderGoesOn: a1 got through, so a0 is at fault; a2 of the same batch is in doubt itself.
func TestWhatIsGivenUpIsParkedBeforeTheOrderGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Retry.MaxAttempts, r.cfg.Policy.BatchSize = 1, 4
		r.sink.handle = func(ctx context.Context, id string, _ int) error {
			switch id {
			case "a0", "a2":
				return errDown
			case "a3":
				return wait(ctx, time.Hour)
			}
			return nil
		}
		r.script.add("a0", "a1", "a2", "a3")
		r.start()
		after(30 * time.Second)
		if r.grave.ids() != "a0" {
			t.Errorf("dead %q, stored %q, tried %v", r.grave.ids(), r.sink.got(), r.sink.tries)
		}
	})
}

// TestFewMessagesOfAnOutageThatFailInDifferentWays: what follows a0 is refused, which is never counted, so no third message is tried.
func TestFewMessagesOfAnOutageThatFailInDifferentWays(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.Retry.MaxAttempts = 1
		up := time.Now().Add(time.Hour)
		r.sink.handle = func(_ context.Context, id string, _ int) error {
			switch {
			case time.Now().After(up):
				return nil
			case id == "a0":
				return errDown
			}
			return refused
		}
		r.script.add("a0", "a1", "a2")
		r.start()
		after(59 * time.Minute)
		if r.grave.ids() != "" {
			t.Fatalf("dead %q", r.grave.ids())
		}
		after(10 * time.Minute)
		if r.sink.got() != "a0 a1 a2" || r.grave.ids() != "" {
			t.Errorf("stored %q, dead %q", r.sink.got(), r.grave.ids())
		}
	})
}
