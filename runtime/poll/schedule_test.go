package poll

import (
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/plan"
)

func ticks(t *testing.T, s *schedule, from time.Time, n int) []string {
	t.Helper()
	var out []string
	for range n {
		next, err := s.next(from)
		if err != nil {
			t.Fatal(err)
		}
		if !next.After(from) {
			t.Fatalf("%s does not lie after %s", next, from)
		}
		out = append(out, next.Format("01-02 15:04 MST"))
		from = next
	}
	return out
}

func TestCronKeepsToTheClockOnTheWall(t *testing.T) {
	zurich, err := time.LoadLocation("Europe/Zurich")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		cron string
		from time.Time
		want []string
	}{
		{"0 3 * * *", time.Date(2026, 3, 28, 12, 0, 0, 0, zurich), []string{"03-29 03:00 CEST", "03-30 03:00 CEST"}},
		// 02:30 does not exist on that day.
		{"30 2 * * *", time.Date(2026, 3, 28, 12, 0, 0, 0, zurich), []string{"03-29 03:30 CEST", "03-30 02:30 CEST"}},
		{"*/30 * * * *", time.Date(2026, 3, 29, 1, 20, 0, 0, zurich), []string{"03-29 01:30 CET", "03-29 03:00 CEST", "03-29 03:30 CEST"}},
		// 02:30 comes twice on that day: once for a certain hour, twice for all hours.
		{"30 2 * * *", time.Date(2026, 10, 24, 12, 0, 0, 0, zurich), []string{"10-25 02:30 CEST", "10-26 02:30 CET"}},
		{"*/30 * * * *", time.Date(2026, 10, 25, 1, 50, 0, 0, zurich), []string{"10-25 02:00 CEST", "10-25 02:30 CEST", "10-25 02:00 CET", "10-25 02:30 CET", "10-25 03:00 CET"}},
		{"0 3 * * *", time.Date(2026, 10, 25, 1, 0, 0, 0, zurich), []string{"10-25 03:00 CET", "10-26 03:00 CET"}},
		{"0 0 29 2 *", time.Date(2026, 10, 25, 1, 0, 0, 0, zurich), []string{"02-29 00:00 CET", "02-29 00:00 CET"}},
	} {
		s, err := newSchedule(plan.Schedule{Cron: k.cron, TimeZone: "Europe/Zurich"}, k.from)
		if err != nil {
			t.Fatal(err)
		}
		got := ticks(t, s, k.from, len(k.want))
		for i := range k.want {
			if got[i] != k.want[i] {
				t.Errorf("%s from %s: %v, want %v", k.cron, k.from, got, k.want)
				break
			}
		}
	}
	s, err := newSchedule(plan.Schedule{Cron: "0 12 * * *"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got := ticks(t, s, time.Date(2026, 7, 1, 13, 30, 0, 0, zurich), 1); got[0] != "07-01 12:00 UTC" {
		t.Errorf("without a time zone: %v", got)
	}
}

func TestEveryDoesNotPileUp(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s, err := newSchedule(plan.Schedule{Every: plan.Duration(10 * time.Second)}, start)
	if err != nil {
		t.Fatal(err)
	}
	for took, want := range map[time.Duration]time.Duration{0: 10 * time.Second, time.Second: 10 * time.Second, 10 * time.Second: 20 * time.Second, 35 * time.Second: 40 * time.Second} {
		if next, _ := s.next(start.Add(took)); next.Sub(start) != want {
			t.Errorf("after %s: %s, want %s", took, next.Sub(start), want)
		}
	}
}

func TestJitterOnlyDelays(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, p := range []plan.Schedule{{Every: plan.Duration(time.Minute), JitterPercent: 50}, {Cron: "* * * * *", JitterPercent: 50}} {
		s, err := newSchedule(p, start)
		if err != nil {
			t.Fatal(err)
		}
		var most time.Duration
		for range 200 {
			next, _ := s.next(start)
			late := next.Sub(start) - time.Minute
			if late < 0 || late > 30*time.Second {
				t.Fatalf("%+v: late by %s", p, late)
			}
			most = max(most, late)
		}
		if most < 15*time.Second {
			t.Errorf("%+v: never later than %s", p, most)
		}
	}
}

func TestScheduleRefuses(t *testing.T) {
	for _, p := range []plan.Schedule{{}, {Cron: "never"}, {Cron: "* * * * *", TimeZone: "Mars/Olympus"}, {Cron: "0 0 31 2 *"}} {
		if _, err := newSchedule(p, time.Now()); err == nil {
			t.Errorf("%+v was taken", p)
		}
	}
}

func TestBackoff(t *testing.T) {
	r := plan.Retry{Initial: plan.Duration(time.Second), Max: plan.Duration(10 * time.Second), Multiplier: 2}
	for failures, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 100000: 10 * time.Second} {
		if got := backoff(r, failures); got != want {
			t.Errorf("%d failures: %s, want %s", failures, got, want)
		}
	}
	r.JitterPercent = 20
	for range 100 {
		if got := backoff(r, 4); got < 6400*time.Millisecond || got > 9600*time.Millisecond {
			t.Errorf("with jitter: %s", got)
		}
	}
	if got := backoff(plan.Retry{}, 1); got != time.Second {
		t.Errorf("without a plan: %s", got)
	}
}

