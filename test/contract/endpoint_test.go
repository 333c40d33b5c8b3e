package contract

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestAnEndpointAsksAndAnswers(t *testing.T) {
	t.Parallel()
	says(t, "A2", "A4", "R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8")
	door := func(name, spec string) string {
		return "kind: Endpoint\nmetadata: {name: " + name + "}\nspec: {to: {mailboxRef: {name: work}}, " + spec + "}"
	}
	p := serve(t, mailbox("dead"), mailbox("work", "deadLetter: {mailboxRef: {name: dead}}", "retry: {maxAttempts: 2}"),
		door("ask", "pattern: RequestResponse, path: /v1/ask, timeout: 20s"), door("quick", "pattern: RequestResponse, timeout: 1s"),
		door("patient", "pattern: RequestResponse, timeout: 1s, whenExpired: Deliver"), door("hand", "pattern: RequestAck, path: /a%20b"),
		door("done", "pattern: RequestAck, ackWhen: Processed, timeout: 20s"), door("forget", "pattern: RequestForget"))
	work := p.at("Mailbox", "work", "")
	settle := func(l lent, call, body string, headers ...string) {
		t.Helper()
		post(t, work+"/leases/"+l.Lease+"/"+call, body, headers...).want(http.StatusNoContent)
	}
	for name, path := range map[string]string{"ask": "/v1/ask", "quick": "/", "hand": "/a%20b"} {
		address := p.at("Endpoint", name, "")
		if !strings.HasSuffix(address, "/default/endpoints/"+name+path) {
			t.Fatalf("the address of %s is %s", name, address)
		}
		for _, below := range []string{"/below", "x"} {
			post(t, strings.TrimSuffix(address, "/")+below, "x").problem(http.StatusNotFound, "NotFound")
		}
	}
	address := p.at("Endpoint", "ask", "")
	for _, other := range []string{address + "/", strings.TrimSuffix(address, "/ask"), strings.TrimSuffix(address, "/v1/ask"), strings.ToUpper(address[:4]) + address[4:] + "%2F", strings.Replace(address, "/v1/", "//v1/", 1)} {
		post(t, other, "x").problem(http.StatusNotFound, "NotFound")
	}

	ask := func(id string) <-chan answer { return later(t, address, "question", "Idempotency-Key", id) }
	for id, c := range map[string]struct{ contentType, body string }{
		"json": {"application/vnd.acme+json", `{"total": 1.50}`}, "bytes": {"application/octet-stream", "\x00\xff"}, "none": {"", "plain"},
	} {
		a := ask(id)
		settle(one(t, work), "reply", c.body, "Content-Type", c.contentType)
		if got := (<-a).want(http.StatusOK); got.body != c.body || got.header.Get("Content-Type") != c.contentType {
			t.Fatalf("%s: got %q %v", id, got.body, got.header)
		}
	}
	a := ask("status")
	settle(one(t, work), "reply?status=404", "no such order", "Content-Type", "text/plain")
	if got := (<-a).want(http.StatusNotFound); got.body != "no such order" || got.header.Get("Content-Type") != "text/plain" {
		t.Fatalf("got %s %v", got.body, got.header)
	}
	a = ask("rejected")
	l := one(t, work)
	settle(l, "reject?reason=no+such+customer", "")
	if got := <-a; !strings.Contains(got.problem(http.StatusBadGateway, "Rejected"), "no such customer") || !strings.Contains(got.body, `"id":"rejected"`) {
		t.Fatalf("got %s", got.body)
	}
	a = ask("exhausted")
	settle(one(t, work), "nack", "")
	settle(one(t, work), "nack", "")
	(<-a).problem(http.StatusBadGateway, "AttemptsExhausted")

	began := time.Now()
	got := post(t, p.at("Endpoint", "quick", ""), "x", "Idempotency-Key", "q1")
	if detail := got.problem(http.StatusGatewayTimeout, "OutcomeUnknown"); !strings.Contains(detail, "unknown") || !strings.Contains(got.body, `"id":"q1"`) || time.Since(began) < 900*time.Millisecond {
		t.Fatalf("got %s after %s", got.body, time.Since(began))
	}
	none(t, work) // dropped before it was handled
	a = later(t, p.at("Endpoint", "quick", ""), "x")
	l = one(t, work)
	(<-a).problem(http.StatusGatewayTimeout, "OutcomeUnknown")
	settle(l, "reply", "late")
	// Two that take the same message: the first reply wins.
	a = later(t, p.at("Endpoint", "patient", ""), "x")
	(<-a).problem(http.StatusGatewayTimeout, "OutcomeUnknown")
	settle(one(t, work), "ack", "") // whenExpired: Deliver
	eventually(t, "what was dropped and what came late to be counted", func() bool {
		return p.counts(t, "waybill_gateway_expired_total", "work") == 1 && p.counts(t, "waybill_gateway_late_replies_total", "quick") == 1 &&
			p.counts(t, "waybill_gateway_timed_out_total", "quick") == 2
	})

	post(t, p.at("Endpoint", "hand", ""), "x", "Idempotency-Key", "h").want(http.StatusAccepted).state("h", "Stored")
	settle(one(t, work), "ack", "")
	post(t, p.at("Endpoint", "forget", ""), "x", "Idempotency-Key", "f").want(http.StatusAccepted).state("f", "Accepted")
	settle(one(t, work), "ack", "")
	for _, call := range []string{"ack", "reply"} {
		a = later(t, p.at("Endpoint", "done", ""), "x", "Idempotency-Key", call)
		l = one(t, work)
		select {
		case got := <-a:
			t.Fatalf("answered %d before it was settled", got.status)
		default:
		}
		settle(l, call, "")
		(<-a).want(http.StatusOK).state(call, "Processed")
	}
	a = later(t, p.at("Endpoint", "done", ""), "x")
	settle(one(t, work), "reject", "")
	(<-a).problem(http.StatusBadGateway, "Rejected")
}

