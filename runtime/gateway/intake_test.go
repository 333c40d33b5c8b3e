package gateway

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/waybill-dev/waybill/runtime/message/cehttp"
	"github.com/waybill-dev/waybill/runtime/plan"
)

func TestBodiesAreReservedAsTheyCome(t *testing.T) {
	for _, c := range []struct {
		name       string
		sent, says int // says -1: chunked
	}{
		{"none", 0, 0}, {"none, chunked", 0, -1}, {"small", 5, 5}, {"small, chunked", 5, -1}, {"as large as the first room", firstBytes, firstBytes},
		{"as large as the first room, chunked", firstBytes, -1}, {"larger", 5*firstBytes + 1, 5*firstBytes + 1}, {"larger, chunked", 5*firstBytes + 1, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := budget{limit: 1 << 20}
			sent := strings.Repeat("x", c.sent)
			for _, r := range []io.Reader{strings.NewReader(sent), iotest.HalfReader(strings.NewReader(sent)), iotest.DataErrReader(strings.NewReader(sent))} {
				body, reserved, err := b.read(r, int64(c.says))
				if err != nil || string(body) != sent || reserved != int64(c.sent) || b.used.Load() != reserved || cap(body) > c.sent+c.sent/4+64 {
					t.Fatalf("got %d bytes (room %d), %d reserved, %d used, %v", len(body), cap(body), reserved, b.used.Load(), err)
				}
				b.give(reserved)
			}
		})
	}
}

// A chunked body that is cut off tells so by its error, and is no shorter body.
func TestABodyThatIsCutOff(t *testing.T) {
	for _, size := range []int64{-1, 10} {
		b := budget{limit: 1 << 20}
		cut := io.MultiReader(strings.NewReader("short"), iotest.ErrReader(io.ErrUnexpectedEOF))
		_, reserved, err := b.read(cut, size)
		if b.give(reserved); !errors.Is(err, io.ErrUnexpectedEOF) || b.used.Load() != 0 {
			t.Errorf("size %d: got %v, %d used", size, err, b.used.Load())
		}
	}
}

// A client that says a lot and sends little holds little.
func TestABodyThatDoesNotComeHoldsLittle(t *testing.T) {
	b := budget{limit: 1 << 20}
	sends, far := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, reserved, err := b.read(sends, 1<<20)
		b.give(reserved)
		done <- err
	}()
	if _, err := far.Write(make([]byte, 100)); err != nil { // has been read when it returns
		t.Fatal(err)
	}
	if used := b.used.Load(); used != firstBytes {
		t.Errorf("%d bytes are reserved", used)
	}
	_ = far.Close()
	if err := <-done; !errors.Is(err, io.ErrUnexpectedEOF) || b.used.Load() != 0 {
		t.Errorf("got %v, %d used", err, b.used.Load())
	}
}

func TestABodyThatFindsNoRoom(t *testing.T) {
	b := budget{limit: 3 * firstBytes}
	for _, size := range []int64{-1, 4 * firstBytes} {
		_, reserved, err := b.read(bufio.NewReader(bytes.NewReader(make([]byte, 4*firstBytes))), size)
		if b.give(reserved); !errors.Is(err, errBuffersFull) || b.used.Load() != 0 {
			t.Errorf("size %d: got %v, %d used", size, err, b.used.Load())
		}
	}
}

// However an event's data are spelt in JSON, their own bytes are what is held against the limit.
func TestTheDataDecideHoweverTheyAreSpelt(t *testing.T) {
	const most = 64 << 10
	escaped := func(s string) string {
		var b strings.Builder
		for _, r := range s {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		return b.String()
	}
	var f front
	f.init(Deps{Log: slog.New(slog.DiscardHandler)}, "topics", plan.Ref{})
	for _, c := range []struct {
		name    string
		members func(bytes int) string
	}{
		{"escaped text", func(n int) string { return `"data":"` + escaped(strings.Repeat("x", n)) + `"` }},
		{"escaped text of two bytes each", func(n int) string {
			return `"data":"` + escaped(strings.Repeat("ж", n/2)+strings.Repeat("x", n%2)) + `"`
		}},
		{"escaped base64", func(n int) string {
			return `"data_base64":"` + escaped(base64.StdEncoding.EncodeToString(make([]byte, n))) + `"`
		}},
		{"beside large attributes", func(n int) string {
			return `"subject":"` + escaped(strings.Repeat("x", 16<<10-64)) + `","data":"` + escaped(strings.Repeat("x", n)) + `"`
		}},
	} {
		for n, want := range map[int]int{most: http.StatusOK, most + 1: http.StatusRequestEntityTooLarge} {
			body := `{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain",` + c.members(n) + "}"
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
			r.Header.Set("Content-Type", cehttp.Structured)
			w := httptest.NewRecorder()
			if in := f.read(w, r, limits{data: most}); in != nil {
				if len(in.events[0].Data) != n || f.budget.used.Load() != int64(len(body)) {
					t.Errorf("%s: %d bytes of data, %d held of a body of %d", c.name, len(in.events[0].Data), f.budget.used.Load(), len(body))
				}
				in.close()
			}
			var p problem
			if _ = json.Unmarshal(w.Body.Bytes(), &p); w.Code != want || want != http.StatusOK && p.Limit != most || f.budget.used.Load() != 0 {
				t.Errorf("%s, %d bytes: got %d %s, %d held", c.name, n, w.Code, w.Body, f.budget.used.Load())
			}
		}
	}
	// A body that the buffers never have room for is too large; to try it again would be of no use.
	f.budget.limit = 100 << 10
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(strings.Repeat("x", 101<<10)))
	r.Header.Set("Content-Type", cehttp.Structured)
	w := httptest.NewRecorder()
	if f.read(w, r, limits{data: most}); w.Code != http.StatusRequestEntityTooLarge || f.budget.used.Load() != 0 {
		t.Errorf("got %d %s, %d held", w.Code, w.Body, f.budget.used.Load())
	}
}
