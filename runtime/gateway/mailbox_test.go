package gateway_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/gateway"
	"github.com/waybill-dev/waybill/runtime/plan"
)

func withDeadLetter(attempts int) func(*plan.Mailbox) {
	return func(p *plan.Mailbox) {
		p.MaxAttempts, p.DeadLetter = attempts, &plan.Ref{Broker: brokerName, Kind: "Queue", Name: p.Object.Name + "-dead"}
	}
}

func TestMailboxSendReceiveAck(t *testing.T) {
	r := newRig(t)
	m := r.mailbox("invoices")
	const data = `{"n": 1.0, "big":12345678901234567890}`
	g := m.post("/messages", data, "Content-Type", "application/json", "Idempotency-Key", "k-1", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").want(http.StatusAccepted)
	if strings.TrimSpace(g.body) != `{"id":"k-1","state":"Stored"}` {
		t.Fatalf("got %s", g.body)
	}
	before := time.Now()
	l := m.one()
	e := l.event(t)
	if string(e.Data) != data || e.ID != "k-1" || e.Source != "/default/mailboxes/invoices" || e.Type != "dev.waybill.message" || e.DataContentType != "application/json" ||
		!strings.Contains(e.Attribute("traceparent"), "0af7651916cd43dd8448eb211c80319c") {
		t.Fatalf("got %s", l.Event)
	}
	if l.Deliveries != 1 || l.Expires.Before(before.Add(3*time.Second)) || l.Expires.After(time.Now().Add(4*time.Second)) {
		t.Fatalf("deliveries %d, expires in %s", l.Deliveries, time.Until(l.Expires))
	}
	m.none() // somebody has it
	m.post("/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent)
	m.post("/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent) // repeated
	for _, verb := range []string{"nack", "reply", "extend"} {
		m.post("/leases/"+l.Lease+"/"+verb, "").problem(http.StatusGone, "LeaseEnded")
	}
	m.none()
}

func TestMailboxNackIsDeliveredAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.mailbox("m")
	m.post("/messages", "a").want(http.StatusAccepted)
	l := m.one()
	m.post("/leases/"+l.Lease+"/nack", "").want(http.StatusNoContent)
	m.post("/leases/"+l.Lease+"/ack", "").problem(http.StatusGone, "LeaseEnded")
	l = m.one()
	if l.Deliveries != 2 {
		t.Fatalf("got %d deliveries", l.Deliveries)
	}
	start := time.Now()
	m.post("/leases/"+l.Lease+"/nack?delay=1s", "").want(http.StatusNoContent)
	m.one()
	if took := time.Since(start); took < 900*time.Millisecond {
		t.Fatalf("came back after %s", took)
	}
}

func TestMailboxLeaseEndsBeforeTheBrokersAckWait(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.mailbox("m", func(p *plan.Mailbox) { p.AckWait = plan.Duration(3 * time.Second) })
	m.post("/messages", "a").want(http.StatusAccepted)
	first := m.one()
	eventually(t, "the lease to end", func() bool { return time.Now().After(first.Expires) })
	for _, verb := range []string{"ack", "nack", "extend", "reply"} {
		m.post("/leases/"+first.Lease+"/"+verb, "").problem(http.StatusGone, "LeaseEnded")
	}
	second := m.one()
	if second.Deliveries != 2 || !second.Expires.After(first.Expires) {
		t.Fatalf("got %+v", second)
	}
	m.post("/leases/"+second.Lease+"/ack", "").want(http.StatusNoContent)
}

func TestMailboxExtendRenewsTheLease(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.mailbox("m", func(p *plan.Mailbox) { p.AckWait = plan.Duration(4 * time.Second) })
	other := r.mailbox("m", func(p *plan.Mailbox) { p.AckWait = plan.Duration(4 * time.Second) }) // another replica
	m.post("/messages", "a").want(http.StatusAccepted)
	l := m.one()
	eventually(t, "half of the lease to pass", func() bool { return time.Until(l.Expires) < time.Second })
	var e struct {
		Expires time.Time
		Lease   string
	}
	m.post("/leases/"+l.Lease+"/extend", "").want(http.StatusOK).json(&e)
	if !e.Expires.After(l.Expires) {
		t.Fatalf("expires %s, before %s", e.Expires, l.Expires)
	}
	eventually(t, "the first lease to end", func() bool { return time.Now().After(l.Expires) })
	other.post("/leases/"+l.Lease+"/extend", "").problem(http.StatusGone, "LeaseEnded")
	other.post("/leases/"+e.Lease+"/extend", "").want(http.StatusOK)
	m.post("/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent)
	m.none()
}

func TestMailboxAnyReplicaSettlesALease(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dead := r.mailbox("m-dead")
	a, b := r.mailbox("m", withDeadLetter(5)), r.mailbox("m", withDeadLetter(5))
	for range 3 {
		a.post("/messages", "x").want(http.StatusAccepted)
	}
	ls := a.receive("max=10&wait=5s")
	for len(ls) < 3 {
		ls = append(ls, a.receive("max=10&wait=5s")...)
	}
	a.close() // a lease outlives the replica that gave it out
	b.post("/leases/"+ls[0].Lease+"/ack", "").want(http.StatusNoContent)
	b.post("/leases/"+ls[1].Lease+"/nack", "").want(http.StatusNoContent)
	b.post("/leases/"+ls[2].Lease+"/reject", "").want(http.StatusNoContent)
	if again := b.one(); again.event(t).ID != ls[1].event(t).ID {
		t.Fatalf("got %s", again.Event)
	}
	if d := dead.one(); d.event(t).ID != ls[2].event(t).ID {
		t.Fatalf("got %s", d.Event)
	}
	b.none()
}

func TestMailboxListOfAcksIsAnsweredOneByOne(t *testing.T) {
	r := newRig(t)
	m := r.mailbox("m")
	m.post("/messages", "a").want(http.StatusAccepted)
	l := m.one()
	var out struct {
		Results []struct {
			Lease  string
			Status int
		}
	}
	m.post("/leases/ack", fmt.Sprintf(`{"leases":[%q,"forged",%q]}`, l.Lease, l.Lease)).want(http.StatusOK).json(&out)
	if fmt.Sprint(out.Results) != fmt.Sprintf("[{%s 204} {forged 410} {%s 204}]", l.Lease, l.Lease) {
		t.Fatalf("got %v", out)
	}
	m.post("/leases/ack", `{"leases":`).problem(http.StatusBadRequest, "BadArgument")
	m.post("/leases/ack", `{}`).problem(http.StatusBadRequest, "BadArgument")
	m.none()
}

func TestMailboxTokensCannotBeForgedOrUsedElsewhere(t *testing.T) {
	r := newRig(t)
	m, other := r.mailbox("m"), r.mailbox("other")
	m.post("/messages", "a").want(http.StatusAccepted)
	l := m.one()
	if raw, err := base64.RawURLEncoding.DecodeString(l.Lease); err != nil || bytes.Contains(raw, []byte("$JS.ACK")) || len(l.Lease) > 400 {
		t.Fatalf("the token shows something: %q, %v", raw, err)
	}
	other.post("/leases/"+l.Lease+"/ack", "").problem(http.StatusGone, "NoLease")
	flipped := []byte(l.Lease)
	flipped[40] ^= 1
	for _, bad := range []string{string(flipped), "x", l.Lease[:20], strings.Repeat("A", 5000)} {
		m.post("/leases/"+bad+"/ack", "").problem(http.StatusGone, "NoLease")
	}
	r.keys = [][]byte{[]byte("another key, newly made"), r.keys[0]} // while rotating both open
	m.post("/leases/"+l.Lease+"/nack", "").want(http.StatusNoContent)
	l = m.one()
	r.keys = [][]byte{[]byte("a third key that knows nothing")}
	m.post("/leases/"+l.Lease+"/ack", "").problem(http.StatusGone, "NoLease")
	if strings.Contains(r.log.String(), l.Lease) {
		t.Fatal("a token was logged")
	}
}

func TestMailboxDeadLettersAfterItsAttempts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dead := r.mailbox("m-dead")
	m := r.mailbox("m", withDeadLetter(2))
	m.post("/messages", "poison", "Content-Type", "text/plain", "Idempotency-Key", "p").want(http.StatusAccepted)
	m.post("/leases/"+m.one().Lease+"/nack", "").want(http.StatusNoContent)
	m.post("/leases/"+m.one().Lease+"/nack", "").want(http.StatusNoContent)
	e := dead.one().event(t)
	if e.ID != "p" || string(e.Data) != "poison" || e.Source != "/default/mailboxes/m" || e.Attribute("wbreason") != "AttemptsExhausted" || e.Attribute("wbattempts") != "2" ||
		e.Attribute("wborigin") != "Mailbox/default/m" || e.Attribute("wbtime") == "" || e.Attribute("wblasterror") == "" || e.Attribute("wbfirsterror") == "" {
		t.Fatalf("got %+v", e)
	}
	m.none()
}

func TestMailboxDeadLettersWhenTheLastLeaseEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dead := r.mailbox("m-dead")
	m := r.mailbox("m", withDeadLetter(1), func(p *plan.Mailbox) { p.AckWait = plan.Duration(3 * time.Second) })
	m.post("/messages", "poison").want(http.StatusAccepted)
	l := m.one()
	if e := dead.one().event(t); e.Attribute("wbreason") != "AttemptsExhausted" || e.Attribute("wbattempts") != "1" {
		t.Fatalf("got %+v", e)
	}
	m.post("/leases/"+l.Lease+"/ack", "").problem(http.StatusGone, "LeaseEnded")
	m.none()
}

func TestMailboxRejectDeadLettersAtOnce(t *testing.T) {
	r := newRig(t)
	dead := r.mailbox("m-dead")
	m := r.mailbox("m", withDeadLetter(10))
	m.post("/messages", "a").want(http.StatusAccepted)
	l := m.one()
	m.post("/leases/"+l.Lease+"/reject", `{"reason":"no such customer"}`).want(http.StatusNoContent)
	m.post("/leases/"+l.Lease+"/ack", "").problem(http.StatusGone, "LeaseEnded")
	if e := dead.one().event(t); e.Attribute("wbreason") != "Rejected" || e.Attribute("wblasterror") != "no such customer" || e.Attribute("wbattempts") != "1" {
		t.Fatalf("got %+v", e)
	}
}

func TestMailboxArguments(t *testing.T) {
	r := newRig(t)
	m := r.mailbox("m")
	m.post("/messages", "a").want(http.StatusAccepted)
	for _, q := range []string{"max=0", "max=-1", "max=x", "max=", "wait=x", "wait=-1s", "wait="} {
		m.post("/messages/receive?"+q, "").problem(http.StatusBadRequest, "BadArgument")
	}
	ls := m.receive("max=99999999999999999999&wait=3600s") // clamped
	if len(ls) != 1 {
		t.Fatalf("got %d", len(ls))
	}
	for _, q := range []string{"nack?delay=16m", "nack?delay=x", "nack?delay=-1s", "reply?status=200", "reply?status=399", "reply?status=600", "reply?status=x"} {
		m.post("/leases/"+ls[0].Lease+"/"+q, "").problem(http.StatusBadRequest, "BadArgument")
	}
	m.post("/leases/"+ls[0].Lease+"/frobnicate", "").problem(http.StatusNotFound, "NotFound")
	if p := m.post("/", "").problem(http.StatusNotFound, "NotFound"); !strings.Contains(p["detail"].(string), "POST /messages, /messages/receive, /leases/ack") {
		t.Error(p["detail"])
	}
	m.post("/messages/", "").problem(http.StatusNotFound, "NotFound")
	for _, path := range []string{"/messages", "/messages/receive", "/leases/ack", "/leases/x/ack"} {
		g := m.call(http.MethodGet, path, "")
		g.problem(http.StatusMethodNotAllowed, "MethodNotAllowed")
		if g.header.Get("Allow") != "POST" {
			t.Fatalf("Allow: %q", g.header.Get("Allow"))
		}
	}
}

func TestMailboxReceiveInAnotherModeIs409(t *testing.T) {
	r := newRig(t)
	for _, mode := range []string{"Handler", "Pipeline"} {
		m := r.mailbox("m-"+strings.ToLower(mode), func(p *plan.Mailbox) { p.Mode = mode })
		m.post("/messages", "a").want(http.StatusAccepted)
		m.post("/messages/receive", "").problem(http.StatusConflict, "WrongMode")
		m.post("/leases/x/ack", "").problem(http.StatusConflict, "WrongMode")
		m.post("/leases/ack", "").problem(http.StatusConflict, "WrongMode")
	}
}

func TestMailboxStrictHandsOutOneAtATimeInOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.mailbox("m", func(p *plan.Mailbox) { p.Ordering = "Strict" })
	for i := range 3 {
		m.post("/messages", "x", "Idempotency-Key", fmt.Sprint(i)).want(http.StatusAccepted)
	}
	for i := range 3 {
		ls := m.receive("max=10&wait=5s")
		if len(ls) != 1 || ls[0].event(t).ID != fmt.Sprint(i) {
			t.Fatalf("step %d: got %+v", i, ls)
		}
		m.none() // the others wait for it
		if i == 1 {
			m.post("/leases/"+ls[0].Lease+"/nack", "").want(http.StatusNoContent)
			if ls = m.receive("wait=5s"); len(ls) != 1 || ls[0].event(t).ID != "1" {
				t.Fatalf("a nack lost the order: %+v", ls)
			}
		}
		m.post("/leases/"+ls[0].Lease+"/ack", "").want(http.StatusNoContent)
	}
}