func TestAHandlerThatIsAwayIsNoFailedRequest(t *testing.T) {
	t.Parallel()
	says(t, "R2", "R8")
	s := subscribe(t, func(w http.ResponseWriter, p pushed) {
		switch p.body {
		case "poison":
			http.Error(w, "never", http.StatusBadRequest)
		default:
			http.Error(w, "broken", http.StatusInternalServerError)
		}
	})
	gone := subscribe(t, nil)
	gone.Close()
	p := serve(t, mailbox("handled", "deliverTo: {uri: '"+s.URL+"'}", "retry: {maxAttempts: 2, backOff: {initial: 10ms, max: 20ms}}"),
		mailbox("away", "deliverTo: {uri: '"+gone.URL+"'}", "retry: {maxAttempts: 1, backOff: {initial: 10ms, max: 20ms}}"),
		"kind: Endpoint\nmetadata: {name: ask}\nspec: {pattern: RequestResponse, timeout: 20s, to: {mailboxRef: {name: handled}}}",
		"kind: Endpoint\nmetadata: {name: ask-away}\nspec: {pattern: RequestResponse, timeout: 2s, to: {mailboxRef: {name: away}}}")
	if detail := post(t, p.at("Endpoint", "ask", ""), "poison").problem(http.StatusBadGateway, "Terminal"); !strings.Contains(detail, "400") {
		t.Fatalf("the last error is not told: %s", detail)
	}
	if detail := post(t, p.at("Endpoint", "ask", ""), "x").problem(http.StatusBadGateway, "AttemptsExhausted"); !strings.Contains(detail, "500") {
		t.Fatalf("the last error is not told: %s", detail)
	}
	post(t, p.at("Endpoint", "ask-away", ""), "x").problem(http.StatusGatewayTimeout, "OutcomeUnknown")
}

