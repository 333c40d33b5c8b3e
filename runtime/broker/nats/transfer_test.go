package nats_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/message"
)

// passage is a server with a topic that is carried into another one.
type passage struct {
	conn driver.Conn
	js   jetstream.JetStream
	spec driver.SourceSpec
	addr string
}

func newPassage(t *testing.T, out driver.Object) *passage {
	t.Helper()
	p := &passage{addr: startProcess(t, serverConfig{}).addr}
	p.conn = p.open(t)
	raw, err := natsgo.Connect(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(raw.Close)
	if p.js, err = jetstream.New(raw); err != nil {
		t.Fatal(err)
	}
	out.Kind, out.Name, out.Owner = driver.Topic, "out", "o"
	for _, o := range []driver.Object{
		{Ref: driver.Ref{Kind: driver.Topic, Name: "in"}, Owner: "o"}, out,
		{Ref: driver.Ref{Kind: driver.Group, Name: "once", Of: "in"}, Owner: "o", Ordering: driver.Key, Start: driver.Start{Position: driver.Earliest}},
	} {
		if _, err := p.conn.Admin().Ensure(within(t), o); err != nil {
			t.Fatal(err)
		}
	}
	p.spec = driver.SourceSpec{Object: driver.Ref{Kind: driver.Topic, Name: "in"}, Group: "once", Into: out.Ref}
	return p
}

func (p *passage) open(t *testing.T) driver.Conn {
	t.Helper()
	c, err := nats.Open(within(t), driver.Config{Addresses: []string{p.addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(within(t)); err != nil {
			t.Error(err)
		}
	})
	return c
}

// carry receives n messages and carries each over.
func (p *passage) carry(t *testing.T, src driver.Source, n int) {
	t.Helper()
	for n > 0 {
		into := make([]driver.Delivery, n)
		k, err := src.Receive(within(t), into)
		if err != nil {
			t.Fatal(err)
		}
		for i := range into[:k] {
			list := []driver.Settlement{{D: &into[i], Verb: driver.Done, Out: []message.Message{into[i].Message}}}
			if err := src.Settle(within(t), list)[0]; err != nil {
				t.Fatal(err)
			}
		}
		n -= k
	}
}

func (p *passage) publish(t *testing.T, n int) {
	t.Helper()
	pub, err := p.conn.Publisher(within(t), driver.PublisherSpec{Object: p.spec.Object})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		m := message.Message{ID: fmt.Sprint(i), Source: "/test", Type: "test"}
		if err := pub.Publish(within(t), []message.Message{m})[0]; err != nil {
			t.Fatal(err)
		}
	}
	if err := pub.Close(within(t)); err != nil {
		t.Fatal(err)
	}
}

func TestATransferIsRefusedWhereNoPositionCanBeKept(t *testing.T) {
	p := newPassage(t, driver.Object{})
	places := func(name string) []string { return []string{name, "waybill.position." + name + ".>"} }
	for _, c := range []struct {
		says string
		cfg  jetstream.StreamConfig
	}{
		{"mirror: nothing can be published to a mirror", jetstream.StreamConfig{Name: "a", Mirror: &jetstream.StreamSource{Name: "in"}}},
		{"allow_atomic: ", jetstream.StreamConfig{Name: "b", Subjects: places("b"), AllowRollup: true}},
		{"allow_rollup_hdrs: ", jetstream.StreamConfig{Name: "c", Subjects: places("c"), AllowAtomicPublish: true}},
		{"subjects: waybill.position.d.> is not among them", jetstream.StreamConfig{Name: "d", Subjects: []string{"d"}, AllowAtomicPublish: true, AllowRollup: true}},
	} {
		if _, err := p.js.CreateStream(t.Context(), c.cfg); err != nil {
			t.Fatal(err)
		}
		spec := p.spec
		spec.Into.Name = c.cfg.Name
		_, err := p.conn.Source(within(t), spec)
		if !errors.Is(err, driver.ErrConflict) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "use AtLeastOnce") {
			t.Errorf("stream %s: %v, want a conflict that says %q", c.cfg.Name, err, c.says)
		}
	}
	spec := p.spec
	spec.Into.Name = "none"
	if _, err := p.conn.Source(within(t), spec); !errors.Is(err, driver.ErrMissing) {
		t.Errorf("without the stream: %v, want ErrMissing", err)
	}
}

