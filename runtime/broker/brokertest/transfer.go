package brokertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

func canTransfer(h *Harness) bool { return h.Can.Transfer }

var transferCases = []testCase{
	{"a transfer stores messages and its position in one step", canTransfer, transfers},
	{"a transfer that was replaced is refused whole", canTransfer, transferFenced},
	{"a transfer goes on exactly where a killed one stopped", canTransfer, transferKilled},
	{"what came to nothing moves a transfer on", canTransfer, transferNothing},
	{"nobody sees the position of a transfer", canTransfer, transferUnseen},
	{"a position is taken from a reader to a transfer and back", canTransfer, transferTakenOver},
	{"a transfer says what can never be stored", canTransfer, transferFits},
	{"a transfer stores more than fits into one step", canTransfer, transferMany},
	{"a transfer loses no position to retention while it lives or was closed", canTransfer, transferRetention},
	{"a transfer whose position was deleted stops", canTransfer, transferLost},
	{"a seek moves a transfer", canTransfer, transferSeek},
	{"a transfer that sends twice is stored once", canTransfer, transferAgain},
	{"an outage in the middle of a transfer neither loses nor repeats", func(h *Harness) bool { return h.Can.Transfer && h.Stop != nil }, transferOutage},
}

// A way is a topic with a group that is carried into another topic.
type way struct {
	e       *env
	c       driver.Conn
	in, out driver.Ref
	group   driver.Ref
	publish driver.Publisher
}

func (e *env) way(t *testing.T, out driver.Object) *way {
	t.Helper()
	w := &way{e: e, c: e.conn(t)}
	w.in = e.topic(t, w.c)
	out.Kind = driver.Topic
	w.out = e.ensure(t, w.c, out)
	w.group = e.group(t, w.c, w.in, driver.Key)
	w.publish = e.publisher(t, w.c, w.in)
	return w
}

// spec is the spec of the transfer; of an ordinary reader without into.
func (w *way) spec(into bool) driver.SourceSpec {
	s := of(w.group, driver.Key)
	s.Window, s.AckWait = driver.Window{Messages: 8000, Bytes: 16 << 20}, time.Minute
	if into {
		s.Into = w.out
	}
	return s
}

// open opens the transfer, which the caller closes or does not.
func (w *way) open(t *testing.T, c driver.Conn) driver.Carrier {
	t.Helper()
	src, err := c.Source(within(t), w.spec(true))
	if err != nil {
		t.Fatalf("Source into %s: %v", w.out.Name, err)
	}
	if src.Settling() != driver.Positional {
		t.Fatal("a transfer must be Positional")
	}
	return src.(driver.Carrier)
}

