package nats

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// A position says nothing about another stream of the same name, be it as long as the one before.
func TestAPositionInADeletedStreamIsLost(t *testing.T) {
	topic := driver.Object{Ref: driver.Ref{Kind: driver.Topic, Name: "t"}}
	group := driver.Object{Ref: driver.Ref{Kind: driver.Group, Name: "g", Of: "t"}, Ordering: driver.Key, Start: driver.Start{Position: driver.Earliest}}
	c := embeddedConn(t, topic)
	if _, err := c.Admin().Ensure(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	publish := func(ids ...string) {
		t.Helper()
		for _, id := range ids {
			if err := openPublisher(t, c, topic.Ref).Publish(t.Context(), []message.Message{event(id, "k")})[0]; err != nil {
				t.Fatal(err)
			}
		}
	}
	spec := driver.SourceSpec{Object: topic.Ref, Group: "g", Ordering: driver.Key}
	read := func(n int) (last string) {
		t.Helper()
		src, err := c.Source(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close(context.Background())
		into := make([]driver.Delivery, 1)
		for range n {
			if _, err := src.Receive(t.Context(), into); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(src.Settle(t.Context(), []driver.Settlement{{D: &into[0], Verb: driver.Done}})...); err != nil {
				t.Fatal(err)
			}
		}
		return into[0].Message.ID
	}
	publish("1", "2")
	read(2)

	if err := c.js.DeleteStream(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Admin().Ensure(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Admin().Ensure(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	publish("3", "4", "5")
	if _, err := c.Source(t.Context(), spec); !errors.Is(err, driver.ErrPositionLost) {
		t.Fatalf("a reader skips what stands in the new stream: %v", err)
	}
	loose := group
	loose.Ordering = driver.None
	if _, err := c.Admin().Ensure(t.Context(), loose); !errors.Is(err, driver.ErrPositionLost) {
		t.Fatalf("with another ordering it skips it too: %v", err)
	}
	if err := c.Admin().Seek(t.Context(), group.Ref, driver.Start{Position: driver.Earliest}); err != nil {
		t.Fatal(err)
	}
	if id := read(1); id != "3" {
		t.Errorf("after a seek it begins with %s", id)
	}
}

// A record of a release that did not note the stream takes the one that there is.
func TestAPositionWithoutAStreamIsTakenOver(t *testing.T) {
	c, q := crashed(t)
	cur, err := c.loadCursor(t.Context(), q.Name, "")
	if err != nil {
		t.Fatal(err)
	}
	r := cur.record
	r.Stream = 0
	if err := c.storeCursor(t.Context(), q.Name, "", &cur, r); err != nil {
		t.Fatal(err)
	}
	src, err := c.Source(t.Context(), driver.SourceSpec{Object: q, Ordering: driver.Key})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close(context.Background())
	info, err := c.js.Stream(t.Context(), q.Name)
	if err != nil {
		t.Fatal(err)
	}
	if cur, err := c.loadCursor(t.Context(), q.Name, ""); err != nil || cur.Stream != created(info) {
		t.Errorf("the record has the stream %d, %v", cur.Stream, err)
	}
}

func created(s jetstream.Stream) int64 { return s.CachedInfo().Created.UnixNano() }
