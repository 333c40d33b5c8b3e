package nats

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// embeddedConn is a connection to an embedded server of its own, with one object on it.
func embeddedConn(t *testing.T, o driver.Object) *conn {
	t.Helper()
	e, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.Open(t.Context(), driver.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := errors.Join(c.Close(ctx), e.Shutdown(ctx)); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.Admin().Ensure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return c.(*conn)
}

func openPublisher(t *testing.T, c *conn, r driver.Ref) *publisher {
	t.Helper()
	p, err := c.Publisher(t.Context(), driver.PublisherSpec{Object: r})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p.(*publisher)
}

func event(id, key string) message.Message {
	return message.Message{ID: id, Source: "s", Type: "t", Key: key}
}

// A caller whose context has ended uses its slice again, while the collector is still busy with what it was given.
func TestAnAbandonedPublishReadsNothingOfItsCaller(t *testing.T) {
	q := driver.Ref{Kind: driver.Queue, Name: "q"}
	c := embeddedConn(t, driver.Object{Ref: q})
	p := openPublisher(t, c, q)
	p.atomic = false // one by one takes longest
	ms := make([]message.Message, 3000)
	for i := range ms {
		ms[i] = event(fmt.Sprint(i), "k")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer cancel()
		for { // until the first is stored
			info, err := c.streamInfo(t.Context(), q.Name)
			if err != nil || info.State.LastSeq > 0 {
				return
			}
		}
	}()
	if err := p.Publish(ctx, ms)[0]; !errors.Is(err, driver.ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Fatalf("a publish that was given up: %v", err)
	}
	clear(ms)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := c.js.Stream(t.Context(), q.Name)
	if err != nil {
		t.Fatal(err)
	}
	stored := s.CachedInfo().State.LastSeq
	if stored == uint64(len(ms)) {
		t.Error("all was sent although nobody waited any more")
	}
	for seq := uint64(1); seq <= stored; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if id := m.Header["ce-id"]; len(id) != 1 || id[0] != fmt.Sprint(seq-1) {
			t.Fatalf("message %d was stored with the id %q", seq, id)
		}
	}
}

// While the window is full nothing is asked for, and a server that is not asked may be silent.
func TestSilenceIsCountedFromTheRequest(t *testing.T) {
	q := driver.Ref{Kind: driver.Queue, Name: "q"}
	c := embeddedConn(t, driver.Object{Ref: q, AckWait: time.Minute})
	if err := openPublisher(t, c, q).Publish(t.Context(), []message.Message{event("1", "")})[0]; err != nil {
		t.Fatal(err)
	}
	src, err := c.Source(t.Context(), driver.SourceSpec{Object: q, Window: driver.Window{Messages: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close(context.Background())
	ds := make([]driver.Delivery, 1)
	if n, err := src.Receive(t.Context(), ds); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	p := src.(*durableSource).pull
	p.mu.Lock()
	epoch := p.epoch
	p.lastHeard = p.lastHeard.Add(-time.Hour) // it took an hour to handle
	p.mu.Unlock()
	if err := src.Settle(t.Context(), []driver.Settlement{{D: &ds[0]}})[0]; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if n, err := src.Receive(ctx, ds); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != epoch {
		t.Error("the server was taken for silent, and pulling began anew")
	}
}

// What another connection answers says nothing about a reply that was sent before it.
func TestAReplyIsUnknownAfterAReconnect(t *testing.T) {
	c := embeddedConn(t, driver.Object{Ref: driver.Ref{Kind: driver.Topic, Name: "t"}})
	w, err := c.watch()
	if err != nil {
		t.Fatal(err)
	}
	before, err := c.online()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.replied(t.Context(), before, w, w.next()); err != nil {
		t.Fatalf("in the session that it was sent in: %v", err)
	}
	if err := c.nc.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	<-before.ctx.Done()
	if err := c.waitOnline(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.replied(t.Context(), before, w, w.next()); !errors.Is(err, driver.ErrUnknown) || c.Class(err) != driver.Transient {
		t.Errorf("after a reconnect: %v", err)
	}
}

// crashed leaves a mailbox for three, full, with its cursor behind all three: as a reader that was killed before it had purged.
func crashed(t *testing.T) (*conn, driver.Ref) {
	t.Helper()
	q := driver.Ref{Kind: driver.Queue, Name: "q"}
	c := embeddedConn(t, driver.Object{Ref: q, Ordering: driver.Key, MaxMessages: 3})
	p := openPublisher(t, c, q)
	for _, id := range []string{"1", "2", "3"} {
		if err := p.Publish(t.Context(), []message.Message{event(id, "k")})[0]; err != nil {
			t.Fatal(err)
		}
	}
	cur, err := c.loadCursor(t.Context(), q.Name, "")
	if err != nil {
		t.Fatal(err)
	}
	r := cur.record
	r.Position = 3
	if err := c.storeCursor(t.Context(), q.Name, "", &cur, r); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), []message.Message{event("4", "k")})[0]; !errors.Is(err, driver.ErrFull) {
		t.Fatalf("the mailbox is not full: %v", err)
	}
	return c, q
}

func TestAReaderRemovesWhatACrashedOneHadDone(t *testing.T) {
	c, q := crashed(t)
	src, err := c.Source(t.Context(), driver.SourceSpec{Object: q, Ordering: driver.Key})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close(context.Background())
	if err := openPublisher(t, c, q).Publish(t.Context(), []message.Message{event("5", "k")})[0]; err != nil {
		t.Fatalf("all is done and the mailbox refuses still: %v", err)
	}
	ds := make([]driver.Delivery, 2)
	if n, err := src.Receive(t.Context(), ds); n != 1 || err != nil || ds[0].Message.ID != "5" {
		t.Fatalf("%d, %v, %q", n, err, ds[0].Message.ID)
	}
}

func TestAFailedPurgeIsRepeated(t *testing.T) {
	q := driver.Ref{Kind: driver.Queue, Name: "q"}
	c := embeddedConn(t, driver.Object{Ref: q, Ordering: driver.Key, MaxMessages: 1})
	p := openPublisher(t, c, q)
	if err := p.Publish(t.Context(), []message.Message{event("1", "k")})[0]; err != nil {
		t.Fatal(err)
	}
	src, err := c.Source(t.Context(), driver.SourceSpec{Object: q, Ordering: driver.Key})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close(context.Background())
	ds := make([]driver.Delivery, 1)
	if n, err := src.Receive(t.Context(), ds); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	// The cursor was written; the purge is not answered.
	cs := src.(*cursorSource)
	cs.commit.Lock()
	r := cs.cursor.record
	r.Position, r.Epoch, r.Holder = uint64(ds[0].Position), cs.claim.Epoch, cs.holder
	if err := c.storeCursor(t.Context(), q.Name, "", &cs.cursor, r); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	cs.purgeDone(ended, r.Position)
	cs.commit.Unlock()
	if err := p.Publish(t.Context(), []message.Message{event("2", "k")})[0]; !errors.Is(err, driver.ErrFull) {
		t.Fatalf("the purge did not fail: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if n, err := src.Receive(ctx, ds); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	if err := p.Publish(t.Context(), []message.Message{event("3", "k")})[0]; err != nil {
		t.Fatalf("all is done and the mailbox refuses still: %v", err)
	}
}