func TestCompareCursors(t *testing.T) {
	for _, k := range []struct {
		a, b  string
		order int
		known bool
	}{
		{"9", "10", -1, true}, {"9007199254740993", "9007199254740992", 1, true}, {"1.0", "1", 0, true}, {"-2", "1", -1, true},
		{"2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", -1, true}, {"2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z", 0, true},
		{"b", "a", 1, false}, {"10", "a", -1, false}, {"1e3", "900", 1, true}, {"1e3", "1000", 0, true}, {"1.5E2", "150.0", 0, true},
		{"-1e3", "-900", -1, true}, {"25e-1", "2.5", 0, true}, {"1e+3", "1e0002", 1, true}, {"9007199254740993e0", "9007199254740992", 1, true}, {"-1e999", "1e-999", -1, true}, {"1.7976931348623157e308", "1e309", -1, true},
		{"1e999999999", "2", -1, false}, {"1e1000", "1e999", -1, false}, {"1e", "2", -1, false}, {"e3", "2", 1, false}, {"1e3.5", "2", -1, false}, {"0x10", "2", -1, false}, {"1_0", "2", -1, false},
		{"", "1", -1, false}, {".5", "1", -1, false}, {"1.", "1", 1, false},
	} {
		if order, known := compare(k.a, k.b); order != k.order || known != k.known {
			t.Errorf("%q and %q: %d, %v; want %d, %v", k.a, k.b, order, known, k.order, k.known)
		}
	}
}

// Whatever cursors a server gives, they are in one order, equal ones are equal both ways, and none of them is lost or ends the poller.
func FuzzCursor(f *testing.F) {
	for _, pair := range [][2]string{{"9", "10"}, {"9007199254740993", "9007199254740992"}, {"1.0", "1"}, {"-0", "0"}, {"2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00"}, {"a", "b"}, {"", "0"}, {"1e9", "2"}, {"1e3", "900"}, {"-1.5E-2", "-0.015"}, {"1e999999999", "1e999"}, {"00", "0"}, {"1.2.3", "1"}} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		order, known := compare(a, b)
		back, knownBack := compare(b, a)
		if order != -back || known != knownBack || order < -1 || order > 1 {
			t.Fatalf("%q and %q: %d, %v; the other way round %d, %v", a, b, order, known, back, knownBack)
		}
		if same, _ := compare(a, a); same != 0 {
			t.Fatalf("%q is not itself", a)
		}
		at := &position{}
		for i, c := range []string{a, b, a} {
			if c != "" {
				at.advance(c, uint64(i))
			}
		}
		for _, c := range []string{a, b} {
			if order, _ := compare(c, at.Cursor); c != "" && order > 0 {
				t.Fatalf("%q and %q: the cursor is %q", a, b, at.Cursor)
			}
		}
	})
}