func TestMailboxLongPoll(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.mailbox("m")
	start := time.Now()
	if ls := m.receive("wait=1s"); len(ls) != 0 || time.Since(start) < 900*time.Millisecond {
		t.Fatalf("got %v after %s", ls, time.Since(start))
	}
	// Whoever goes away leaves the message to others.
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = m.try(ctx, http.MethodPost, "/messages/receive?wait=30s", "") })
	time.AfterFunc(200*time.Millisecond, cancel)
	wg.Wait()
	m.post("/messages", "a").want(http.StatusAccepted)
	if l := m.one(); l.Deliveries > 2 {
		t.Fatalf("got %d deliveries", l.Deliveries)
	}
	// Many wait; each message goes to one of them.
	var mu sync.Mutex
	seen := map[string]int{}
	for range 8 {
		wg.Go(func() {
			for _, l := range m.receive("max=3&wait=2s") {
				mu.Lock()
				seen[l.event(t).ID]++
				mu.Unlock()
			}
		})
	}
	for i := range 8 {
		m.post("/messages", "x", "Idempotency-Key", fmt.Sprint(i)).want(http.StatusAccepted)
	}
	wg.Wait()
	for _, l := range m.receive("max=10&wait=1s") {
		seen[l.event(t).ID]++
	}
	for i := range 8 {
		if seen[fmt.Sprint(i)] != 1 {
			t.Fatalf("got %v", seen)
		}
	}
}

