package nats

import (
	"context"
	"errors"
	"testing"
	"time"

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

	s.came.Position = 5 // as if 2 to 5 had been given out before the server was killed
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

// A mark says of another message that has its number that it is another, also where the server's clock has gone back meanwhile.
func TestAPositionWhoseMessageIsAnotherIsLostWhereTimeDoesNotTell(t *testing.T) {
	topic := driver.Object{Ref: driver.Ref{Kind: driver.Topic, Name: "t"}}
	c := embeddedConn(t, topic)
	publishEach(t, c, topic.Ref, "1", "2", "3", "4", "5", "6", "7")
	stream, err := c.streamInfo(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	at, err := c.storedAt(t.Context(), "t", 5)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []mark{{5, at}, {7, stream.State.LastTime.UnixNano()}, {3, 0}} {
		if got, err := c.left(t.Context(), "t", m, &stream.State); got != m || err != nil {
			t.Errorf("%v became %v: %v", m, got, err)
		}
	}
	if got, err := c.left(t.Context(), "t", mark{5, time.Now().Add(time.Hour).UnixNano()}, &stream.State); !errors.Is(err, driver.ErrPositionLost) {
		t.Errorf("another message is known to have the number, and it is passed over: %v, %v", got, err)
	}
}

// during runs f on a server of the folder.
func during(t *testing.T, dir string, f func(*conn)) {
	t.Helper()
	e, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.Open(t.Context(), driver.Config{})
	if err == nil {
		defer func() {
			if err := errors.Join(c.Close(context.Background()), e.Shutdown(context.Background())); err != nil {
				t.Error(err)
			}
		}()
		f(c.(*conn))
	} else {
		t.Fatal(errors.Join(err, e.Shutdown(context.Background())))
	}
}

func publishEach(t *testing.T, c *conn, to driver.Ref, ids ...string) {
	t.Helper()
	p := openPublisher(t, c, to)
	for _, id := range ids {
		if err := p.Publish(t.Context(), []message.Message{event(id, "k")})[0]; err != nil {
			t.Fatal(err)
		}
	}
}

func receiveEach(t *testing.T, s driver.Source, ids ...string) []driver.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	into := make([]driver.Delivery, len(ids))
	for have := 0; have < len(ids); {
		n, err := s.Receive(ctx, into[have:])
		if n == 0 || err != nil {
			t.Fatalf("received %d: %v", have, err)
		}
		have += n
	}
	for i := range into {
		if into[i].Message.ID != ids[i] {
			t.Fatalf("message %d is %q, want %q", i, into[i].Message.ID, ids[i])
		}
	}
	return into
}

// A laptop's broker ends with the process that hands messages back.
func TestWhatIsHandedBackComesAgainAtOnceAfterARestart(t *testing.T) {
	dir, q := t.TempDir(), driver.Ref{Kind: driver.Queue, Name: "q"}
	spec := driver.SourceSpec{Object: q, AckWait: time.Hour, Window: driver.Window{Messages: 8}}
	during(t, dir, func(c *conn) {
		if _, err := c.Admin().Ensure(t.Context(), driver.Object{Ref: q, AckWait: time.Hour}); err != nil {
			t.Fatal(err)
		}
		publishEach(t, c, q, "1", "2", "3", "4")
		s, err := c.Source(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		ds := receiveEach(t, s, "1", "2", "3", "4")
		if err := errors.Join(s.Settle(t.Context(), []driver.Settlement{{D: &ds[1], Verb: driver.Done}, {D: &ds[2], Verb: driver.Release}})...); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	during(t, dir, func(c *conn) {
		s, err := c.Source(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		receiveEach(t, s, "1", "3", "4")
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
