package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/plan"
)

func shortLease(p *plan.Mailbox) { p.AckWait = plan.Duration(3 * time.Second) } // a lease of one second

// all receives n messages.
func (s *served) all(n int) []lent {
	s.t.Helper()
	var ls []lent
	for len(ls) < n {
		got := s.receive("max=100&wait=5s")
		if len(got) == 0 {
			s.t.Fatalf("only %d of %d came", len(ls), n)
		}
		ls = append(ls, got...)
	}
	return ls
}

func (s *served) batch(n int) {
	s.t.Helper()
	var events []string
	for i := range n {
		events = append(events, structured(fmt.Sprint(i), "1"))
	}
	s.post("/messages", "["+strings.Join(events, ",")+"]", "Content-Type", "application/cloudevents-batch+json").want(http.StatusAccepted)
}

func (s *served) ackList(leases ...string) (statuses string) {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{"leases": append([]string{}, leases...)})
	if err != nil {
		s.t.Fatal(err)
	}
	var out struct {
		Results []struct {
			Lease  string
			Status int
		}
	}
	s.post("/leases/ack", string(body)).want(http.StatusOK).json(&out)
	if len(out.Results) != len(leases) {
		s.t.Fatalf("%d results for %d leases", len(out.Results), len(leases))
	}
	for i, r := range out.Results {
		if r.Lease != leases[i] {
			s.t.Fatalf("result %d is of another lease", i)
		}
		statuses += fmt.Sprint(" ", r.Status)
	}
	return strings.TrimPrefix(statuses, " ")
}

func TestAListOfAcksAsksTheBrokerOnce(t *testing.T) {
	t.Parallel()
	r, f := newFaultyRig(t)
	m := r.mailbox("m")
	m.batch(50)
	var leases []string
	for _, l := range m.all(50) {
		leases = append(leases, l.Lease)
	}
	before := f.settles.Load()
	if got := m.ackList(leases...); strings.Count(got, "204") != 50 {
		t.Fatalf("got %s", got)
	}
	if n := f.settles.Load() - before; n != 1 {
		t.Fatalf("the broker was asked %d times", n)
	}
	if got := m.ackList(leases[:2]...); got != "204 204" { // repeated
		t.Fatalf("got %s", got)
	}
	if got := m.ackList(); got != "" {
		t.Fatalf("got %s", got)
	}
	m.none()
}

func TestAListOfAcksIsAnsweredEntryByEntry(t *testing.T) {
	t.Parallel()
	r, f := newFaultyRig(t)
	m := r.mailbox("m", withDeadLetter(5))
	m.batch(4)
	ls := m.all(4)
	var extended struct{ Lease string }
	m.post("/leases/"+ls[0].Lease+"/extend", "").want(http.StatusOK).json(&extended)
	m.post("/leases/"+ls[1].Lease+"/nack", "").want(http.StatusNoContent)
	f.onSettle(func(context.Context, []driver.Settlement) error { return errors.New("no answer") })
	if got := m.ackList(ls[0].Lease, "x", ls[1].Lease); got != "503 410 410" {
		t.Fatalf("got %s", got)
	}
	f.settle.Store(nil)
	// One lease under two tokens, one token twice.
	if got := m.ackList(ls[0].Lease, extended.Lease, ls[2].Lease, "", ls[2].Lease, ls[3].Lease[:9]); got != "204 204 204 410 204 410" {
		t.Fatalf("got %s", got)
	}
	for _, bad := range []string{`{"leases":["a",1]}`, `{"leases":"a"}`, `[]`, ``, `{"leases":null}`} {
		m.post("/leases/ack", bad).problem(http.StatusBadRequest, "BadArgument")
	}
	m.post("/leases/ack", `{"leases":[`+strings.Repeat(`"x",`, 1000)+`"x"]}`).problem(http.StatusBadRequest, "BadArgument")
}

func TestListsOfTheSameLeasesDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.mailbox("m")
	m.batch(20)
	var there, back []string
	for _, l := range m.all(20) {
		there, back = append(there, l.Lease), append([]string{l.Lease}, back...)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			list := there
			if i%2 == 1 {
				list = back
			}
			if got := m.ackList(list...); strings.Count(got, "204") != 20 {
				t.Errorf("got %s", got)
			}
		})
	}
	wg.Wait()
}

