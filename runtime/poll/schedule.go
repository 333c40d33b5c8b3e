package poll

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
	_ "time/tzdata" // an image may have no time zones

	"github.com/adhocore/gronx"

	"github.com/waybill-dev/waybill/runtime/plan"
)

// A schedule says when polls are due. Those that were missed, because a poll took long or the machine slept, are not made up for.
type schedule struct {
	every  time.Duration // between ticks, counted from start
	start  time.Time
	cron   string
	hours  bool // cron runs in every hour, or in every nth
	zone   *time.Location
	jitter int // percent
}

func newSchedule(s plan.Schedule, start time.Time) (*schedule, error) {
	out := &schedule{every: time.Duration(s.Every), start: start, cron: s.Cron, zone: time.UTC, jitter: s.JitterPercent}
	if s.Cron == "" {
		if s.Every <= 0 {
			return nil, fmt.Errorf("schedule: needs every or cron")
		}
		return out, nil
	}
	if s.TimeZone != "" {
		zone, err := time.LoadLocation(s.TimeZone)
		if err != nil {
			return nil, fmt.Errorf("schedule: time zone %q is not known", s.TimeZone)
		}
		out.zone = zone
	}
	segments, err := gronx.Segments(s.Cron)
	if err != nil {
		return nil, fmt.Errorf("schedule: cron %q cannot be read: %w", s.Cron, err)
	}
	out.hours = strings.HasPrefix(segments[2], "*") // behind seconds and minutes
	if _, err := out.tick(start); err != nil {
		return nil, fmt.Errorf("schedule: cron %q: %w", s.Cron, err)
	}
	return out, nil
}

// next is when the first poll after now is due, with its share of jitter: each poll is late by up to that part of the time to the next one.
func (s *schedule) next(now time.Time) (time.Time, error) {
	tick, err := s.tick(now)
	if err != nil || s.jitter <= 0 {
		return tick, err
	}
	after, err := s.tick(tick)
	if err != nil {
		return tick, err
	}
	late := time.Duration(float64(after.Sub(tick)) * float64(s.jitter) / 100 * rand.Float64())
	return tick.Add(late), nil
}

// tick is the first tick after now.
func (s *schedule) tick(now time.Time) (time.Time, error) {
	if s.cron == "" {
		since := now.Sub(s.start)
		return s.start.Add(since - since%s.every + s.every), nil
	}
	for {
		t, err := s.wall(now.In(s.zone))
		if err != nil || s.hours {
			return t, err
		}
		// A schedule that names its hours runs once when clocks are put back, one for all hours runs on.
		if end := repeatedUntil(t); end.IsZero() {
			return t, nil
		} else if now = end.Add(-time.Second); !now.After(t) {
			now = t
		}
	}
}

// maxChanges of clocks are looked across for a tick: 29 February is up to eight years away.
const maxChanges = 64

// wall is the first tick after now by the clock on the wall. The library knows nothing of clocks that are put forward or back, so it is asked
// with a fixed offset from one change to the next.
func (s *schedule) wall(now time.Time) (time.Time, error) {
	including := false
	for range maxChanges {
		t, err := fixedTick(s.cron, now, including)
		if err != nil {
			return t, err
		}
		_, change := now.ZoneBounds()
		if change.IsZero() || t.Before(change) {
			return t.In(s.zone), nil
		}
		change = change.In(s.zone)
		// What falls into an hour that does not exist happens as long after the change as it would have by the old clock.
		if skipped := offset(change) - offset(now); skipped > 0 && t.Before(change.Add(skipped)) {
			other, err := fixedTick(s.cron, change, true)
			if err != nil || t.Before(other) {
				return t.In(s.zone), nil
			}
			return other.In(s.zone), nil
		}
		now, including = change, true
	}
	return now, errors.New("it never comes")
}

// fixedTick is the first tick after from (or at it), with from's offset.
func fixedTick(cron string, from time.Time, including bool) (time.Time, error) {
	t, err := gronx.NextTickAfter(cron, from.In(time.FixedZone("", int(offset(from)/time.Second))), including)
	return t.Truncate(time.Second), err
}

func offset(t time.Time) time.Duration {
	_, seconds := t.Zone()
	return time.Duration(seconds) * time.Second
}

// repeatedUntil is the end of the time that clocks show for the second time at t; zero when they show t's once, or for the first time.
func repeatedUntil(t time.Time) time.Time {
	change, _ := t.ZoneBounds()
	if change.IsZero() {
		return time.Time{}
	}
	if end := change.Add(offset(change.Add(-time.Second).In(t.Location())) - offset(t)); t.Before(end) {
		return end
	}
	return time.Time{}
}

// backoff is how long to wait after failed polls in a row.
func backoff(r plan.Retry, failures int) time.Duration {
	initial, most := time.Duration(r.Initial), time.Duration(r.Max)
	if initial <= 0 {
		initial = time.Second
	}
	if most < initial {
		most = max(initial, 5*time.Minute)
	}
	multiplier := r.Multiplier
	if multiplier < 1 {
		multiplier = 2
	}
	d := float64(initial)
	for range failures - 1 {
		if d *= multiplier; d >= float64(most) {
			d = float64(most)
			break
		}
	}
	d *= 1 + float64(r.JitterPercent)/100*(2*rand.Float64()-1)
	return time.Duration(d)
}
