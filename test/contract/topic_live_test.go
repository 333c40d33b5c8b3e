package contract

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A liveEvent is one event of a stream; what a client of the standard sees.
type liveEvent struct{ id, event, data string }

// A listener reads live events.
type listener struct {
	t      *testing.T
	events chan liveEvent
	cancel context.CancelFunc
	err    error // of the stream; read it when events is closed
}

// listen opens a stream, which delivers what is published from now on, or behind Last-Event-ID.
func listen(t *testing.T, url string, headers ...string) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("live events: %s %v %s", resp.Status, resp.Header, b)
	}
	l := &listener{t: t, events: make(chan liveEvent, 10_000), cancel: cancel}
	go func() {
		defer resp.Body.Close()
		defer close(l.events)
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 4<<20)
		lines.Split(splitLines)
		var e liveEvent
		var data []string
		for lines.Scan() {
			line := lines.Text()
			if line == "" {
				if data != nil {
					e.data = strings.Join(data, "\n")
					l.events <- e
				}
				e, data = liveEvent{}, nil
				continue
			}
			name, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			switch name {
			case "id":
				e.id = value
			case "event":
				e.event = value
			case "data":
				data = append(data, value)
			}
		}
		l.err = lines.Err()
	}()
	t.Cleanup(cancel)
	return l
}

// splitLines ends a line at LF, CR or both, as the standard says.
func splitLines(b []byte, atEOF bool) (advance int, line []byte, err error) {
	i := bytes.IndexAny(b, "\r\n")
	switch {
	case i < 0 && atEOF && len(b) > 0:
		return len(b), b, nil
	case i < 0 || b[i] == '\r' && i+1 == len(b) && !atEOF:
		return 0, nil, nil
	case b[i] == '\r' && i+1 < len(b) && b[i+1] == '\n':
		return i + 2, b[:i], nil
	}
	return i + 1, b[:i], nil
}

func (l *listener) next() liveEvent {
	l.t.Helper()
	select {
	case e, ok := <-l.events:
		if !ok {
			l.t.Fatal("the stream has ended")
		}
		return e
	case <-time.After(30 * time.Second):
		l.t.Fatal("no live event within 30 s")
	}
	panic("unreachable")
}
