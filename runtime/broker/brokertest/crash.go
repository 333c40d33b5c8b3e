package brokertest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// childSpec is what a reader in another process is told.
type childSpec struct {
	Config   driver.Config
	Object   driver.Ref
	Group    string
	Ordering driver.Ordering
	Receive  int   // how many to receive
	Settle   []int // which of them to settle, one by one
}

// Child is a reader in a process of its own: it does what spec says, prints a line and waits to be killed.
func Child(open driver.Open, in io.Reader) error {
	var spec childSpec
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := open(ctx, spec.Config)
	if err != nil {
		return err
	}
	s, err := c.Source(ctx, driver.SourceSpec{Object: spec.Object, Group: spec.Group, Ordering: spec.Ordering,
		Window: driver.Window{Messages: 1000, Bytes: 16 << 20}, AckWait: time.Minute})
	if err != nil {
		return err
	}
	got := make([]driver.Delivery, spec.Receive)
	for have := 0; have < len(got); {
		n, err := s.Receive(ctx, got[have:])
		if err != nil || n == 0 {
			return fmt.Errorf("received %d: %w", have, err)
		}
		have += n
	}
	for _, i := range spec.Settle {
		if err := s.Settle(ctx, []driver.Settlement{{D: &got[i]}})[0]; err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stdout, "ready")
	<-ctx.Done()
	return ctx.Err()
}

// Lines reads a child's output.
func Lines(r io.Reader) <-chan string {
	lines := make(chan string, 16)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return lines
}

// kill9 lets another process read, and kills it.
func (e *env) kill9(t *testing.T, spec childSpec) {
	t.Helper()
	spec.Config = e.Config
	data, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	lines, kill := e.Reader(t, data)
	select {
	case line := <-lines:
		if line != "ready" {
			t.Fatalf("the reader says %q", line)
		}
	case <-within(t).Done():
		t.Fatal("the reader is not ready")
	}
	kill()
}

func otherProcess(h *Harness) bool { return h.Reader != nil }

var crashCases = []testCase{
	{name: "crash: after kill -9 an ordered group goes on behind its position, in order", needs: otherProcess, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		for _, o := range []driver.Ordering{driver.Key, driver.Strict} {
			topic := e.topic(t, c)
			g := e.group(t, c, topic, o)
			publish(t, e.publisher(t, c, topic), series("a", 0, 100)...)
			// The second reader dies with its position far behind what it had received; gaps above it are its own affair.
			e.kill9(t, childSpec{Object: topic, Group: g.Name, Ordering: o, Receive: 50, Settle: []int{2, 9}})
			e.kill9(t, childSpec{Object: topic, Group: g.Name, Ordering: o, Receive: 40, Settle: []int{4}})
			s := e.source(t, c, of(g, o))
			want(t, string(o), receive(t, s, 85), idsOf(series("a", 15, 85))...)
			nothing(t, s)
		}
	}},
	{name: "crash: after kill -9 a queue's unsettled messages come again, and no settled one", needs: func(h *Harness) bool { return otherProcess(h) && leases(h) }, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.ensure(t, c, driver.Object{Ref: driver.Ref{Kind: driver.Queue}, AckWait: e.AckWait})
		publish(t, e.publisher(t, c, q), series("a", 0, 10)...)
		e.kill9(t, childSpec{Object: q, Receive: 10, Settle: []int{0, 1, 4, 7}})
		s := e.source(t, c, driver.SourceSpec{Object: q, AckWait: e.AckWait})
		left := map[string]bool{}
		for len(left) < 6 {
			for _, d := range receive(t, s, 1) {
				left[d.Message.ID] = true
				settle(t, s, driver.Done, d)
			}
		}
		for _, i := range []int{0, 1, 4, 7} {
			if left[series("a", i, 1)[0].ID] {
				t.Errorf("message %d came again although it was settled", i)
			}
		}
		nothing(t, s)
	}},
	{name: "crash: after kill -9 a strict queue goes on with the message that was out", needs: func(h *Harness) bool { return otherProcess(h) && leases(h) }, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.ensure(t, c, driver.Object{Ref: driver.Ref{Kind: driver.Queue}, Ordering: driver.Strict, AckWait: e.AckWait})
		publish(t, e.publisher(t, c, q), series("a", 0, 5)...)
		e.kill9(t, childSpec{Object: q, Ordering: driver.Strict, Receive: 1})
		s := e.source(t, c, driver.SourceSpec{Object: q, Ordering: driver.Strict, AckWait: e.AckWait})
		for i := range 5 {
			d := receive(t, s, 1)
			want(t, "next", d, series("a", i, 1)[0].ID)
			settle(t, s, driver.Done, d...)
		}
	}},
}
