package poll

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// timed runs a poller whose source is a function, in the bubble's time, and gives the times of its polls since the start.
func timed(t *testing.T, p plan.Poller, store checkpoint.Store, out Publisher, length time.Duration, source func(n int) (*answer, error)) (polls []time.Duration, stats Stats, ended error) {
	t.Helper()
	p.HTTP = &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: "http://h/"}}
	p.Source, p.Type = "/s", "t"
	q, err := New(p, Deps{Client: outbound.New(outbound.Config{}), Publisher: out, Checkpoint: store})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	q.get = func(context.Context, *position, string, validators) (*answer, error) {
		polls = append(polls, time.Since(start).Round(time.Millisecond))
		return source(len(polls))
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	ended = q.Run(ctx)
	return polls, q.Stats(), ended
}

func body(s string) (*answer, error) {
	return &answer{page: expr.Page{Body: []byte(s), ContentType: "application/json", Status: 200}, read: time.Now()}, nil
}

func want(t *testing.T, polls []time.Duration, seconds ...int) {
	t.Helper()
	var at []int
	for _, p := range polls {
		at = append(at, int(p/time.Second))
	}
	if !slices.Equal(at, seconds) {
		t.Fatalf("polls at %v, want them at the seconds %v", polls, seconds)
	}
}

func TestRunPollsAtOnceAndThenOnSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &scripted{}
		polls, stats, err := timed(t, plan.Poller{Detect: changed, Schedule: plan.Schedule{Every: plan.Duration(10 * time.Second)}}, &memory{}, out, 65*time.Second, func(n int) (*answer, error) {
			if n == 3 {
				time.Sleep(25 * time.Second) // this poll takes long: what it missed is not made up for
			}
			return body(`1`)
		})
		if err != nil {
			t.Fatal(err)
		}
		want(t, polls, 0, 10, 20, 50, 60)
		if stats.Polls != 5 || stats.Published != 1 || stats.Reason != "" || len(out.stored) != 1 {
			t.Errorf("%+v", stats)
		}
	})
}

func TestRunFollowsCron(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Bubbles begin at midnight UTC, in Kathmandu at 05:45.
		polls, _, _ := timed(t, plan.Poller{Detect: changed, Schedule: plan.Schedule{Cron: "0 6,18 * * *", TimeZone: "Asia/Kathmandu"}}, &memory{}, &scripted{}, 25*time.Hour, func(int) (*answer, error) { return body(`1`) })
		want(t, polls, 0, 15*60, 15*60+12*3600, 15*60+24*3600)
	})
}

func TestRunBacksOffAndNeverGivesUp(t *testing.T) {
	retry := plan.Retry{Initial: plan.Duration(time.Second), Max: plan.Duration(8 * time.Second), Multiplier: 2}
	synctest.Test(t, func(t *testing.T) {
		polls, stats, _ := timed(t, plan.Poller{Detect: changed, Retry: retry, Schedule: plan.Schedule{Every: plan.Duration(time.Minute)}}, &memory{}, &scripted{}, 125*time.Second, func(n int) (*answer, error) {
			switch {
			case n <= 5:
				return nil, &flow.Fault{Blame: flow.Unreachable, Err: errors.New("h: no connection")}
			case n == 6:
				return nil, &flow.Fault{Blame: flow.Busy, After: 20 * time.Second, Err: errors.New("h answered 503")}
			}
			return body(`1`)
		})
		want(t, polls, 0, 1, 3, 7, 15, 23, 43, 60, 120)
		if stats.Errors != 6 || stats.Polls != 3 || stats.Reason != "" || stats.LastError != "" {
			t.Errorf("%+v", stats)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, stats, _ := timed(t, plan.Poller{Detect: changed, Retry: retry, Schedule: plan.Schedule{Every: plan.Duration(time.Minute)}}, &memory{}, &scripted{}, 10*time.Hour, func(int) (*answer, error) {
			return nil, &flow.Fault{Blame: flow.Address, Err: errors.New("h answered 404 Not Found")}
		})
		if stats.Errors < 4000 || stats.Reason != SourceRefused || stats.LastError != "h answered 404 Not Found" || time.Until(stats.Next) > 8*time.Second {
			t.Errorf("%+v", stats)
		}
	})
}

// A refused item says nothing against the source: the schedule goes on as it is.
func TestRunDoesNotBackOffForARefusedItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := plan.Poller{Detect: changed, MaxMessageBytes: 1, Schedule: plan.Schedule{Every: plan.Duration(10 * time.Second)}, Retry: plan.Retry{Initial: plan.Duration(time.Minute), Max: plan.Duration(time.Hour)}}
		polls, stats, _ := timed(t, p, &memory{}, &scripted{}, 25*time.Second, func(int) (*answer, error) { return body(`12`) })
		want(t, polls, 0, 10, 20)
		if stats.Reason != ItemRefused || stats.Refused != 3 || stats.Errors != 3 {
			t.Errorf("%+v", stats)
		}
	})
}

