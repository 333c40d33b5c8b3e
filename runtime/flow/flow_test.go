package flow

import (
	"context"
	"slices"
	"strconv"
	"strings"
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
				return message.Message{ID: id}.With(message.ExpiryTime, time.Now().Add(d).Format(time.RFC3339Nano)).With(message.ReplyTo, "inbox")
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
			r.script.publish(message.Message{ID: "odd"}.With(message.ExpiryTime, "tomorrow").With(message.ReplyTo, "inbox"))
			// No request: the time is its publisher's own matter.
			r.script.publish(message.Message{ID: "event"}.With(message.ExpiryTime, time.Now().Add(-time.Hour).Format(time.RFC3339Nano)))
			r.start()
			after(time.Minute)
			want, dropped := []string{"slow", "odd", "started", "event"}, uint64(2)
			if when == Deliver {
				want, dropped = []string{"gone", "slow", "late", "odd", "started", "event"}, 0
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

func TestAtMostOnceTriesEachOfAKeyOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.AtMostOnce = true
		r.cfg.Policy.BatchSize = 8
		r.sink.handle = func(_ context.Context, id string, attempt int) error {
			if attempt != 1 {
				t.Errorf("attempt %d of %s", attempt, id)
			}
			if id == "a1" || id == "a2" {
				return refused
			}
			return nil
		}
		tell := r.listen()
		r.script.add(numbered("a", 5)...)
		r.start()
		after(time.Minute)
		if got := strings.Join(r.sink.tries, " "); got != "a0 a1 a2 a3 a4" {
			t.Errorf("handled %s", got)
		}
		if s := r.flow.Stats(); s.Done != 3 || s.Failed != 2 || len(tell()) != 5 {
			t.Errorf("%d done, %d failed, told of %d", s.Done, s.Failed, len(tell()))
		}
	})
}

func TestWhatStandsBehindAFailureIsNotJudged(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.BatchSize = 8
		attempts := map[string]int{}
		r.cfg.Stages = []Stage{stageFunc(func(_ context.Context, b *Batch) {
			for i := range b.Inputs {
				id, attempt := b.Inputs[i].Delivery.Message.ID, b.Inputs[i].Attempt
				switch {
				case id == "a1" && attempt == 1, id == "a2" && attempt == 1 && attempts["a1"] == 0:
					b.Fail(i, errDown) // the second of them says so of what was never sent
				case id == "a3":
					b.Fail(i, poison)
				}
			}
			for i := range b.Inputs {
				attempts[b.Inputs[i].Delivery.Message.ID] = b.Inputs[i].Attempt
			}
		})}
		r.script.add(numbered("a", 5)...)
		r.start()
		after(time.Second)
		// a2 is not made to wait for a failure of its own once a1 has gone through, and poison is poison wherever it stands.
		if left := r.script.undone(); left != nil || attempts["a2"] != 1 || r.grave.ids() != "a3" {
			t.Errorf("left %v, attempts %v, dead %q", left, attempts, r.grave.ids())
		}
	})
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
