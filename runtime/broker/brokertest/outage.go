package brokertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

func outage(h *Harness) bool { return h.Stop != nil && h.Start != nil }

var outageCases = []testCase{
	{name: "outage: everything resumes after the server restarts, and nothing confirmed is lost", needs: outage, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		e.each(t, c, func(t *testing.T, object driver.Ref, spec driver.SourceSpec, settling driver.Settling) {
			p := e.publisher(t, c, object)
			publish(t, p, series("a", 0, 20)...)
			s := e.source(t, c, spec)
			settle(t, s, driver.Done, receive(t, s, 1)...)
			e.Stop(t)
			if err := publishUntil(t, c, p, msg("away", "a")); c.Class(err) != driver.Transient {
				t.Errorf("Publish while the server is away: %v, class %v", err, c.Class(err))
			}
			e.Start(t)
			m := msg("b", "a")
			eventually(t, "publishing again", func() bool { return p.Publish(within(t), []message.Message{m})[0] == nil })
			seen := map[string]bool{"a0000": true}
			order := []string{}
			for !seen["b"] || len(seen) < 21 {
				d := through(t, c, s, 1)
				if !seen[d[0].Message.ID] {
					order = append(order, d[0].Message.ID)
				}
				seen[d[0].Message.ID] = true
				// A settlement that failed because the server was away comes again.
				for _, err := range s.Settle(within(t), settlements(driver.Done, d...)) {
					if err != nil && c.Class(err) != driver.Transient && c.Class(err) != driver.Stale {
						t.Fatalf("Settle: %v", err)
					}
				}
				delete(seen, "away") // its fate was unknown
			}
			if spec.Ordering != driver.None {
				last := ""
				for _, id := range order {
					if id == "away" {
						continue
					}
					if id < last {
						t.Fatalf("%s came after %s", id, last)
					}
					last = id
				}
			}
		})
	}},
	{name: "outage: an open claim survives a restart of the server", needs: func(h *Harness) bool { return outage(h) && positionalGroup(h) }, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := e.topic(t, c)
		g := e.group(t, c, topic, driver.Key)
		publish(t, e.publisher(t, c, topic), series("a", 0, 100)...)
		s := e.source(t, c, of(g, driver.Key))
		got := receive(t, s, 60)
		e.Stop(t)
		e.Start(t)
		eventually(t, "settling what was received before", func() bool {
			err := s.Settle(within(t), settlements(driver.Done, got...))[0]
			if err != nil && c.Class(err) != driver.Transient {
				t.Fatalf("Settle: %v", err)
			}
			return err == nil
		})
		want(t, "after the restart", through(t, c, s, 40), idsOf(series("a", 60, 40))...)
	}},
	{name: "outage: a publish ends with its context while the server is away", needs: outage, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		p := e.publisher(t, c, q)
		s := e.source(t, c, driver.SourceSpec{Object: q})
		e.Stop(t)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		for _, err := range p.Publish(ctx, series("a", 0, 10)) {
			if err == nil {
				t.Error("a publish was confirmed although the server is away")
			}
		}
		nothing(t, s)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		select {
		case <-c.Done():
			t.Error("the connection gave itself up; its client heals it")
		default:
		}
		e.Start(t)
		eventually(t, "publishing again", func() bool { return p.Publish(within(t), []message.Message{msg("b", "b")})[0] == nil })
	}},
	{name: "outage: an inbox hears again after the server restarts", needs: func(h *Harness) bool { return outage(h) && h.Can.Inbox }, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		in := e.inbox(t, c, "default")
		e.Stop(t)
		e.Start(t)
		eventually(t, "a reply", func() bool {
			if c.Reply(within(t), "default", in.Address(), msg("r", "")) != nil {
				return false
			}
			replies(t, in, 1)
			return true
		})
	}},
	{name: "outage: restarts under load lose and reorder nothing", needs: outage, run: func(t *testing.T, e *env) {
		c, reader := e.conn(t), e.conn(t)
		topic := e.topic(t, c)
		g := e.group(t, c, topic, driver.Key)
		p := e.publisher(t, c, topic)
		s := e.source(t, reader, of(g, driver.Key))
		const keys, each = 4, 300
		published := make(chan struct{})
		go func() {
			defer close(published)
			for i := 0; i < each; i += 10 {
				var ms []message.Message
				for k := range keys {
					ms = append(ms, series(fmt.Sprint("k", k, "-"), i, 10)...)
				}
				for len(ms) > 0 && !t.Failed() { // as package broker does it: what failed is tried again, in order
					errs := p.Publish(within(t), ms)
					var again []message.Message
					for j, err := range errs {
						if err != nil {
							again = append(again, ms[j])
							if class := c.Class(err); class != driver.Transient && !errors.Is(err, driver.ErrHeldBack) {
								t.Errorf("Publish: %v", err)
								return
							}
						}
					}
					ms = again
				}
			}
		}()
		next := map[string]int{}
		total, restarts := 0, 0
		for total < keys*each {
			into := through(t, reader, s, 1)
			more := make([]driver.Delivery, 63)
			n, err := s.Receive(ended(), more) // what else is at hand
			if err != nil && reader.Class(err) != driver.Transient {
				t.Fatalf("Receive: %v", err)
			}
			into = append(into, more[:n]...)
			for _, d := range into {
				var at int
				if _, err := fmt.Sscanf(d.Message.ID[len(d.Message.Key):], "%d", &at); err != nil {
					t.Fatal(err)
				}
				switch have := next[d.Message.Key]; {
				case at == have:
					next[d.Message.Key]++
					total++
				case at > have:
					t.Fatalf("key %s: %d came when %d was due", d.Message.Key, at, have)
				}
			}
			s.Settle(within(t), settlements(driver.Done, into[len(into)-1])) // its failure only means that messages come again later
			if restarts < 3 && total > (restarts+1)*keys*each/5 {
				restarts++
				e.Stop(t)
				e.Start(t)
			}
		}
		<-published
	}},
}

// through receives n deliveries; an outage in between may show as errors that pass.
func through(t *testing.T, c driver.Conn, s driver.Source, n int) []driver.Delivery {
	t.Helper()
	ctx := within(t)
	got := make([]driver.Delivery, n)
	have := 0
	for have < n {
		k, err := s.Receive(ctx, got[have:])
		if err != nil && c.Class(err) != driver.Transient || ctx.Err() != nil {
			t.Fatalf("Receive: %v (after %d of %d)", err, have, n)
		}
		have += k
	}
	return got
}

// ended is a context that has ended: Receive gives what it has.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// publishUntil publishes until it fails, which it must soon.
func publishUntil(t *testing.T, c driver.Conn, p driver.Publisher, m message.Message) error {
	t.Helper()
	var err error
	eventually(t, "a failed publish", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err = p.Publish(ctx, []message.Message{m})[0]
		return err != nil
	})
	return err
}