func TestLateAndSecondRepliesAreCounted(t *testing.T) {
	t.Parallel()
	says(t, "R7")
	p := serve(t, mailbox("work", "ackWait: 5s"), "kind: Endpoint\nmetadata: {name: ask}\nspec: {pattern: RequestResponse, timeout: 30s, to: {mailboxRef: {name: work}}}")
	work := p.at("Mailbox", "work", "")
	// A split makes two replies of one request.
	q := serve(t, mailbox("split"), "kind: Endpoint\nmetadata: {name: twice}\nspec: {pattern: RequestResponse, timeout: 20s, to: {mailboxRef: {name: split}}}",
		"kind: Pipeline\nmetadata: {name: p}\nspec: {from: {mailboxRef: {name: split}}, steps: [{name: s, split: {cel: data}}], to: {reply: {}}}")
	if a := post(t, q.at("Endpoint", "twice", ""), "[1,2,3]", "Content-Type", "application/json").want(http.StatusOK); a.body != "1" {
		t.Fatalf("got %s: the first reply wins", a.body)
	}
	eventually(t, "the second and third reply to be counted", func() bool { return q.counts(t, "waybill_gateway_duplicate_replies_total", "twice") == 2 })

	// A client that goes away while it waits: what it asked for is answered late.
	ctx, hangUp := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.at("Endpoint", "ask", ""), strings.NewReader("x"))
		if err != nil {
			t.Error(err)
			return
		}
		if resp, err := http.DefaultClient.Do(r); err == nil {
			resp.Body.Close()
			t.Error("answered although it hung up")
		}
	}()
	l := one(t, work)
	hangUp()
	<-ended
	eventually(t, "the request to wait no longer", func() bool { return p.counts(t, "waybill_gateway_waiting_requests", "ask") == 0 })
	post(t, work+"/leases/"+l.Lease+"/reply", "late").want(http.StatusNoContent)
	eventually(t, "the late reply to be counted", func() bool { return p.counts(t, "waybill_gateway_late_replies_total", "ask") == 1 })
	if n := p.counts(t, "waybill_gateway_timed_out_total", "ask"); n != 0 {
		t.Fatalf("%v timed out", n)
	}
}

func TestAnEndpointsLimits(t *testing.T) {
	t.Parallel()
	says(t, "R9", "R10")
	p := serve(t, mailbox("work"), "kind: Endpoint\nmetadata: {name: small}\nspec: {pattern: RequestAck, to: {mailboxRef: {name: work}}, limits: {maxBodyBytes: 1Ki}}",
		"kind: Endpoint\nmetadata: {name: slow}\nspec: {pattern: RequestForget, to: {mailboxRef: {name: work}}, limits: {ratePerSecond: 5}}")
	small := p.at("Endpoint", "small", "")
	post(t, small, strings.Repeat("x", 1024)).want(http.StatusAccepted)
	post(t, small, strings.Repeat("x", 1025)).problem(http.StatusRequestEntityTooLarge, "TooLarge")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, small, struct{ *strings.Reader }{strings.NewReader(strings.Repeat("x", 1025))})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r) // chunked: its length is not told
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Fatalf("got %d", resp.StatusCode)
	}

	slow := p.at("Endpoint", "slow", "")
	began, taken, refused := time.Now(), 0, 0
	for refused < 5 {
		if a := post(t, slow, "x"); a.status == http.StatusAccepted {
			taken++
		} else {
			a.problem(http.StatusTooManyRequests, "RateLimited")
			if a.header.Get("Retry-After") != "1" {
				t.Fatalf("Retry-After: %q", a.header.Get("Retry-After"))
			}
			refused++
		}
	}
	if most := 5 + int(5*time.Since(began).Seconds()+1); taken < 5 || taken > most {
		t.Fatalf("%d were taken in %s, with 5 a second and a burst of 5", taken, time.Since(began))
	}
	eventually(t, "the limit to let through again", func() bool { return post(t, slow, "x").status == http.StatusAccepted })
	got := metric(t, p, "Endpoint", "slow", `waybill_gateway_requests_total{code="429",kind="Endpoint",name="slow",namespace="default"}`)
	if n, err := strconv.Atoi(got); err != nil || n < refused { // waiting for the limit was refused too
		t.Fatalf("%q refused, want %d at least", got, refused)
	}
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
		a := send(t, method, small, "")
		a.problem(http.StatusMethodNotAllowed, "MethodNotAllowed")
		if a.header.Get("Allow") != "POST" {
			t.Fatalf("%s: Allow is %q", method, a.header.Get("Allow"))
		}
	}
}
