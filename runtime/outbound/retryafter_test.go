package outbound

import (
	"net/http"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, k := range []struct {
		value, date string
		want        time.Duration
		ok          bool
	}{
		{"", "", 0, false}, {"soon", "", 0, false}, {"-1", "", 0, false}, {"1.5", "", 0, false}, {"+3", "", 0, false},
		{"0", "", 0, true}, {" 120 ", "", 2 * time.Minute, true}, {"86401", "", 24 * time.Hour, true}, {"99999999999999999999", "", 24 * time.Hour, true},
		{"Sun, 01 Mar 2026 12:01:00 GMT", "", time.Minute, true},
		{"Sunday, 01-Mar-26 12:01:00 GMT", "", time.Minute, true},
		{"Sun Mar  1 12:01:00 2026", "", time.Minute, true},
		{"Sun, 01 Mar 2026 11:00:00 GMT", "", 0, true},
		{"Tue, 01 Mar 2050 11:00:00 GMT", "", 24 * time.Hour, true},
		// The server's clock is an hour behind ours.
		{"Sun, 01 Mar 2026 11:00:30 GMT", "Sun, 01 Mar 2026 11:00:00 GMT", 30 * time.Second, true},
	} {
		h := http.Header{}
		if k.value != "" {
			h.Set("Retry-After", k.value)
		}
		if k.date != "" {
			h.Set("Date", k.date)
		}
		if got, ok := RetryAfter(h, now); got != k.want || ok != k.ok {
			t.Errorf("%q: %s, %v; want %s, %v", k.value, got, ok, k.want, k.ok)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120", "")
	f.Add("Sun, 01 Mar 2026 12:01:00 GMT", "Sun, 01 Mar 2026 12:00:00 GMT")
	f.Add("99999999999999999999", "x")
	f.Fuzz(func(t *testing.T, value, date string) {
		after, ok := RetryAfter(http.Header{"Retry-After": {value}, "Date": {date}}, time.Unix(1e9, 0))
		if after < 0 || after > maxRetryAfter || !ok && after != 0 {
			t.Errorf("%s, %v", after, ok)
		}
	})
}
