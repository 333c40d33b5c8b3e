package message_test

import (
	"fmt"
	"strings"
	"testing"

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
