package brokertest

import (
	"fmt"
	"testing"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

var orderCases = []testCase{
	{name: "order: a strict queue keeps it under releases and restarts", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.Strict)
		publish(t, e.publisher(t, c, q), series("a", 0, 30)...)
		spec := driver.SourceSpec{Object: q, Ordering: driver.Strict}
		s := e.source(t, c, spec)
		for i := 0; i < 30; {
			d := receive(t, s, 1)
			want(t, "next", d, series("a", i, 1)[0].ID)
			switch {
			case i%3 == 1 && d[0].Count < 3 && s.Settling() == driver.PerMessage:
				settle(t, s, driver.Release, d...) // it stays the first
				d = receive(t, s, 1)
				want(t, "after the release", d, series("a", i, 1)[0].ID)
			case i%5 == 2: // closing hands it back
				if err := s.Close(within(t)); err != nil {
					t.Fatal(err)
				}
				s = e.source(t, c, spec)
				d = receive(t, s, 1)
				want(t, "after the restart", d, series("a", i, 1)[0].ID)
			}
			settle(t, s, driver.Done, d...)
			i++
		}
		nothing(t, s)
	}},
	{name: "order: a strict queue hands out one message at a time to all its readers", run: func(t *testing.T, e *env) {
		if e.Can.Settling(driver.Queue, driver.Strict) != driver.PerMessage {
			return
		}
		c := e.conn(t)
		q := e.queue(t, c, driver.Strict)
		publish(t, e.publisher(t, c, q), series("a", 0, 3)...)
		spec := driver.SourceSpec{Object: q, Ordering: driver.Strict, OnDemand: e.Can.Settler}
		one, two := e.source(t, c, spec), e.source(t, e.conn(t), spec)
		d := receive(t, one, 1)
		nothing(t, two)
		settle(t, one, driver.Done, d...)
		want(t, "then", receive(t, two, 1), "a0001")
		nothing(t, one)
	}},
	{name: "order: keys keep it over takeovers with gaps in what is settled", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		for _, o := range []driver.Ordering{driver.Key, driver.Strict} {
			topic := e.topic(t, c)
			g := e.group(t, c, topic, o)
			var ms []message.Message
			for i := range 100 {
				for k := range 5 {
					ms = append(ms, msg(fmt.Sprintf("%d-%03d", k, i), fmt.Sprint("key", k)))
				}
			}
			publish(t, e.publisher(t, c, topic), ms...)
			settled := 0
			for settled < len(ms) {
				s := e.source(t, c, of(g, o))
				got := receive(t, s, min(60, len(ms)-settled))
				want(t, string(o), got, idsOf(ms[settled:settled+len(got)])...)
				if s.Settling() == driver.Positional {
					upTo := (len(got) + 1) / 2
					settle(t, s, driver.Done, got[upTo-1]) // the low watermark; what was done above it is forgotten
					settled += upTo
				} else {
					settle(t, s, driver.Done, got...)
					settled += len(got)
				}
				if err := s.Close(within(t)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}},
	{name: "order: settling backwards does not move a position back", needs: positionalGroup, run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := e.topic(t, c)
		g := e.group(t, c, topic, driver.Key)
		publish(t, e.publisher(t, c, topic), series("a", 0, 10)...)
		s := e.source(t, c, of(g, driver.Key))
		got := receive(t, s, 10)
		settle(t, s, driver.Done, got[6])
		settle(t, s, driver.Done, got[2])
		settle(t, s, driver.Done, got[1], got[7], got[0])
		if err := s.Close(within(t)); err != nil {
			t.Fatal(err)
		}
		want(t, "after", receive(t, e.source(t, c, of(g, driver.Key)), 2), "a0008", "a0009")
	}},
}