func TestALeaseWithALongIdCanBeSettled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.mailbox("m")
	id, source := strings.Repeat("é", 3000), "/"+strings.Repeat("s", 5000)
	event, err := json.Marshal(map[string]any{"specversion": "1.0", "id": id, "source": source, "type": "t", "data": 1})
	if err != nil {
		t.Fatal(err)
	}
	c := m.async("/messages", string(event), "Content-Type", "application/cloudevents+json", "Prefer", "wait=20")
	l := m.one()
	if l.event(t).ID != id {
		t.Fatal("another id")
	}
	m.post("/leases/"+l.Lease+"/reply", "yes").want(http.StatusNoContent)
	if g := (<-c).want(http.StatusOK); g.body != "yes" {
		t.Fatalf("got %s", g.body)
	}
}

func TestAnEndedLeaseSettlesNothingAtAnyReplica(t *testing.T) {
	t.Parallel()
	r, f := newFaultyRig(t)
	a, b := r.mailbox("m", shortLease), r.mailbox("m", shortLease)
	a.post("/messages", "x").want(http.StatusAccepted)
	first := a.one()
	second := b.one() // when the first lease has ended
	if second.Deliveries != 2 || !time.Now().After(first.Expires) {
		t.Fatalf("got %+v, the first lease ends in %s", second, time.Until(first.Expires))
	}
	before := f.settles.Load()
	for _, m := range []*served{a, b} {
		for _, call := range []string{"ack", "nack", "reject", "reply", "extend"} {
			if call == "reject" {
				continue // this mailbox has no dead letter
			}
			m.post("/leases/"+first.Lease+"/"+call, "").problem(http.StatusGone, "LeaseEnded")
		}
		if got := m.ackList(first.Lease); got != "410" {
			t.Fatalf("got %s", got)
		}
	}
	if n := f.settles.Load() - before; n != 0 {
		t.Fatalf("the broker was asked %d times about what is another's", n)
	}
	a.post("/leases/"+second.Lease+"/ack", "").want(http.StatusNoContent)
}

func TestACallOnALeaseEndsBeforeTheBrokerDeliversAgain(t *testing.T) {
	t.Parallel()
	r, f := newFaultyRig(t)
	m := r.mailbox("m", shortLease)
	m.post("/messages", "x").want(http.StatusAccepted)
	l := m.one()
	var until time.Time
	entered := make(chan struct{})
	var once sync.Once
	f.onSettle(func(ctx context.Context, _ []driver.Settlement) error {
		once.Do(func() { until, _ = ctx.Deadline(); close(entered) })
		<-ctx.Done() // a broker that does not answer
		return ctx.Err()
	})
	one := m.async("/leases/"+l.Lease+"/ack", "")
	<-entered
	two := m.async("/leases/"+l.Lease+"/ack", "") // waits for the first call, and the lease ends meanwhile
	(<-one).problem(http.StatusServiceUnavailable, "BrokerAway")
	if redelivery := l.Expires.Add(2 * time.Second); until.IsZero() || until.After(redelivery) {
		t.Fatalf("the call may last until %s, the broker delivers again at %s", until, redelivery)
	}
	f.settle.Store(nil)
	(<-two).problem(http.StatusGone, "LeaseEnded")
	if again := m.one(); again.Deliveries != 2 {
		t.Fatalf("got %+v", again)
	}
}

func TestADeadLetterIsStoredOnceHoweverOftenItIsTried(t *testing.T) {
	t.Parallel()
	r, f := newFaultyRig(t)
	dead := r.mailbox("m-dead")
	a, b := r.mailbox("m", withDeadLetter(1), shortLease), r.mailbox("m", withDeadLetter(1), shortLease)
	failing := func(context.Context, []driver.Settlement) error { return errors.New("no answer") }

	a.post("/messages", "x", "Idempotency-Key", "rejected").want(http.StatusAccepted)
	l := a.one()
	f.onSettle(failing)
	for _, m := range []*served{a, a, b} {
		m.post("/leases/"+l.Lease+"/reject", "").problem(http.StatusServiceUnavailable, "BrokerAway")
	}
	f.settle.Store(nil)
	b.post("/leases/"+l.Lease+"/reject", "").want(http.StatusNoContent)
	if ls := dead.all(1); len(ls) != 1 || !strings.Contains(string(ls[0].Event), `"wbreason":"Rejected"`) || strings.Contains(string(ls[0].Event), "wbdeath") {
		t.Fatalf("got %d letters, %s", len(ls), ls[0].Event)
	} else {
		dead.post("/leases/"+ls[0].Lease+"/ack", "").want(http.StatusNoContent)
	}

	a.post("/messages", "x", "Idempotency-Key", "exhausted").want(http.StatusAccepted)
	a.one()
	tried := make(chan struct{}, 100)
	f.onSettle(func(_ context.Context, ss []driver.Settlement) error {
		for _, s := range ss {
			if s.Verb == driver.Done {
				tried <- struct{}{}
				return errors.New("no answer")
			}
		}
		return nil
	})
	<-tried // its lease has ended, and its letter was stored
	f.settle.Store(nil)
	a.none2("wait=4s") // by now it has come and gone again
	if ls := dead.all(1); len(ls) != 1 || ls[0].event(t).ID != "exhausted" {
		t.Fatalf("got %d letters, %s", len(ls), ls[0].Event)
	}
	dead.none()
}

