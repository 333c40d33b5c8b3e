package brokertest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

var adminCases = []testCase{
	{name: "admin: Ensure is idempotent and changes what can be changed", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		topic := driver.Object{Ref: driver.Ref{Kind: driver.Topic, Name: unique("topic")}, Owner: owner, MaxAge: time.Hour, MaxMessages: 100}
		objects := []driver.Object{topic}
		for _, o := range orderings {
			objects = append(objects,
				driver.Object{Ref: driver.Ref{Kind: driver.Queue, Name: unique("queue")}, Owner: owner, Ordering: o, AckWait: time.Minute, MaxMessages: 1000},
				driver.Object{Ref: driver.Ref{Kind: driver.Group, Name: unique("group"), Of: topic.Name}, Owner: owner, Ordering: o, AckWait: time.Minute, Start: driver.Start{Position: driver.Latest}})
		}
		for _, o := range objects {
			for i, want := range []driver.Outcome{driver.Created, driver.Unchanged, driver.Unchanged} {
				if out, err := c.Admin().Ensure(within(t), o); err != nil || out != want {
					t.Fatalf("Ensure %s %s, time %d: %v, %v; want %v", o.Kind, o.Name, i+1, out, err, want)
				}
			}
			t.Cleanup(func() { e.remove(t, o.Ref, owner) })
			if s := state(t, c, o.Ref); !s.Exists || s.Owner != owner && s.Owner != "" || s.Messages > 0 {
				t.Fatalf("Inspect %s %s: %+v", o.Kind, o.Name, s)
			}
		}
		if e.Can.Full {
			longer := objects[0]
			longer.MaxAge = 2 * time.Hour
			if out, err := c.Admin().Ensure(within(t), longer); err != nil || out != driver.Updated {
				t.Fatalf("Ensure with another age: %v, %v", out, err)
			}
			if out, err := c.Admin().Ensure(within(t), longer); err != nil || out != driver.Unchanged {
				t.Fatalf("Ensure with another age, again: %v, %v", out, err)
			}
		}
	}},
	{name: "admin: what cannot be changed is a conflict that names the field", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		topic := e.topic(t, c)
		g := e.group(t, c, topic, driver.Key)
		for _, bad := range []struct {
			o     driver.Object
			field string
		}{
			{driver.Object{Ref: q, Owner: "cluster/other/object", AckWait: time.Minute}, "owner"},
			{driver.Object{Ref: topic, Owner: "cluster/other/object"}, "owner"},
			{driver.Object{Ref: g, Owner: "cluster/other/object", Ordering: driver.Key}, "owner"},
			{driver.Object{Ref: q, Owner: owner, Ordering: driver.Strict, AckWait: time.Minute}, "ordering"},
			{driver.Object{Ref: q, Owner: owner, Ordering: driver.Key, AckWait: time.Minute}, "ordering"},
			{driver.Object{Ref: driver.Ref{Kind: driver.Topic, Name: q.Name}, Owner: owner}, "kind"},
		} {
			_, err := c.Admin().Ensure(within(t), bad.o)
			if !errors.Is(err, driver.ErrConflict) || c.Class(err) != driver.Conflict || !strings.Contains(err.Error(), bad.field) {
				t.Errorf("Ensure %s %s with another %s: %v", bad.o.Kind, bad.o.Name, bad.field, err)
			}
		}
	}},
	{name: "admin: an external object is checked, not made", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		o := driver.Object{Ref: driver.Ref{Kind: driver.Topic, Name: unique("external")}, Owner: owner, External: true}
		if _, err := c.Admin().Ensure(within(t), o); !errors.Is(err, driver.ErrMissing) {
			t.Fatalf("Ensure of an external topic that is not there: %v", err)
		}
		topic := e.ensure(t, c, driver.Object{Ref: driver.Ref{Kind: driver.Topic}, MaxMessages: 77})
		o.Ref, o.Owner, o.MaxMessages = topic, "cluster/other/object", 5
		if out, err := c.Admin().Ensure(within(t), o); err != nil || out != driver.Unchanged {
			t.Fatalf("Ensure of an external topic: %v, %v", out, err)
		}
		publish(t, e.publisher(t, c, topic), series("a", 0, 20)...)
		if n := state(t, c, topic).Messages; n != 20 && n != -1 {
			t.Fatalf("the external topic was altered: it holds %d of 20", n)
		}
	}},
	{name: "admin: Delete keeps what is not its own or not empty", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		for _, o := range orderings {
			q := e.queue(t, c, o)
			topic := e.topic(t, c)
			g := e.group(t, c, topic, o)
			publish(t, e.publisher(t, c, q), msg("a", "k"))
			publish(t, e.publisher(t, c, topic), msg("a", "k"))
			for _, r := range []driver.Ref{q, g, topic} {
				if err := c.Admin().Delete(within(t), r, "cluster/other/object", false); !errors.Is(err, driver.ErrConflict) {
					t.Errorf("%s: Delete %s of another owner: %v", o, r.Kind, err)
				}
				if err := c.Admin().Delete(within(t), r, owner, true); !errors.Is(err, driver.ErrBusy) {
					t.Errorf("%s: Delete %s with messages, if empty: %v", o, r.Kind, err)
				}
				if !state(t, c, r).Exists {
					t.Fatalf("%s: %s is gone", o, r.Kind)
				}
			}
			s := e.source(t, c, driver.SourceSpec{Object: q, Ordering: o})
			settle(t, s, driver.Done, receive(t, s, 1)...)
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "an empty queue", func() bool { return state(t, c, q).Messages == 0 })
			if err := c.Admin().Delete(within(t), q, owner, true); err != nil {
				t.Errorf("%s: Delete of an empty queue: %v", o, err)
			}
			for range 2 {
				if err := c.Admin().Delete(within(t), g, owner, false); err != nil {
					t.Errorf("%s: Delete of a group: %v", o, err)
				}
			}
			for _, r := range []driver.Ref{q, g} {
				if state(t, c, r).Exists {
					t.Errorf("%s: %s is still there", o, r.Kind)
				}
			}
			if n := state(t, c, topic).Messages; n == 0 {
				t.Errorf("%s: deleting a group emptied its topic", o)
			}
			// A group that is made again has no memory of the one before.
			again := driver.Object{Ref: g, Owner: owner, Ordering: o, AckWait: time.Minute, Start: driver.Start{Position: driver.Latest}}
			if out, err := c.Admin().Ensure(within(t), again); err != nil || out != driver.Created {
				t.Errorf("%s: Ensure after Delete: %v, %v", o, out, err)
			}
			if err := c.Admin().Delete(within(t), topic, owner, false); err != nil {
				t.Errorf("%s: Delete of a topic: %v", o, err)
			}
			if state(t, c, g).Exists {
				t.Errorf("%s: a group outlived its topic", o)
			}
		}
	}},
	{name: "admin: backlog and the oldest message", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		if !c.Features().Counts {
			return
		}
		e.each(t, c, func(t *testing.T, object driver.Ref, spec driver.SourceSpec, settling driver.Settling) {
			p := e.publisher(t, c, object)
			r := object
			if spec.Group != "" {
				r = driver.Ref{Kind: driver.Group, Name: spec.Group, Of: object.Name}
			}
			if s := state(t, c, r); s.Messages != 0 || !s.Oldest.IsZero() {
				t.Fatalf("an empty one: %+v", s)
			}
			before := time.Now().Add(-time.Second)
			publish(t, p, series("a", 0, 40)...)
			if n := state(t, c, r).Messages; n != 40 {
				t.Fatalf("the backlog is %d, want 40", n)
			}
			s := e.source(t, c, spec)
			for left := 39; left >= 0; left -= 13 {
				var d []driver.Delivery
				if spec.Ordering == driver.Strict && settling == driver.PerMessage {
					for i := left + 1; i > max(0, left-12); i-- {
						d = receive(t, s, 1)
						settle(t, s, driver.Done, d...)
					}
				} else {
					d = receive(t, s, min(13, left+1))
					settle(t, s, driver.Done, d...)
				}
				now := int64(max(0, left-12))
				eventually(t, fmt.Sprintf("a backlog of %d", now), func() bool { return state(t, c, r).Messages == now })
				st := state(t, c, r)
				if now > 0 && (st.Oldest.Before(before) || st.Oldest.After(time.Now().Add(time.Second))) {
					t.Fatalf("the oldest message is of %v", st.Oldest)
				}
			}
		})
	}},
	{name: "admin: Inspect answers for many, in order, missing ones too", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		var refs []driver.Ref
		for i := range 12 {
			if i%3 == 0 {
				refs = append(refs, driver.Ref{Kind: driver.Queue, Name: unique("missing")}, driver.Ref{Kind: driver.Group, Name: "x", Of: unique("missing")})
			}
			refs = append(refs, e.queue(t, c, driver.None))
		}
		states, err := c.Admin().Inspect(within(t), refs)
		if err != nil || len(states) != len(refs) {
			t.Fatalf("Inspect: %d, %v", len(states), err)
		}
		for i, s := range states {
			if s.Ref != refs[i] || s.Exists != strings.HasPrefix(s.Ref.Name, "queue") {
				t.Errorf("state %d: %+v of %+v", i, s, refs[i])
			}
		}
		if states, err := c.Admin().Inspect(within(t), nil); err != nil || len(states) != 0 {
			t.Fatalf("Inspect of nothing: %v, %v", states, err)
		}
	}},
	{name: "admin: names that a broker cannot have are refused", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		for _, name := range []string{"", "a b", "a\r\nb"} {
			if _, err := c.Admin().Ensure(within(t), driver.Object{Ref: driver.Ref{Kind: driver.Queue, Name: name}, Owner: owner}); !errors.Is(err, driver.ErrInvalid) {
				t.Errorf("Ensure %q: %v", name, err)
			}
		}
	}},
}
