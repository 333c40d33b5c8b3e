package flow

import (
	"context"
	"testing"
	"time"
)

func TestHistogramsCountEachDurationOnce(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{-time.Second, 0, time.Millisecond, time.Millisecond + 1, 24 * time.Hour, 24*time.Hour + 1} {
		h.add(d, 2)
	}
	if h.Counts[0] != 6 || h.Counts[1] != 2 || h.Counts[len(Bounds)-1] != 2 || h.Counts[len(Bounds)] != 2 || h.Count() != 12 {
		t.Errorf("%v", h.Counts)
	}
	if days := 2 * 2 * 24 * time.Hour.Seconds(); h.Seconds < days || h.Seconds > days+1 {
		t.Errorf("%v seconds", h.Seconds)
	}
}

// What a person on call asks first: how long do messages take, how long does the destination take, and how old is the oldest?
func TestLatencyBeginsAtTheBrokerAndHandlingAtTheStages(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.cfg.Policy.MaxInFlight = 1
		r.script.add("a0", "b0")
		r.script.msgs[0].stored = time.Now().Add(-time.Hour + time.Minute) // waited in the backlog; the other one's broker does not tell
		r.sink.handle = func(context.Context, string, int) error {
			time.Sleep(20 * time.Millisecond)
			return nil
		}
		began := time.Now()
		r.start()
		after(10 * time.Millisecond)
		if s := r.flow.Stats(); !s.Oldest.Equal(began.Add(-time.Hour+time.Minute)) || s.WindowLimit != r.flow.p.Window {
			t.Errorf("the oldest is of %s, the window %+v", s.Oldest, s.WindowLimit)
		}
		after(20 * time.Millisecond)
		if s := r.flow.Stats(); !s.Oldest.Equal(began) {
			t.Errorf("the oldest that is left is of %s", s.Oldest)
		}
		after(time.Second)
		s := r.flow.Stats()
		if l := s.Latency; l.Count() != 1 || l.Seconds < 59*60 || l.Seconds > 59*60+1 {
			t.Errorf("latency: %+v", l)
		}
		if h := s.Handling; h.Count() != 2 || h.Seconds < 0.04 || h.Seconds > 0.05 {
			t.Errorf("handling: %+v", h)
		}
	})
}