func TestAMessageStaysWhenItsDeadLetterCannotBeStored(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.mailbox("m", withDeadLetter(1), func(p *plan.Mailbox) { p.AckWait = plan.Duration(time.Minute) })
	m.post("/messages", "x", "Idempotency-Key", "1").want(http.StatusAccepted)
	l := m.one()
	for _, call := range []string{"reject", "nack"} { // there is no such queue
		m.post("/leases/"+l.Lease+"/"+call, "").problem(http.StatusServiceUnavailable, "DeadLetterAway")
	}
	r.queue("m-dead", func(o *driver.Object) { o.MaxMessages = 1 })
	dead := r.mailbox("m-dead")
	r.queue("m-dead", func(o *driver.Object) { o.MaxMessages = 1 })
	dead.post("/messages", "it is full").want(http.StatusAccepted)
	m.post("/leases/"+l.Lease+"/reject", "").problem(http.StatusServiceUnavailable, "DeadLetterAway")
	dead.post("/leases/"+dead.one().Lease+"/ack", "").want(http.StatusNoContent)
	m.post("/leases/"+l.Lease+"/reject", "").want(http.StatusNoContent)
	if e := dead.one().event(t); e.ID != "1" {
		t.Fatalf("got %+v", e)
	}
}

func TestWhatOneReplicaHandedToNobodyIsNoAttemptForAnother(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dead := r.mailbox("m-dead")
	a, b := r.mailbox("m", withDeadLetter(1)), r.mailbox("m", withDeadLetter(1))
	a.batch(1)
	// What a replica does that gives a delivery back: the broker counts it, and no other replica knows.
	src, err := r.broker.Source(within(t), driver.SourceSpec{Object: driver.Ref{Kind: driver.Queue, Name: "m"}, Window: driver.Window{Messages: 1}, AckWait: 6 * time.Second, Lease: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		var into [1]driver.Delivery
		if n, err := src.Receive(within(t), into[:]); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if errs := r.broker.Settler().Settle(within(t), []driver.Settlement{{D: &into[0], Verb: driver.Release}}); errs != nil && errs[0] != nil {
			t.Fatal(errs[0])
		}
	}
	if err := src.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	l := b.one()
	dead.none()
	b.post("/leases/"+l.Lease+"/nack", "").want(http.StatusNoContent) // its one attempt
	dead.one()
}

func TestAReplyThatTheBrokerDoesNotTakeIsRefusedAndTheLeaseGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.mailbox("m", func(p *plan.Mailbox) { p.MaxMessageBytes = 2 << 20 }) // more than the broker takes
	answered := make(chan got, 1)
	go func() { answered <- m.post("/messages", "x", "Prefer", "wait=30") }()
	l := m.one()
	p := m.post("/leases/"+l.Lease+"/reply", strings.Repeat("x", 1<<20)).problem(http.StatusRequestEntityTooLarge, "TooLarge")
	limit, _ := p["limit"].(float64)
	if limit <= 0 || limit >= 1<<20 {
		t.Errorf("the limit is %v", p["limit"])
	}
	// What fits, fits: the headers' room is that of the largest that they may be.
	m.post("/leases/"+l.Lease+"/reply", strings.Repeat("x", int(limit)-1024)).want(http.StatusNoContent)
	if a := <-answered; a.status != http.StatusOK || len(a.body) != int(limit)-1024 {
		t.Errorf("got %d with %d bytes", a.status, len(a.body))
	}
}
