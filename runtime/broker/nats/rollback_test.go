package nats

import (
	"context"
	"errors"
	"testing"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// A server that was killed may have given out messages that it had not written. The next ones have their numbers and must not be skipped.
func TestAPositionBehindTheEndOfItsStreamGoesBackToIt(t *testing.T) {
	topic := driver.Object{Ref: driver.Ref{Kind: driver.Topic, Name: "t"}}
	c := embeddedConn(t, topic)
	group := driver.Object{Ref: driver.Ref{Kind: driver.Group, Name: "g", Of: "t"}, Ordering: driver.Key, Start: driver.Start{Position: driver.Earliest}}
	if _, err := c.Admin().Ensure(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	p := openPublisher(t, c, topic.Ref)
	publish := func(id string) {
		t.Helper()
		if err := p.Publish(t.Context(), []message.Message{event(id, "k")})[0]; err != nil {
			t.Fatal(err)
		}
	}
	open := func() *cursorSource {
		t.Helper()
		s, err := c.Source(t.Context(), driver.SourceSpec{Object: topic.Ref, Group: "g", Ordering: driver.Key})
		if err != nil {
			t.Fatal(err)
		}
		return s.(*cursorSource)
	}
	into := make([]driver.Delivery, 1)
	receive := func(s *cursorSource, want string) {
		t.Helper()
		if n, err := s.Receive(t.Context(), into); n != 1 || err != nil || into[0].Message.ID != want {
			t.Fatalf("%d, %v, message %s, want %s", n, err, into[0].Message.ID, want)
		}
	}
	publish("1")
	s := open()
	receive(s, "1")
	if err := errors.Join(s.Settle(t.Context(), []driver.Settlement{{D: &into[0], Verb: driver.Done}})...); err != nil {
		t.Fatal(err)
	}

	s.position = 5 // as if 2 to 5 had been given out before the server was killed
	if err := s.start(t.Context()); !errors.Is(err, driver.ErrStale) {
		t.Errorf("a reader goes on behind the end: %v", err)
	}
	if err := s.Settle(t.Context(), []driver.Settlement{{D: &into[0], Verb: driver.Done}})[0]; !errors.Is(err, driver.ErrStale) {
		t.Errorf("it settles: %v", err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}

	cur, err := c.loadCursor(t.Context(), "t", "g")
	if err != nil {
		t.Fatal(err)
	}
	r := cur.record
	r.Position = 5 // as if they had been settled
	if err := c.storeCursor(t.Context(), "t", "g", &cur, r); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close(context.Background())
	publish("2 again")
	receive(s, "2 again")
}
