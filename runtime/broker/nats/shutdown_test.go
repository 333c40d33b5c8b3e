package nats

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// The process ends when a shutdown has returned, so what was handed back must be on disk by then, however slow that is: here the file that
// it is written to is a pipe, which is read late.
func TestAShutdownWaitsForWhatIsBeingWritten(t *testing.T) {
	dir, q := t.TempDir(), driver.Ref{Kind: driver.Queue, Name: "q"}
	spec := driver.SourceSpec{Object: q, AckWait: time.Hour, Window: driver.Window{Messages: 8}}
	e, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	opened, err := e.Open(t.Context(), driver.Config{})
	if err != nil {
		t.Fatal(errors.Join(err, e.Shutdown(context.Background())))
	}
	c := opened.(*conn)
	if _, err := c.Admin().Ensure(t.Context(), driver.Object{Ref: q, AckWait: time.Hour}); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "jetstream", "$G", "streams", "q", "obs", queueConsumer, "o.dat")
	size := func() int64 {
		info, err := os.Stat(state)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	nothingOut := size()
	publishEach(t, c, q, "1")
	s, err := c.Source(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	receiveEach(t, s, "1")

	until := func(what string, holds func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !holds(); {
			if time.Now().After(end) {
				t.Fatal("not within 10 s: " + what)
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	until("the server has written that the message is out", func() bool { return size() > nothingOut && !writingConsumers() })
	pipe := state + ".tmp"
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(t.Context()), c.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	until("the server writes that it was handed back", writingConsumers)
	written := make(chan []byte, 1)
	go func() {
		<-time.After(time.Second) // ten times what the server waits
		b, err := os.ReadFile(pipe)
		if err != nil {
			t.Error(err)
		}
		written <- b
	}()
	if err := e.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	var b []byte
	select {
	case b = <-written:
	default:
		t.Error("the shutdown returned before the state was written")
		b = <-written
	}
	until("the pipe has become the state", func() bool { _, err := os.Lstat(pipe); return err != nil })
	if err := errors.Join(os.Remove(state), os.WriteFile(state, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	during(t, dir, func(c *conn) {
		s, err := c.Source(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		receiveEach(t, s, "1")
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
