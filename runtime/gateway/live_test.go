package gateway

import (
	"net/http"
	"testing"
)

func TestAcceptsEvents(t *testing.T) {
	for accept, want := range map[string]bool{
		"text/event-stream": true, "Text/Event-Stream; charset=utf-8": true, "text/*": true, "*/*;q=0.001": true, "text/html, text/event-stream;q=0.1": true,
		"text/event-stream;q=0": false, "text/event-stream; q=0.0": false, "text/event-stream;q=0.": false, "text/event-stream;q=0.000": false,
		"text/event-stream;charset=utf-8 ; Q=0.00": false, "text/event-stream;q=0.00, text/html": false, "text/html": false, "": false,
	} {
		if got := acceptsEvents(http.Header{"Accept": {accept}}); got != want {
			t.Errorf("%q: got %v", accept, got)
		}
	}
}
