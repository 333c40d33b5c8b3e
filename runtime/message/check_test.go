package message_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/message"
)

// What a header carries as it is may be the type of data, however odd; nothing else may.
func TestDataContentTypeIsWhatAHeaderCarries(t *testing.T) {
	for value, want := range map[string]string{
		"application/json": "", `text/plain; charset="utf-8"`: "", "a/b;;c": "", "x-own/%41 (odd) \"\\": "", "TEXT/~": "",
		"text/plain; name=Grüße": "ASCII", "text/plain\u2028": "ASCII", "日/本": "ASCII", " text/plain": "ASCII", "text/plain ": "ASCII", "\u00a0text/plain": "ASCII",
		" application/cloudevents+json": "ASCII", "text/plain\t": "control character", "text/\xff": "UTF-8", "json": "no media type",
	} {
		m := base()
		m.DataContentType = value
		if err := m.Check(); want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), "datacontenttype: ") || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", value, err, want)
		}
	}
}

// What Waybill itself may add on the way does not make an event too large that was taken without it.
func TestWhatIsAddedOnTheWayIsNotCounted(t *testing.T) {
	full := base() // three attributes
	for i := range message.MaxAttributes - 3 {
		full = full.With(fmt.Sprint("x", i), "v")
	}
	room := message.MaxAttributeBytes - len("id1source/stypet")
	large := base().With("x", strings.Repeat("v", room-len("x")))
	for name, m := range map[string]message.Message{"as many as there may be": full, "as large as they may be": large} {
		m = m.With(message.TraceParent, strings.Repeat("0", 256)).With(message.TraceState, strings.Repeat("s", message.MaxAddedBytes)).With(message.ExpiryTime, "2026-01-01T00:00:00Z").
			With(message.LastError, strings.Repeat("e", 1024))
		for i := range 9 {
			m = m.With(fmt.Sprint("wb", i), "v")
		}
		if err := m.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := message.ParseJSON(message.AppendJSON(nil, &m)); err != nil {
			t.Errorf("%s, in JSON: %v", name, err)
		}
		for _, more := range []message.Attribute{{Name: "y", Value: "v"}, {Name: message.TraceState, Value: strings.Repeat("s", message.MaxAddedBytes+1)}} {
			over := m.With(more.Name, more.Value)
			if err := over.Check(); err == nil || !strings.HasPrefix(err.Error(), "attributes: ") {
				t.Errorf("%s, and %s: got %v", name, more.Name, err)
			}
		}
	}
}

func TestTimesAreThoseOfRFC3339(t *testing.T) {
	for s, want := range map[string]string{
		"2026-02-28T23:59:59Z": "2026-02-28T23:59:59Z", "2024-02-29t00:00:00z": "2024-02-29T00:00:00Z", "0000-01-01T00:00:00Z": "0000-01-01T00:00:00Z",
		"2026-01-01T00:00:00.5Z": "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00.1234567890123+01:00": "2025-12-31T23:00:00.123456789Z",
		"2026-01-01T00:00:00-00:00": "2026-01-01T00:00:00Z", "2026-01-01T00:00:00+23:59": "2025-12-31T00:01:00Z",
		"2016-12-31T23:59:60Z": "2017-01-01T00:00:00Z", "2016-12-31T23:59:60.25z": "2017-01-01T00:00:00.25Z", "2016-12-31T15:59:60-08:00": "2017-01-01T00:00:00Z",
		"2017-01-01T05:29:60+05:30": "2017-01-01T00:00:00Z", "2015-06-30T23:59:60Z": "2015-07-01T00:00:00Z",
		// None of them.
		"": "", "2026-01-01": "", "2026-01-01T00:00:00": "", "2026-01-01T00:00:00,5Z": "", "2026-01-01T00:00:00.Z": "", "2026-01-01T00:00:00.5": "", "2026-01-01T0:00:00Z": "",
		"2026-01-01T00:00:00+24:00": "", "2026-01-01T00:00:00+00:60": "", "2026-01-01T00:00:00+0000": "", "2026-01-01T00:00:00+00": "", "2026-01-01T00:00:00ZZ": "", "2026-01-01T00:00:00 Z": "",
		"2026-01-01 00:00:00Z": "", "2026-1-01T00:00:00Z": "", "26-01-01T00:00:00Z": "", "2026-02-29T00:00:00Z": "", "2026-13-01T00:00:00Z": "", "2026-01-01T24:00:00Z": "", "2026-01-01T00:60:00Z": "",
		"2026-01-01T00:00:61Z": "", "2016-12-31T23:58:60Z": "", "2016-12-31T22:59:60Z": "", "2016-12-30T23:59:60Z": "", "2016-12-31T23:59:60-08:00": "", "2016-12-31T23:59:60": "",
		"2026-01-01T00:00:00.\u0665Z": "", "2026-01-01T00:00:00\u212a": "", "+2026-01-01T00:00:00Z": "",
	} {
		at, ok := message.ParseTime(s)
		if got := at.UTC().Format(time.RFC3339Nano); ok != (want != "") || ok && got != want || !ok && !at.IsZero() {
			t.Errorf("%q: got %s, %v", s, got, ok)
		}
		m := base()
		if m.Time = s; s != "" && (m.Check() == nil) != ok {
			t.Errorf("%q: got %v", s, m.Check())
		}
	}
}