// stuck is a broker that is away: it answers when ctx ends.
type stuck struct{}

func (stuck) Publish(ctx context.Context, ms []message.Message) []error {
	<-ctx.Done()
	errs := make([]error, len(ms))
	for i := range errs {
		errs[i] = errors.New("away")
	}
	return errs
}

func TestRunShowsThatTheBrokerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		_, stats, err := timed(t, plan.Poller{Detect: changed, Schedule: plan.Schedule{Every: plan.Duration(time.Second)}}, store, stuck{}, 45*time.Second, func(int) (*answer, error) { return body(`1`) })
		if err != nil || stats.Reason != BrokerFailed || stats.Published != 0 || store.writes != 0 {
			t.Errorf("%v, %+v, %d writes", err, stats, store.writes)
		}
	})
}

func TestRunEndsAtAConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		polls, _, err := timed(t, plan.Poller{Detect: changed, Schedule: plan.Schedule{Every: plan.Duration(time.Second)}}, &memory{err: checkpoint.ErrConflict}, &scripted{}, time.Hour, func(int) (*answer, error) { return body(`1`) })
		if !errors.Is(err, checkpoint.ErrConflict) || len(polls) != 1 {
			t.Errorf("%v after %d polls", err, len(polls))
		}
	})
}

// cutOff stores the first message and is then interrupted by the end.
type cutOff struct {
	scripted
	end context.CancelFunc
}

func (c *cutOff) Publish(ctx context.Context, ms []message.Message) []error {
	c.scripted.Publish(ctx, ms[:1])
	c.end()
	errs := make([]error, len(ms))
	for i := range errs[1:] {
		errs[i+1] = context.Canceled
	}
	return errs
}

func TestRunRemembersWhatItPublishedBeforeTheEnd(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body"), ID: cel("item")})
	r.handler = respond(`["a","b"]`)
	ctx, cancel := context.WithCancel(t.Context())
	out := &cutOff{end: cancel}
	r.deps.Publisher = out
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(out.stored) != 1 {
		t.Fatalf("published %d", len(out.stored))
	}
	r.restart()
	r.once("")
	r.want(data, `"b"`)
}

func TestARestartIsNoneOfTheTimesOfACron(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := plan.Poller{Detect: always, Schedule: plan.Schedule{Cron: "0 6 * * *"}}
		store, out := &memory{}, &scripted{}
		run := func(length time.Duration, source func(int) (*answer, error)) []time.Duration {
			polls, _, err := timed(t, p, store, out, length, source)
			if err != nil {
				t.Fatal(err)
			}
			return polls
		}
		one := func(int) (*answer, error) { return body(`1`) }
		want(t, run(time.Hour, one), 0) // new: at once
		want(t, run(time.Hour, one))
		want(t, run(5*time.Hour, one), 4*3600) // from two o'clock
		// One that is interrupted, or failed, goes on when it is back.
		want(t, run(24*time.Hour, func(int) (*answer, error) { return nil, errors.New("away") })[:1], 23*3600)
		want(t, run(time.Hour, one), 0)
		want(t, run(time.Hour, one))
		if len(out.stored) != 3 {
			t.Errorf("%d messages, want one of each time", len(out.stored))
		}
	})
}

// A round that has published everything lacks its checkpoint only: to ask again would publish everything again.
func TestAFailedLastCheckpointIsNoNewRound(t *testing.T) {
	for fail := range 3 {
		synctest.Test(t, func(t *testing.T) {
			out := &scripted{}
			store := &failing{at: fail + 1}
			polls, _, err := timed(t, plan.Poller{Detect: always, Schedule: plan.Schedule{Cron: "0 6 * * *"}}, store, out, time.Hour, func(int) (*answer, error) { return body(`1`) })
			want(t, polls, max(0, 1-fail)) // the first checkpoint is before the first request
			if err != nil || len(out.stored) != 1 || store.saves < 2 {
				t.Errorf("save %d fails: published %d, %d saves, %v", fail+1, len(out.stored), store.saves, err)
			}
		})
	}
}

// A failing checkpoint cannot be written once.
type failing struct {
	memory
	saves, at int
}

func (f *failing) Save(ctx context.Context, doc []byte) error {
	if f.saves++; f.saves == f.at {
		return errors.New("the API server is away")
	}
	return f.memory.Save(ctx, doc)
}
