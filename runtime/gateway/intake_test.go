package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
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