func TestMailboxDrainAnswersPollsAtOnceAndLetsLeasesSettle(t *testing.T) {
	r := newRig(t)
	h := r.newMailbox("m")
	m := r.serve(h)
	m.post("/messages", "a").want(http.StatusAccepted)
	l := m.one()
	var wg sync.WaitGroup
	wg.Go(func() { m.none2("wait=30s") })
	eventually(t, "the poll to wait", func() bool { return h.Stats().Polls == 1 })
	start := time.Now()
	if err := h.Drain(within(t)); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if took := time.Since(start); took > 3*time.Second {
		t.Fatalf("took %s", took)
	}
	m.none2("wait=30s")
	m.post("/messages", "a").problem(http.StatusServiceUnavailable, "ShuttingDown")
	m.post("/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent)
}

func (s *served) none2(query string) {
	if ls := s.receive(query); len(ls) != 0 {
		s.t.Errorf("got %s", ls[0].Event)
	}
}

func TestMailboxFullIs507AndLosesNothing(t *testing.T) {
	r := newRig(t)
	m := r.mailbox("m")
	r.queue("m", func(o *driver.Object) { o.MaxMessages = 2 })
	m.post("/messages", "a").want(http.StatusAccepted)
	m.post("/messages", "b").want(http.StatusAccepted)
	m.post("/messages", "c", "Idempotency-Key", "c").problem(http.StatusInsufficientStorage, "Full")
	m.post("/leases/"+m.one().Lease+"/ack", "").want(http.StatusNoContent)
	m.post("/messages", "c", "Idempotency-Key", "c").want(http.StatusAccepted)
}

func TestMailboxPreferWait(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.mailbox("m", withDeadLetter(10))
	r.queue("m-dead")
	ask := func(id, wait string) chan got {
		c := make(chan got, 1)
		go func() {
			g, err := m.try(within(t), http.MethodPost, "/messages", "question", "Prefer", "wait="+wait, "Idempotency-Key", id)
			if err != nil {
				t.Error(err)
			}
			c <- g
		}()
		return c
	}
	t.Run("the reply comes with its own content type", func(t *testing.T) {
		c := ask("1", "20")
		l := m.one()
		if strings.Contains(string(l.Event), "wbreplyto") || strings.Contains(string(l.Event), "wbcorrelation") || !strings.Contains(string(l.Event), "expirytime") {
			t.Fatalf("got %s", l.Event)
		}
		m.post("/leases/"+l.Lease+"/reply", "<b>42</b>", "Content-Type", "text/html").want(http.StatusNoContent)
		m.post("/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent) // an ack after a reply
		m.post("/leases/"+l.Lease+"/nack", "").problem(http.StatusGone, "LeaseEnded")
		m.post("/leases/"+l.Lease+"/reply", "again").problem(http.StatusGone, "LeaseEnded")
		if g := (<-c).want(http.StatusOK); g.body != "<b>42</b>" || g.header.Get("Content-Type") != "text/html" {
			t.Fatalf("got %s %v", g.body, g.header)
		}
	})
	t.Run("a status", func(t *testing.T) {
		c := ask("2", "20")
		m.post("/leases/"+m.one().Lease+"/reply?status=422", "no").want(http.StatusNoContent)
		if g := (<-c).want(http.StatusUnprocessableEntity); g.body != "no" || len(g.header["Content-Type"]) > 0 {
			t.Fatalf("got %s %v", g.body, g.header)
		}
	})
	t.Run("a repeated request gets the same reply", func(t *testing.T) {
		a := ask("3", "20")
		l := m.one()
		b := ask("3", "20")
		eventually(t, "the second request to wait", func() bool { return r.desk.Stats().Repeated == 1 })
		m.post("/leases/"+l.Lease+"/reply", "x").want(http.StatusNoContent)
		if x, y := (<-a).want(http.StatusOK), (<-b).want(http.StatusOK); x.body != "x" || y.body != "x" {
			t.Fatalf("got %s, %s", x.body, y.body)
		}
	})
	t.Run("dead-lettered is 502 with the reason", func(t *testing.T) {
		c := ask("4", "20")
		m.post("/leases/"+m.one().Lease+"/reject", "").want(http.StatusNoContent)
		if p := (<-c).problem(http.StatusBadGateway, "Rejected"); p["id"] != "4" {
			t.Fatalf("got %v", p)
		}
	})
	t.Run("nothing in time is 504, and the request is dropped when nobody waits any more", func(t *testing.T) {
		c := ask("5", "1")
		if p := (<-c).problem(http.StatusGatewayTimeout, "OutcomeUnknown"); p["id"] != "5" {
			t.Fatalf("got %v", p)
		}
		m.none2("wait=2s")
	})
	t.Run("a request that was begun is no longer dropped", func(t *testing.T) {
		c := ask("begun", "1")
		l := m.one()
		(<-c).want(http.StatusGatewayTimeout)
		m.post("/leases/"+l.Lease+"/nack", "").want(http.StatusNoContent)
		l = m.one()
		if l.Deliveries != 2 || l.event(t).ID != "begun" {
			t.Fatalf("got %+v", l)
		}
		m.post("/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent)
	})
	t.Run("a late reply is 204 and counted", func(t *testing.T) {
		c := ask("6", "1")
		l := m.one()
		(<-c).want(http.StatusGatewayTimeout)
		m.post("/leases/"+l.Lease+"/reply", "late").want(http.StatusNoContent)
		eventually(t, "the late reply to be counted", func() bool { return r.desk.Stats().Late == 1 })
	})
	m.post("/messages", "x", "Prefer", "wait=soon").problem(http.StatusBadRequest, "BadArgument")
	m.post("/messages", "["+structured("1", "1")+"]", "Prefer", "wait=1", "Content-Type", "application/cloudevents-batch+json").problem(http.StatusBadRequest, "OneEventOnly")
}

func TestMailboxAuthIsApartForPublishAndReceive(t *testing.T) {
	r := newRig(t)
	r.secrets["in/token"], r.secrets["out/token"] = "sesame-in\n", "sesame-out"
	m := r.mailbox("m", func(p *plan.Mailbox) {
		p.Publish = &plan.Auth{Bearer: &plan.SecretRef{Name: "in", Key: "token"}}
		p.Receive = &plan.Auth{Bearer: &plan.SecretRef{Name: "out", Key: "token"}}
	})
	g := m.post("/messages", "a")
	g.problem(http.StatusUnauthorized, "Unauthorized")
	if g.header.Get("WWW-Authenticate") != `Bearer realm="waybill"` {
		t.Fatalf("got %v", g.header)
	}
	for _, bad := range []string{"Bearer sesame-out", "Bearer", "Basic sesame-in", "Bearer sesame-i", "sesame-in"} {
		m.post("/messages", "a", "Authorization", bad).problem(http.StatusUnauthorized, "Unauthorized")
	}
	m.post("/messages", "a", "Authorization", "Bearer sesame-in").want(http.StatusAccepted)
	m.post("/messages", "a", "Authorization", "bearer sesame-in").want(http.StatusAccepted)
	for _, path := range []string{"/messages/receive", "/leases/x/ack", "/leases/ack"} {
		m.post(path, "", "Authorization", "Bearer sesame-in").problem(http.StatusUnauthorized, "Unauthorized")
	}
	m.post("/messages/receive", "", "Authorization", "Bearer sesame-out").want(http.StatusOK)
	r.secrets["in/token"] = "rotated"
	m.post("/messages", "a", "Authorization", "Bearer sesame-in").problem(http.StatusUnauthorized, "Unauthorized")
	m.post("/messages", "a", "Authorization", "Bearer rotated").want(http.StatusAccepted)
	delete(r.secrets, "in/token")
	m.post("/messages", "a", "Authorization", "Bearer rotated").problem(http.StatusServiceUnavailable, "SecretUnavailable")
	r.secrets["in/token"] = ""
	m.post("/messages", "a", "Authorization", "Bearer ").problem(http.StatusServiceUnavailable, "SecretUnavailable")
	r.secrets["in/token"] = "one\ntwo\n"
	m.post("/messages", "a", "Authorization", "Bearer one").problem(http.StatusServiceUnavailable, "SecretUnavailable")
	if log := r.log.String(); strings.Contains(log, "nil") || !strings.Contains(log, "its value is empty") || !strings.Contains(log, "its value has more than one line") {
		t.Errorf("the log says why not: %s", log)
	}
}

func TestMailboxReceiveIsBoundedInBytes(t *testing.T) {
	r := newRig(t)
	m := r.mailbox("m", func(p *plan.Mailbox) { p.MaxMessageBytes = 512 << 10 })
	body := strings.Repeat("x", 512<<10)
	for range 20 {
		m.post("/messages", body).want(http.StatusAccepted)
	}
	got := 0
	for got < 20 {
		ls := m.receive("max=100&wait=5s")
		if len(ls) == 0 || len(ls) > 16 {
			t.Fatalf("got %d messages of 512 KiB at once, after %d", len(ls), got)
		}
		got += len(ls)
	}
}

func TestMailboxPausedTakesMessagesAndHandsOutNone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.queue("m")
	deps := r.deps("Mailbox", "m")
	deps.Paused = true
	m := r.serve(gateway.NewMailbox(plan.Mailbox{Object: plan.Ref{Broker: brokerName, Kind: "Queue", Name: "m"}, Mode: "Leases", Ordering: "None",
		AckWait: plan.Duration(6 * time.Second), MaxMessageBytes: 1 << 10}, deps))
	m.post("/messages", "a").want(http.StatusAccepted)
	m.none2("wait=1s")
	r.mailbox("m").one()
}
