package message_test

import (
	"strings"
	"testing"
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
