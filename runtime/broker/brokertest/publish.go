package brokertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

var publishCases = []testCase{
	{name: "publish: what is confirmed is received, in order", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		p := e.publisher(t, c, q)
		ms := append(series("a", 0, 2500), series("b", 0, 1)...)
		publish(t, p, ms...)
		s := e.source(t, c, driver.SourceSpec{Object: q, Window: driver.Window{Messages: 4000, Bytes: 64 << 20}})
		got := receive(t, s, len(ms))
		want(t, "received", got, idsOf(ms)...)
		settle(t, s, driver.Done, got...)
		eventually(t, "an empty queue", func() bool { return state(t, c, q).Messages == 0 })
	}},
	{name: "publish: an empty batch is nothing", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		p := e.publisher(t, c, e.queue(t, c, driver.None))
		if errs := p.Publish(within(t), nil); len(errs) != 0 {
			t.Fatalf("Publish of nothing: %v", errs)
		}
	}},
	{name: "publish: an ended context stores nothing", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		p := e.publisher(t, c, q)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for _, err := range p.Publish(ctx, series("a", 0, 3)) {
			if !errors.Is(err, context.Canceled) || errors.Is(err, driver.ErrUnknown) {
				t.Fatalf("Publish with an ended context: %v", err)
			}
		}
		if n := state(t, c, q).Messages; n > 0 {
			t.Fatalf("%d messages were stored", n)
		}
	}},
	{name: "publish: callers share and each gets its own answer", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := e.topic(t, c)
		g := e.group(t, c, topic, driver.Key)
		p := e.publisher(t, c, topic)
		const callers, rounds = 16, 20
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				key := fmt.Sprintf("k%02d-", i)
				for r := range rounds {
					ms := series(key, r*4, 4)
					ms[2].Type = "" // invalid: it alone fails, and the one behind it is held back
					errs := p.Publish(within(t), ms)
					if errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], driver.ErrInvalid) || !errors.Is(errs[3], driver.ErrHeldBack) {
						t.Errorf("Publish: %v", errs)
						return
					}
				}
			})
		}
		wg.Wait()
		s := e.source(t, c, of(g, driver.Key))
		got := receive(t, s, callers*rounds*2)
		next := map[string]string{}
		for _, d := range got {
			if d.Message.ID <= next[d.Message.Key] {
				t.Fatalf("key %s: %s came after %s", d.Message.Key, d.Message.ID, next[d.Message.Key])
			}
			next[d.Message.Key] = d.Message.ID
		}
		nothing(t, s)
	}},
	{name: "publish: a failed message holds back what follows it in its key, and only that", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		p := e.publisher(t, c, q)
		ms := []message.Message{msg("a1", "a"), msg("b1", "b"), msg("a2", "a"), msg("b2", "b"), msg("a3", "a")}
		ms[2].Data = make([]byte, c.Features().MaxMessageBytes+1)
		errs := p.Publish(within(t), ms)
		if errs[0] != nil || errs[1] != nil || errs[3] != nil || !errors.Is(errs[2], driver.ErrTooLarge) || !errors.Is(errs[4], driver.ErrHeldBack) {
			t.Fatalf("Publish: %v", errs)
		}
		if class := c.Class(errs[2]); class != driver.TooLarge {
			t.Fatalf("class of %v is %v", errs[2], class)
		}
		s := e.source(t, c, driver.SourceSpec{Object: q})
		want(t, "received", receive(t, s, 3), "a1", "b1", "b2")
		nothing(t, s)
	}},
	{name: "publish: a message up to the limit goes through and one over it is refused", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		p := e.publisher(t, c, q)
		limit := c.Features().MaxMessageBytes
		if limit < 64<<10 {
			t.Fatalf("MaxMessageBytes is %d", limit)
		}
		big := func(id string, n int) message.Message {
			m := msg(id, "k")
			m.Data = make([]byte, n)
			for i := range m.Data {
				m.Data[i] = byte(i)
			}
			return m
		}
		// The portable promise leaves 24 KiB for headers and the history of a dead letter.
		room := big("room", limit-24<<10)
		publish(t, p, room)
		// Along with others, and with all that a dead letter adds.
		dead := big("dead", limit-24<<10)
		dead.Attributes = []message.Attribute{{Name: "wblasterror", Value: strings.Repeat("e", 1024)}, {Name: "wbfirsterror", Value: strings.Repeat("é", 512)}, {Name: "wbreason", Value: "Terminal"}}
		publish(t, p, msg("small", "k"), dead, msg("after", "k"))
		over := p.Publish(within(t), []message.Message{big("over", limit)})
		if !errors.Is(over[0], driver.ErrTooLarge) {
			t.Fatalf("one over the limit: %v", over[0])
		}
		s := e.source(t, c, driver.SourceSpec{Object: q})
		got := receive(t, s, 4)
		want(t, "received", got, "room", "small", "dead", "after")
		if string(got[2].Message.Data) != string(dead.Data) {
			t.Fatal("the large message came back changed")
		}
	}},
	{name: "publish: too many attributes are refused before they are sent", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		p := e.publisher(t, c, q)
		m := msg("wide", "k")
		for i := range 70 {
			m.Attributes = append(m.Attributes, message.Attribute{Name: fmt.Sprintf("x%d", i), Value: strings.Repeat("v", 1024)})
		}
		errs := p.Publish(within(t), []message.Message{msg("a", "a"), m, msg("b", "b")})
		if errs[0] != nil || errs[2] != nil || !errors.Is(errs[1], driver.ErrTooLarge) {
			t.Fatalf("Publish: %v", errs)
		}
	}},
	{name: "publish: a repeated source and id is one message", needs: func(h *Harness) bool { return h.Can.Dedup }, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := e.topic(t, c)
		g := e.group(t, c, topic, driver.Key)
		p := e.publisher(t, c, topic)
		ms := series("a", 0, 200)
		publish(t, p, ms[50])
		publish(t, p, ms...)                         // one of a batch is known
		publish(t, p, ms...)                         // all are
		publish(t, p, ms[7], ms[8], msg("new", "a")) // most are
		other := ms[0]
		other.Source = "/elsewhere" // the same id of another source is another message
		publish(t, p, other)
		long := msg(strings.Repeat("l", 300), "a")
		publish(t, p, long, long)
		expect := append([]string{ms[50].ID}, idsOf(ms[:50])...)
		expect = append(expect, idsOf(ms[51:])...)
		expect = append(expect, "new", ms[0].ID, long.ID)
		s := e.source(t, c, of(g, driver.Key))
		want(t, "received", receive(t, s, len(expect)), expect...)
		nothing(t, s)
	}},
	{name: "publish: dead letters of one event, and requests asked anew, are messages of their own", needs: func(h *Harness) bool { return h.Can.Dedup }, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		p := e.publisher(t, c, q)
		with := func(values ...string) message.Message {
			m := msg("a", "a")
			for i := 0; i < len(values); i += 2 {
				m.Attributes = append(m.Attributes, message.Attribute{Name: values[i], Value: values[i+1]})
			}
			return m
		}
		ms := []message.Message{
			with(),
			with(message.Reason, "Terminal", message.Origin, "Subscription/default/billing"),
			with(message.Reason, "Terminal", message.Origin, "Subscription/default/audit"),
			with(message.Correlation, "c", message.ExpiryTime, "2030-01-01T00:00:00Z"),
			with(message.Correlation, "c", message.ExpiryTime, "2030-01-01T00:01:00Z"),
		}
		publish(t, p, ms...)
		publish(t, p, ms...)
		if n := state(t, c, q).Messages; n != int64(len(ms)) {
			t.Errorf("%d messages are stored, want %d", n, len(ms))
		}
	}},
	{name: "publish: a failed message without a key holds nothing back", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		ms := []message.Message{msg("a", ""), msg("b", ""), msg("c", "")}
		ms[1].Type = ""
		errs := e.publisher(t, c, q).Publish(within(t), ms)
		if errs[0] != nil || !errors.Is(errs[1], driver.ErrInvalid) || errs[2] != nil {
			t.Fatalf("Publish: %v", errs)
		}
		want(t, "received", receive(t, e.source(t, c, driver.SourceSpec{Object: q}), 2), "a", "c")
	}},
	{name: "publish: a full queue refuses and takes again when there is room", needs: func(h *Harness) bool { return h.Can.Full }, run: func(t *testing.T, e *env) {
		for _, o := range []driver.Ordering{driver.None, driver.Strict, driver.Key} {
			c := e.conn(t)
			q := e.ensure(t, c, driver.Object{Ref: driver.Ref{Kind: driver.Queue}, Ordering: o, MaxMessages: 10})
			p := e.publisher(t, c, q)
			errs := p.Publish(within(t), series("a", 0, 25))
			for i, err := range errs {
				if i < 10 && err != nil || i >= 10 && !errors.Is(err, driver.ErrFull) && !errors.Is(err, driver.ErrHeldBack) {
					t.Fatalf("%s: message %d of a queue for ten: %v", o, i, err)
				}
			}
			if !errors.Is(errs[10], driver.ErrFull) || c.Class(errs[10]) != driver.Full {
				t.Fatalf("%s: the first that does not fit: %v, class %v", o, errs[10], c.Class(errs[10]))
			}
			s := e.source(t, c, driver.SourceSpec{Object: q, Ordering: o})
			settle(t, s, driver.Done, receive(t, s, 1)...)
			eventually(t, "room", func() bool { return state(t, c, q).Messages == 9 })
			publish(t, p, msg("late", "a"))
			if err := p.Publish(within(t), []message.Message{msg("more", "a")})[0]; !errors.Is(err, driver.ErrFull) {
				t.Fatalf("%s: full again: %v", o, err)
			}
		}
	}},
	{name: "publish: an object that is not there is named", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		_, err := c.Publisher(within(t), driver.PublisherSpec{Object: driver.Ref{Kind: driver.Queue, Name: e.name}})
		if !errors.Is(err, driver.ErrMissing) || c.Class(err) != driver.Missing || !strings.Contains(err.Error(), e.name) {
			t.Fatalf("Publisher of an object that is not there: %v", err)
		}
	}},
	{name: "publish: an object that went away is missed", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		p := e.publisher(t, c, q)
		if err := c.Admin().Delete(within(t), q, owner, false); err != nil {
			t.Fatal(err)
		}
		for _, ms := range [][]message.Message{series("a", 0, 1), series("a", 0, 30)} {
			for _, err := range p.Publish(within(t), ms)[:1] {
				if !errors.Is(err, driver.ErrMissing) || errors.Is(err, driver.ErrUnknown) {
					t.Fatalf("Publish to a deleted object: %v", err)
				}
			}
		}
	}},
}