// Everything that lay in the output stream has expired, and only then the reader is killed: it had renewed its position in time.
func TestAnIdleTransferRenewsItsPosition(t *testing.T) {
	p := newPassage(t, driver.Object{MaxAge: time.Second})
	p.publish(t, 3)
	c := p.open(t)
	src, err := c.Source(within(t), p.spec)
	if err != nil {
		t.Fatal(err)
	}
	p.carry(t, src, 2)
	stream, err := p.js.Stream(t.Context(), "out")
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx := within(t); ; {
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter("out"))
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Subjects["out"] == 0 && info.State.Msgs > 0 {
			break
		}
		<-tick.C
	}
	if err := c.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	_ = src.Close(within(t)) // its connection is gone
	src, err = p.conn.Source(within(t), p.spec)
	if err != nil {
		t.Fatal(err)
	}
	p.carry(t, src, 1)
	if err := src.Close(within(t)); err != nil {
		t.Fatal(err)
	}
}

// What goes to another topic from now on leaves nothing in the one before, and a deleted group leaves nothing at all but what retention takes.
func TestATransferThatEndsLeavesNoPlace(t *testing.T) {
	p := newPassage(t, driver.Object{})
	p.publish(t, 4)
	other := driver.Object{Ref: driver.Ref{Kind: driver.Topic, Name: "other"}, Owner: "o"}
	if _, err := p.conn.Admin().Ensure(within(t), other); err != nil {
		t.Fatal(err)
	}
	place := func(stream string) bool {
		t.Helper()
		s, err := p.js.Stream(t.Context(), stream)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.GetLastMsgForSubject(t.Context(), "waybill.position."+stream+".in.once")
		if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	for i, spec := range []driver.SourceSpec{p.spec, p.spec} {
		if i == 1 {
			spec.Into.Name = "other"
		}
		src, err := p.conn.Source(within(t), spec)
		if err != nil {
			t.Fatal(err)
		}
		p.carry(t, src, 2)
		if err := src.Close(within(t)); err != nil {
			t.Fatal(err)
		}
		if in, out := place("out"), place("other"); in != (i == 0) || out != (i == 1) {
			t.Errorf("transfer %d: a place in out: %t, in other: %t", i, in, out)
		}
	}
	for _, stream := range []string{"out", "other"} {
		states, err := p.conn.Admin().Inspect(within(t), []driver.Ref{{Kind: driver.Topic, Name: stream}})
		if err != nil || states[0].Messages != 2 {
			t.Errorf("%s: %+v, %v; want 2 messages, each carried once", stream, states, err)
		}
	}
	if err := p.conn.Admin().Delete(within(t), driver.Ref{Kind: driver.Group, Name: "once", Of: "in"}, "o", false); err != nil {
		t.Fatal(err)
	}
	if place("other") {
		t.Error("the place of a deleted group is left")
	}
}

// A transfer was killed, and its group becomes one with a durable consumer, and a cursor again: nothing is carried twice, nothing is left out.
func TestAPositionGoesFromATransferToAConsumerAndBack(t *testing.T) {
	p := newPassage(t, driver.Object{})
	p.publish(t, 6)
	c := p.open(t)
	src, err := c.Source(within(t), p.spec)
	if err != nil {
		t.Fatal(err)
	}
	p.carry(t, src, 2)
	if err := c.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	_ = src.Close(within(t)) // its connection is gone
	group := driver.Object{Ref: driver.Ref{Kind: driver.Group, Name: "once", Of: "in"}, Owner: "o", AckWait: time.Minute}
	ensure := func(o driver.Ordering) {
		t.Helper()
		group.Ordering = o
		if outcome, err := p.conn.Admin().Ensure(within(t), group); err != nil || outcome != driver.Updated {
			t.Fatalf("Ensure with ordering %s: %s, %v", o, outcome, err)
		}
	}
	ensure(driver.None)
	plain := p.spec
	plain.Into, plain.Ordering = driver.Ref{}, driver.None
	src, err = p.conn.Source(within(t), plain)
	if err != nil {
		t.Fatal(err)
	}
	for want := 2; want < 4; want++ {
		into := make([]driver.Delivery, 1)
		if n, err := src.Receive(within(t), into); err != nil || n != 1 || into[0].Message.ID != fmt.Sprint(want) {
			t.Fatalf("the consumer received %d, %v, %s; want message %d", n, err, into[0].Message.ID, want)
		}
		if err := src.Settle(within(t), []driver.Settlement{{D: &into[0], Verb: driver.Done}})[0]; err != nil {
			t.Fatal(err)
		}
	}
	if err := src.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	ensure(driver.Key)
	if src, err = p.conn.Source(within(t), p.spec); err != nil {
		t.Fatal(err)
	}
	into := make([]driver.Delivery, 1)
	if n, err := src.Receive(within(t), into); err != nil || n != 1 || into[0].Message.ID != "4" {
		t.Errorf("the transfer received %d, %v, %s; want message 4", n, err, into[0].Message.ID)
	}
	if err := src.Close(within(t)); err != nil {
		t.Fatal(err)
	}
}
