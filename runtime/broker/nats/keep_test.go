package nats

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// A receiver may pause for longer than the ack wait, as a flow does whose destination is away.
func TestWhatWasFetchedAheadOutlivesAPause(t *testing.T) {
	const wait = 400 * time.Millisecond
	q := driver.Ref{Kind: driver.Queue, Name: "q"}
	c := embeddedConn(t, driver.Object{Ref: q, AckWait: wait})
	for i, err := range openPublisher(t, c, q).Publish(t.Context(), []message.Message{event("1", ""), event("2", ""), event("3", "")}) {
		if err != nil {
			t.Fatal(i, err)
		}
	}
	src, err := c.Source(t.Context(), driver.SourceSpec{Object: q, Window: driver.Window{Messages: 3}})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close(context.Background())
	ds := make([]driver.Delivery, 3)
	if n, err := src.Receive(t.Context(), ds[:1]); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	<-time.After(3 * wait) // the first is never settled, the others lie in the source
	got := map[string]int{}
	deadline, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(got) < 3 && deadline.Err() == nil {
		n, err := src.Receive(deadline, ds)
		if err != nil {
			t.Fatal(err)
		}
		for i := range ds[:n] {
			if !time.Now().Before(ds[i].Deadline) {
				t.Errorf("%s is given out when its ack wait is over", ds[i].Message.ID)
			}
			got[ds[i].Message.ID] = ds[i].Count
			if err := src.Settle(deadline, []driver.Settlement{{D: &ds[i]}})[0]; err != nil {
				t.Errorf("%s: %v", ds[i].Message.ID, err)
			}
		}
	}
	// The window has room for the first one again although nobody settled it; the others were delivered once.
	if got["1"] < 2 || got["2"] != 1 || got["3"] != 1 {
		t.Errorf("deliveries %v", got)
	}
}

// What is leased out must not outlive an ack wait that was shortened after the source was opened.
func TestAShortenedAckWaitIsSeenByAnOpenSource(t *testing.T) {
	q := driver.Ref{Kind: driver.Queue, Name: "q"}
	c := embeddedConn(t, driver.Object{Ref: q, AckWait: time.Minute})
	src, err := c.Source(t.Context(), driver.SourceSpec{Object: q, Window: driver.Window{Messages: 3}, Lease: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close(context.Background())
	for n, wait := range []time.Duration{time.Minute, 5 * time.Second} {
		if _, err := c.Admin().Ensure(t.Context(), driver.Object{Ref: q, AckWait: wait}); err != nil {
			t.Fatal(err)
		}
		if errs := openPublisher(t, c, q).Publish(t.Context(), []message.Message{event(strconv.Itoa(n), "")}); errs != nil && errs[0] != nil {
			t.Fatal(errs[0])
		}
		var one [1]driver.Delivery
		if n, err := src.Receive(t.Context(), one[:]); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if left := time.Until(one[0].Deadline); left > wait || left < wait-3*time.Second {
			t.Errorf("with an ack wait of %s a delivery lasts %s", wait, left)
		}
	}
}