func (w *way) close(t *testing.T, s driver.Source) {
	t.Helper()
	if err := s.Close(within(t)); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// carry is a settlement of each delivery, with one message whose id says which it came from.
func carry(ds ...driver.Delivery) []driver.Settlement {
	list := settlements(driver.Done, ds...)
	for i := range list {
		m := ds[i].Message
		m.ID = "out-" + m.ID
		list[i].Out = []message.Message{m}
	}
	return list
}

func settled(t *testing.T, s driver.Source, list []driver.Settlement) {
	t.Helper()
	for i, err := range s.Settle(within(t), list) {
		if err != nil {
			t.Fatalf("Settle of %s: %v", list[i].D.Message.ID, err)
		}
	}
}

// holds checks what a topic holds, from its beginning.
func (w *way) holds(t *testing.T, ids ...string) {
	t.Helper()
	src := w.e.source(t, w.c, driver.SourceSpec{Object: w.out, Live: &driver.Live{Start: driver.Start{Position: driver.Earliest}}})
	if len(ids) > 0 {
		want(t, "the topic that is carried into", receive(t, src, len(ids)), ids...)
	}
	nothing(t, src)
}

func outs(ms []message.Message) []string {
	all := idsOf(ms)
	for i := range all {
		all[i] = "out-" + all[i]
	}
	return all
}

func transfers(t *testing.T, e *env) {
	w := e.way(t, driver.Object{})
	ms := series("k", 0, 5)
	publish(t, w.publish, ms...)
	src := w.open(t, w.c)
	got := receive(t, src, 5)
	want(t, "a transfer", got, idsOf(ms)...)
	settled(t, src, carry(got[:2]...))
	w.holds(t, outs(ms[:2])...)
	split := carry(got[2])
	split[0].Out = append(split[0].Out, msg("second", "k"))
	settled(t, src, split)
	w.holds(t, "out-k0000", "out-k0001", "out-k0002", "second")
	w.close(t, src)
	for i, err := range src.Settle(within(t), carry(got[3])) {
		if !errors.Is(err, driver.ErrStale) {
			t.Errorf("Settle %d after Close: %v, want ErrStale", i, err)
		}
	}
	again := w.open(t, w.c)
	want(t, "after it was opened again", receive(t, again, 2), "k0003", "k0004")
	w.close(t, again)
}

func transferFenced(t *testing.T, e *env) {
	w := e.way(t, driver.Object{})
	ms := series("k", 0, 6)
	publish(t, w.publish, ms...)
	first := w.open(t, w.c)
	held := receive(t, first, 6)
	settled(t, first, carry(held[:2]...))
	second := w.open(t, e.conn(t))
	for i, err := range first.Settle(within(t), carry(held[2:5]...)) {
		if !errors.Is(err, driver.ErrStale) {
			t.Errorf("settlement %d of the one that was replaced: %v, want ErrStale", i, err)
		}
	}
	w.holds(t, outs(ms[:2])...)
	got := receive(t, second, 4)
	want(t, "the one that replaced it", got, idsOf(ms[2:])...)
	settled(t, second, carry(got...))
	w.holds(t, outs(ms)...)
	w.close(t, first)
	w.close(t, second)
	third := w.open(t, w.c)
	nothing(t, third)
	w.close(t, third)
}

// kill ends a connection without closing what it has open.
func kill(t *testing.T, c driver.Conn) {
	t.Helper()
	if err := c.Close(within(t)); err != nil {
		t.Fatal(err)
	}
}

func transferKilled(t *testing.T, e *env) {
	w := e.way(t, driver.Object{})
	ms := series("k", 0, 9)
	publish(t, w.publish, ms...)
	for i := range 3 {
		c, err := e.Open(within(t), e.Config)
		if err != nil {
			t.Fatal(err)
		}
		src := w.open(t, c)
		got := receive(t, src, 9-2*i)
		want(t, fmt.Sprintf("run %d", i), got, idsOf(ms[2*i:])...)
		settled(t, src, carry(got[0]))
		settled(t, src, carry(got[1]))
		kill(t, c)
		src.Close(within(t)) // its connection is gone
	}
	w.holds(t, outs(ms[:6])...)
	if n := state(t, w.c, w.group).Messages; n != 3 {
		t.Errorf("Inspect says that %d are left, want 3", n)
	}
}

func transferNothing(t *testing.T, e *env) {
	w := e.way(t, driver.Object{})
	publish(t, w.publish, series("k", 0, 5)...)
	c := e.conn(t)
	src := w.open(t, c)
	got := receive(t, src, 5)
	settled(t, src, settlements(driver.Done, got[:2]...))
	list := settlements(driver.Done, got[2:4]...)
	list[0].Out = []message.Message{msg("one", "k")}
	settled(t, src, list)
	src2 := w.open(t, w.c) // the first was not closed
	want(t, "after messages that came to nothing", receive(t, src2, 1), "k0004")
	w.holds(t, "one")
	w.close(t, src2)
	w.close(t, src)
}

func transferUnseen(t *testing.T, e *env) {
	w := e.way(t, driver.Object{})
	none, key := e.group(t, w.c, w.out, driver.None), e.group(t, w.c, w.out, driver.Key)
	live := e.source(t, w.c, driver.SourceSpec{Object: w.out, Live: &driver.Live{Start: driver.Start{Position: driver.Latest}}})
	ms := series("k", 0, 6)
	publish(t, w.publish, ms...)
	src := w.open(t, w.c)
	got := receive(t, src, 6)
	for i := range 3 {
		settled(t, src, carry(got[2*i:2*i+2]...))
	}
	if n := state(t, w.c, w.out).Messages; n != 6 {
		t.Errorf("Inspect counts %d messages, want 6", n)
	}
	for _, g := range []driver.Ref{none, key} {
		if n := state(t, w.c, g).Messages; n != 6 {
			t.Errorf("Inspect counts a backlog of %d, want 6", n)
		}
	}
	want(t, "live", receive(t, live, 6), outs(ms)...)
	nothing(t, live)
	for _, o := range []struct {
		group    driver.Ref
		ordering driver.Ordering
	}{{none, driver.None}, {key, driver.Key}} {
		reader := e.source(t, w.c, of(o.group, o.ordering))
		ds := receive(t, reader, 6)
		want(t, string(o.ordering), ds, outs(ms)...)
		settle(t, reader, driver.Done, ds...)
		nothing(t, reader)
		eventually(t, "a backlog of none", func() bool { return state(t, w.c, o.group).Messages == 0 })
	}
	w.close(t, src)
}

func transferTakenOver(t *testing.T, e *env) {
	w := e.way(t, driver.Object{})
	ms := series("k", 0, 9)
	publish(t, w.publish, ms...)
	plain, err := w.c.Source(within(t), w.spec(false))
	if err != nil {
		t.Fatal(err)
	}
	got := receive(t, plain, 9)
	settle(t, plain, driver.Done, got[:2]...)
	w.close(t, plain)
	src := w.open(t, e.conn(t))
	got = receive(t, src, 7)
	want(t, "the transfer after the reader", got, idsOf(ms[2:])...)
	settled(t, src, carry(got[:2]...))
	// It is not closed: the reader must find out by itself.
	plain, err = w.c.Source(within(t), w.spec(false))
	if err != nil {
		t.Fatal(err)
	}
	got2 := receive(t, plain, 5)
	want(t, "the reader after the transfer", got2, idsOf(ms[4:])...)
	settle(t, plain, driver.Done, got2[:3]...)
	for _, err := range src.Settle(within(t), carry(got[2:4]...)) {
		if !errors.Is(err, driver.ErrStale) {
			t.Errorf("the transfer that the reader has replaced: %v, want ErrStale", err)
		}
	}
	w.close(t, src)
	w.close(t, plain)
	src = w.open(t, w.c)
	want(t, "the transfer after the reader once more", receive(t, src, 2), idsOf(ms[7:])...)
	w.close(t, src)
	w.holds(t, outs(ms[2:4])...)
}

func transferFits(t *testing.T, e *env) {
	w := e.way(t, driver.Object{MaxMessageBytes: 64 << 10})
	src := w.open(t, w.c)
	defer w.close(t, src)
	if err := src.Fits(series("k", 0, 900)); err != nil {
		t.Errorf("900 messages: %v", err)
	}
	if err := src.Fits(nil); err != nil {
		t.Errorf("none: %v", err)
	}
	large := msg("large", "k")
	large.Data = make([]byte, 64<<10)
	if err := src.Fits([]message.Message{large}); err != nil {
		t.Errorf("one at the limit: %v", err)
	}
	large.Data = make([]byte, 256<<10)
	for name, ms := range map[string][]message.Message{"a large one": {msg("a", "k"), large}, "100,000": series("k", 0, 100_000)} {
		if err := src.Fits(ms); !errors.Is(err, driver.ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
	}
	if err := src.Fits([]message.Message{{ID: "a"}}); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("one without a type: %v, want ErrInvalid", err)
	}
}

func transferMany(t *testing.T, e *env) {
	w := e.way(t, driver.Object{})
	ms := series("k", 0, 1100)
	publish(t, w.publish, ms...)
	src := w.open(t, w.c)
	got := receive(t, src, len(ms))
	list := carry(got...)
	expected := outs(ms)
	// One that becomes many stands across the end of a step.
	many := series("m", 0, 700)
	list[600].Out = many
	expected = append(append(append([]string{}, expected[:600]...), idsOf(many)...), expected[601:]...)
	settled(t, src, list)
	w.close(t, src)
	w.holds(t, expected...)
}

func transferRetention(t *testing.T, e *env) {
	w := e.way(t, driver.Object{MaxMessages: 5})
	other := e.publisher(t, w.c, w.out)
	ms := series("k", 0, 6)
	publish(t, w.publish, ms...)
	src := w.open(t, w.c)
	got := receive(t, src, 6)
	settled(t, src, carry(got[:2]...))
	publish(t, other, series("x", 0, 10)...)
	settled(t, src, carry(got[2:4]...)) // its position is gone, and it knows it all the same
	live := e.source(t, w.c, driver.SourceSpec{Object: w.out, Live: &driver.Live{Start: driver.Start{Position: driver.Earliest}}})
	for _, id := range outs(ms[2:4]) {
		for d := receive(t, live, 1)[0]; d.Message.ID != id; d = receive(t, live, 1)[0] {
			if strings.HasPrefix(d.Message.ID, "out-") {
				t.Fatalf("%s was stored before %s", d.Message.ID, id)
			}
		}
	}
	nothing(t, live)
	w.close(t, src)
	publish(t, other, series("y", 0, 10)...)
	src = w.open(t, w.c)
	want(t, "after it was closed", receive(t, src, 2), idsOf(ms[4:])...)
	w.close(t, src)
}

func transferLost(t *testing.T, e *env) {
	w := e.way(t, driver.Object{MaxMessages: 5})
	other := e.publisher(t, w.c, w.out)
	publish(t, w.publish, series("k", 0, 6)...)
	c, err := e.Open(within(t), e.Config)
	if err != nil {
		t.Fatal(err)
	}
	src := w.open(t, c)
	got := receive(t, src, 6)
	settled(t, src, carry(got[:2]...))
	kill(t, c)
	src.Close(within(t)) // its connection is gone
	publish(t, other, series("x", 0, 10)...)
	for _, into := range []bool{true, false} {
		_, err := w.c.Source(within(t), w.spec(into))
		if !errors.Is(err, driver.ErrPositionLost) || !strings.Contains(err.Error(), w.out.Name) {
			t.Errorf("Source: %v, want ErrPositionLost that names the topic", err)
		}
	}
	if err := w.c.Admin().Seek(within(t), w.group, driver.Start{Position: driver.Earliest}); err != nil {
		t.Fatal(err)
	}
	src = w.open(t, w.c)
	want(t, "after a seek", receive(t, src, 1), "k0000")
	w.close(t, src)
}

func transferSeek(t *testing.T, e *env) {
	w := e.way(t, driver.Object{})
	ms := series("k", 0, 4)
	publish(t, w.publish, ms...)
	c, err := e.Open(within(t), e.Config)
	if err != nil {
		t.Fatal(err)
	}
	src := w.open(t, c)
	settled(t, src, carry(receive(t, src, 4)...))
	if err := w.c.Admin().Seek(within(t), w.group, driver.Start{Position: driver.Earliest}); !errors.Is(err, driver.ErrBusy) {
		t.Fatalf("Seek beside a transfer: %v, want ErrBusy", err)
	}
	kill(t, c)
	src.Close(within(t)) // its connection is gone
	eventually(t, "the seek", func() bool {
		err := w.c.Admin().Seek(within(t), w.group, driver.Start{Position: driver.Earliest})
		if err != nil && !errors.Is(err, driver.ErrBusy) {
			t.Fatal(err)
		}
		return err == nil
	})
	src = w.open(t, w.c)
	got := receive(t, src, 4)
	want(t, "after a seek", got, idsOf(ms)...)
	settled(t, src, carry(got...))
	w.close(t, src)
	w.holds(t, append(outs(ms), outs(ms)...)...)
}

func transferAgain(t *testing.T, e *env) {
	w := e.way(t, driver.Object{})
	ms := series("k", 0, 5)
	publish(t, w.publish, ms...)
	src := w.open(t, w.c)
	got := receive(t, src, 5)
	settled(t, src, carry(got[:3]...))
	settled(t, src, carry(got...)) // as after an answer that did not come
	w.close(t, src)
	w.holds(t, outs(ms)...)
}

func transferOutage(t *testing.T, e *env) {
	w := e.way(t, driver.Object{})
	const total, outages = 600, 2
	ms := series("k", 0, total)
	publish(t, w.publish, ms...)
	src := w.open(t, w.c)
	got := receive(t, src, total)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	moved := make(chan int, total)
	done := make(chan error, 1)
	go func() {
		defer close(moved)
		for at := 0; at < total && ctx.Err() == nil; {
			list := carry(got[at:min(at+40, total)]...)
			for _, err := range src.Settle(ctx, list) {
				if err != nil {
					if errors.Is(err, driver.ErrStale) {
						done <- err
						return
					}
					break
				}
				at++
			}
			moved <- at
		}
		done <- ctx.Err()
	}()
	for i := range outages {
		for at := range moved {
			if at >= (i+1)*total/(outages+2) {
				break
			}
		}
		e.Stop(t)
		e.Start(t)
	}
	for range moved {
	}
	if err := <-done; err != nil {
		t.Fatalf("Settle: %v", err)
	}
	w.close(t, src)
	w.holds(t, outs(ms)...)
}
