package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/plan"
)

func TestMessagesThatNobodyReceivedHaveUsedNoAttempt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dead := r.mailbox("m-dead")
	m := r.mailbox("m", withDeadLetter(1))
	left := make(chan int, 1)
	go func() { left <- len(m.receive("max=10&wait=300ms")) }()
	stays := make(chan []lent, 1)
	go func() { stays <- m.receive("max=1&wait=10s") }()
	if n := <-left; n != 0 {
		t.Fatalf("got %d messages of an empty mailbox", n)
	}
	var batch []string
	for i := range 10 {
		batch = append(batch, structured(fmt.Sprint(i), "1"))
	}
	m.post("/messages", "["+strings.Join(batch, ",")+"]", "Content-Type", "application/cloudevents-batch+json").want(http.StatusAccepted)
	got, again := map[string]bool{}, 0
	take := func(ls []lent) {
		for _, l := range ls {
			id := l.event(t).ID
			if !got[id] && l.Deliveries != 1 {
				again++
			}
			got[id] = true
		}
	}
	take(<-stays)
	eventually(t, "all ten to be received", func() bool {
		take(m.receive("max=10&wait=1s"))
		return len(got) == 10
	})
	if again > 0 {
		t.Errorf("%d of ten messages that nobody had received were delivered before", again)
	}
	dead.none()
}

func TestALastLeaseThatAnotherReplicaExtendedLasts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dead := r.mailbox("m-dead")
	short := func(p *plan.Mailbox) { p.AckWait = plan.Duration(3 * time.Second) }
	a, b := r.mailbox("m", withDeadLetter(1), short), r.mailbox("m", withDeadLetter(1), short)
	a.post("/messages", "x").want(http.StatusAccepted)
	l := a.one()
	until := time.Now().Add(5 * time.Second) // the first replica's end, and the broker's, lie behind us then
	for time.Now().Before(until) {
		var e struct{ Lease string }
		b.post("/leases/"+l.Lease+"/extend", "").want(http.StatusOK).json(&e)
		l.Lease = e.Lease
		if ls := dead.receive("wait=300ms"); len(ls) != 0 {
			t.Fatalf("dead-lettered although its lease lasts: %s", ls[0].Event)
		}
	}
	b.post("/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent)
}

func TestADeadLetterOfARequestStays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dead := r.mailbox("m-dead")
	m := r.mailbox("m", withDeadLetter(5))
	asked := make(chan got, 1)
	go func() {
		g, _ := m.try(within(t), http.MethodPost, "/messages", structured("1", "1"), "Content-Type", "application/cloudevents+json", "Prefer", "wait=1")
		asked <- g
	}()
	l := m.one()
	if g := <-asked; g.status != http.StatusGatewayTimeout { // from here on the request has expired
		t.Fatalf("got %d %s", g.status, g.body)
	}
	m.post("/leases/"+l.Lease+"/reject", "").want(http.StatusNoContent)
	if e := dead.one().event(t); e.ID != "1" || e.Attribute("wbreason") != "Rejected" || e.Attribute("expirytime") != "" {
		t.Fatalf("got %+v", e)
	}
}

func TestTheSameEventAskedAtTwoMailboxesGetsTwoReplies(t *testing.T) {
	r := newRig(t)
	answers := map[string]chan got{}
	leases := map[string]*served{"a": r.mailbox("a"), "b": r.mailbox("b")}
	for name, m := range leases {
		answers[name] = make(chan got, 1)
		go func() {
			g, _ := m.try(within(t), http.MethodPost, "/messages", structured("1", "1"), "Content-Type", "application/cloudevents+json", "Prefer", "wait=10")
			answers[name] <- g
		}()
	}
	for name, m := range leases {
		m.post("/leases/"+m.one().Lease+"/reply", "of "+name, "Content-Type", "text/plain").want(http.StatusNoContent)
	}
	for name := range leases {
		if g := <-answers[name]; g.status != http.StatusOK || g.body != "of "+name {
			t.Errorf("%s got %d %q", name, g.status, g.body)
		}
	}
}
