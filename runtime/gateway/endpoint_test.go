package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/gateway"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// endpoint serves an Endpoint whose messages go to the mailbox "work".
func (r *rig) endpoint(pattern string, change ...func(*plan.Endpoint)) *served {
	r.t.Helper()
	_, s := r.endpointHandler(pattern, change...)
	return s
}

func (r *rig) endpointHandler(pattern string, change ...func(*plan.Endpoint)) (*gateway.Endpoint, *served) {
	r.t.Helper()
	p := plan.Endpoint{Pattern: pattern, Path: "/checkout", To: plan.Ref{Broker: brokerName, Kind: "Queue", Name: "work"}, Timeout: plan.Duration(20 * time.Second),
		AckWhen: "Stored", WhenExpired: "Deliver", MaxBodyBytes: 64 << 10, MaxMessageBytes: 64 << 10}
	if pattern == "RequestResponse" {
		p.WhenExpired = "Drop"
	}
	for _, c := range change {
		c(&p)
	}
	h, err := gateway.NewEndpoint(p, r.deps("Endpoint", "checkout"))
	if err != nil {
		r.t.Fatal(err)
	}
	return h, r.serve(h)
}

func (s *served) async(path, body string, headers ...string) chan got {
	c := make(chan got, 1)
	ctx := within(s.t)
	go func() {
		g, err := s.try(ctx, http.MethodPost, path, body, headers...)
		if err != nil {
			s.t.Error(err)
		}
		c <- g
	}()
	return c
}

func TestEndpointRequestResponse(t *testing.T) {
	r := newRig(t)
	work := r.mailbox("work")
	e := r.endpoint("RequestResponse")
	c := e.async("/checkout", `{"total":1.50}`, "Content-Type", "application/json")
	l := work.one()
	m := l.event(t)
	if string(m.Data) != `{"total":1.50}` || m.Source != "/default/endpoints/checkout" || m.ID == "" {
		t.Fatalf("got %s", l.Event)
	}
	at, err := time.Parse(time.RFC3339, m.Attribute("expirytime"))
	if left := time.Until(at); err != nil || left < 15*time.Second || left > 20*time.Second {
		t.Fatalf("expirytime %q", m.Attribute("expirytime"))
	}
	work.post("/leases/"+l.Lease+"/reply", `{"ok":true}`, "Content-Type", "application/vnd.acme+json").want(http.StatusNoContent)
	if g := (<-c).want(http.StatusOK); g.body != `{"ok":true}` || g.header.Get("Content-Type") != "application/vnd.acme+json" {
		t.Fatalf("got %s %v", g.body, g.header)
	}
}

func TestEndpointRequestResponseTimesOutWith504(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	work := r.mailbox("work")
	h, e := r.endpointHandler("RequestResponse", func(p *plan.Endpoint) { p.Timeout = plan.Duration(time.Second) })
	start := time.Now()
	p := e.post("/checkout", "x", "Idempotency-Key", "k").problem(http.StatusGatewayTimeout, "OutcomeUnknown")
	if took := time.Since(start); p["id"] != "k" || took < 900*time.Millisecond || took > 4*time.Second {
		t.Fatalf("got %v after %s", p, took)
	}
	if h.Stats().TimedOut != 1 || h.Stats().Refused[504] != 1 || h.Stats().Bytes != 0 {
		t.Fatalf("got %+v", h.Stats())
	}
	work.none2("wait=1s") // expired: nobody waits for it
}

func TestEndpointRequestThatNeedNotExpireIsDelivered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	work := r.mailbox("work")
	e := r.endpoint("RequestResponse", func(p *plan.Endpoint) { p.Timeout, p.WhenExpired = plan.Duration(time.Second), "Deliver" })
	e.post("/checkout", "x").problem(http.StatusGatewayTimeout, "OutcomeUnknown")
	l := work.one()
	if m := l.event(t); m.Attribute("expirytime") != "" {
		t.Fatalf("got %s", l.Event)
	}
}

func TestEndpointRequestAckStored(t *testing.T) {
	r := newRig(t)
	work := r.mailbox("work")
	e := r.endpoint("RequestAck")
	if g := e.post("/checkout", "x", "Idempotency-Key", "k").want(http.StatusAccepted); strings.TrimSpace(g.body) != `{"id":"k","state":"Stored"}` {
		t.Fatalf("got %s", g.body)
	}
	l := work.one()
	if m := l.event(t); m.ID != "k" || m.Attribute("expirytime") != "" {
		t.Fatalf("got %s", l.Event)
	}
}

func TestEndpointRequestAckProcessed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.queue("work-dead")
	work := r.mailbox("work", withDeadLetter(1))
	e := r.endpoint("RequestAck", func(p *plan.Endpoint) { p.AckWhen = "Processed" })
	c := e.async("/checkout", "x", "Idempotency-Key", "k")
	work.post("/leases/"+work.one().Lease+"/ack", "").want(http.StatusNoContent)
	if g := (<-c).want(http.StatusOK); strings.TrimSpace(g.body) != `{"id":"k","state":"Processed"}` {
		t.Fatalf("got %s", g.body)
	}
	c = e.async("/checkout", "x")
	work.post("/leases/"+work.one().Lease+"/reply", "a reply that nobody asked for").want(http.StatusNoContent)
	(<-c).want(http.StatusOK)
	c = e.async("/checkout", "x")
	work.post("/leases/"+work.one().Lease+"/nack", "").want(http.StatusNoContent) // its only attempt
	(<-c).problem(http.StatusBadGateway, "AttemptsExhausted")
}

func TestEndpointRequestForget(t *testing.T) {
	r := newRig(t)
	work := r.mailbox("work")
	h, e := r.endpointHandler("RequestForget")
	if g := e.post("/checkout", "x", "Idempotency-Key", "k").want(http.StatusAccepted); strings.TrimSpace(g.body) != `{"id":"k","state":"Accepted"}` {
		t.Fatalf("got %s", g.body)
	}
	if l := work.one(); l.event(t).ID != "k" {
		t.Fatalf("got %s", l.Event)
	}
	eventually(t, "the event to be counted", func() bool { return h.Stats().Stored == 1 })
	if s := h.Stats(); s.Accepted != 1 || s.Lost != 0 || s.Buffered != 0 || s.Bytes != 0 {
		t.Fatalf("got %+v", s)
	}
}

func TestEndpointTakesBatches(t *testing.T) {
	r := newRig(t)
	work := r.mailbox("work", func(p *plan.Mailbox) { p.Ordering = "Strict" })
	e := r.endpoint("RequestAck")
	g := e.post("/checkout", "["+structured("a", "1")+","+structured("b", "2.0")+"]", "Content-Type", "application/cloudevents-batch+json").want(http.StatusAccepted)
	if strings.TrimSpace(g.body) != `{"state":"Stored","ids":["a","b"]}` {
		t.Fatalf("got %s", g.body)
	}
	for _, want := range []string{"1", "2.0"} {
		l := work.one()
		if string(l.event(t).Data) != want {
			t.Fatalf("got %s", l.Event)
		}
		work.post("/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent)
	}
	if g := e.post("/checkout", "[]", "Content-Type", "application/cloudevents-batch+json").want(http.StatusAccepted); strings.TrimSpace(g.body) != `{"state":"Stored","ids":[]}` {
		t.Fatalf("got %s", g.body)
	}
}

func TestEndpointServesItsExactPathAndMethod(t *testing.T) {
	r := newRig(t)
	r.mailbox("work")
	e := r.endpoint("RequestAck")
	for _, path := range []string{"/", "/checkout/", "/checkout/x", "/Checkout", "//checkout"} {
		if p := e.post(path, "x").problem(http.StatusNotFound, "NotFound"); !strings.HasSuffix(p["detail"].(string), "it serves POST /checkout") {
			t.Error(p["detail"])
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
		g := e.call(method, "/checkout", "")
		g.problem(http.StatusMethodNotAllowed, "MethodNotAllowed")
		if g.header.Get("Allow") != "POST" {
			t.Fatalf("Allow: %q", g.header.Get("Allow"))
		}
	}
}

func TestEndpointKey(t *testing.T) {
	r := newRig(t)
	work := r.mailbox("work")
	e := r.endpoint("RequestAck", func(p *plan.Endpoint) { p.Key = &plan.Expr{CEL: "data.customer"} })
	e.post("/checkout", `{"customer":"c-7"}`, "Content-Type", "application/json").want(http.StatusAccepted)
	if l := work.one(); l.event(t).Key != "c-7" {
		t.Fatalf("got %s", l.Event)
	}
	g := e.post("/checkout", `{"secret":"s3cret"}`, "Content-Type", "application/json")
	if why := g.problem(http.StatusUnprocessableEntity, "NoKey")["detail"]; !strings.Contains(why.(string), `"customer", which the expression names, is missing`) || strings.Contains(g.body, "s3cret") {
		t.Fatalf("the member does not show, or the payload does: %s", g.body)
	}
	g = e.post("/checkout", `{"customer":"c-7"}`, "Content-Type", "application/x-www-form-urlencoded") // curl's own
	if why := g.problem(http.StatusUnprocessableEntity, "NoKey")["detail"]; !strings.Contains(why.(string), "not JSON, for the message's content type is application/x-www-form-urlencoded") {
		t.Fatal(why)
	}
	p := e.post("/checkout", "["+structured("1", `{}`)+","+structured("2", `{"customer":"c"}`)+","+structured("3", `{}`)+"]", "Content-Type", batchType).problem(http.StatusUnprocessableEntity, "NoKey")
	if at := fmt.Sprint(p["errors"]); !strings.Contains(at, "index:0") || strings.Contains(at, "index:1") || !strings.Contains(at, "index:2") {
		t.Fatalf("got %v", at)
	}
	if _, err := gateway.NewEndpoint(plan.Endpoint{Pattern: "RequestAck", Key: &plan.Expr{CEL: "data."}}, r.deps("Endpoint", "x")); err == nil {
		t.Fatal("a key that does not compile was taken")
	}
}

func TestAnEndpointsSecretPathIsNotTold(t *testing.T) {
	r := newRig(t)
	r.mailbox("work")
	e := r.endpoint("RequestAck", func(p *plan.Endpoint) { p.Path = "/hooks/4f1c9a7be2d84c05a1b3" })
	if g := e.post("/hooks", "x"); strings.Contains(fmt.Sprint(g.problem(http.StatusNotFound, "NotFound")), "4f1c") {
		t.Error(g.body)
	}
}

func TestEndpointHoldsEventsAgainstTheTopicsSchema(t *testing.T) {
	r := newRig(t)
	r.mailbox("work")
	e := r.endpoint("RequestForget", func(p *plan.Endpoint) { p.Schema = json.RawMessage(schema) })
	p := e.post("/checkout", `{"total":null}`, "Content-Type", "application/json").problem(http.StatusUnprocessableEntity, "SchemaViolation")
	if e := fmt.Sprint(p["errors"]); !strings.Contains(e, "path:/total") {
		t.Fatalf("got %v", e)
	}
	e.post("/checkout", `{"total":1}`, "Content-Type", "application/json").want(http.StatusAccepted)
	if _, err := gateway.NewEndpoint(plan.Endpoint{Pattern: "RequestAck", Schema: json.RawMessage(`{"type":"nonsense"}`)}, r.deps("Endpoint", "x")); err == nil {
		t.Fatal("a schema that does not compile was taken")
	}
}

func TestEndpointRateLimit(t *testing.T) {
	r := newRig(t)
	r.mailbox("work")
	e := r.endpoint("RequestForget", func(p *plan.Endpoint) { p.RatePerSecond = 5 })
	taken := 0
	for range 8 {
		if g := e.post("/checkout", "x"); g.status == http.StatusAccepted {
			taken++
		} else {
			g.problem(http.StatusTooManyRequests, "RateLimited")
		}
	}
	if taken < 5 || taken > 6 {
		t.Fatalf("%d of a burst of 8 were taken; the limit is 5", taken)
	}
}

func TestEndpointBodyLimit(t *testing.T) {
	r := newRig(t)
	r.mailbox("work")
	h, e := r.endpointHandler("RequestAck", func(p *plan.Endpoint) { p.MaxBodyBytes = 100 })
	e.post("/checkout", strings.Repeat("x", 100)).want(http.StatusAccepted)
	e.post("/checkout", strings.Repeat("x", 101)).problem(http.StatusRequestEntityTooLarge, "TooLarge")
	// without a Content-Length
	req, err := http.NewRequestWithContext(within(t), http.MethodPost, e.url+"/checkout", struct{ *strings.Reader }{strings.NewReader(strings.Repeat("x", 101))})
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Fatalf("got %d", res.StatusCode)
	}
	if h.Stats().Bytes != 0 {
		t.Fatalf("%d bytes are still held", h.Stats().Bytes)
	}
}

func TestEndpointAuth(t *testing.T) {
	r := newRig(t)
	r.mailbox("work")
	r.secrets["s/token"] = "sesame"
	e := r.endpoint("RequestAck", func(p *plan.Endpoint) { p.Auth = &plan.Auth{Bearer: &plan.SecretRef{Name: "s", Key: "token"}} })
	g := e.post("/checkout", "x", "Authorization", "Bearer wrong")
	g.problem(http.StatusUnauthorized, "Unauthorized")
	if !strings.Contains(g.header.Get("WWW-Authenticate"), "invalid_token") || strings.Contains(g.body, "sesame") {
		t.Fatalf("got %v %s", g.header, g.body)
	}
	e.post("/checkout", "x", "Authorization", "Bearer sesame").want(http.StatusAccepted)
}

func TestEndpointBrokerAwayIs503AndAcceptedEventsSurviveIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	work := r.mailbox("work")
	stored := r.endpoint("RequestAck")
	waiting := r.endpoint("RequestResponse")
	h, forget := r.endpointHandler("RequestForget")
	restart := r.outage()
	stored.post("/checkout", "x").problem(http.StatusServiceUnavailable, "BrokerAway")
	waiting.post("/checkout", "x").problem(http.StatusServiceUnavailable, "BrokerAway")
	work.post("/messages/receive", "").problem(http.StatusServiceUnavailable, "BrokerAway")
	for i := range 3 {
		forget.post("/checkout", "x", "Idempotency-Key", fmt.Sprint(i)).want(http.StatusAccepted)
	}
	if h.Stats().Buffered != 3 {
		t.Fatalf("got %+v", h.Stats())
	}
	restart()
	eventually(t, "the accepted events to be stored", func() bool { return h.Stats().Stored == 3 })
	stored.post("/checkout", "x").want(http.StatusAccepted)
}

func TestEndpointAcceptedEventsAreCountedWhenLost(t *testing.T) {
	r := newRig(t)
	r.mailbox("work")
	h, forget := r.endpointHandler("RequestForget")
	restart := r.outage()
	forget.post("/checkout", "x").want(http.StatusAccepted)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := h.Drain(ctx); err == nil {
		t.Fatal("nothing can be drained while the broker is away")
	}
	if s := h.Stats(); s.Lost != 1 || s.Buffered != 0 || s.Bytes != 0 {
		t.Fatalf("got %+v", s)
	}
	forget.post("/checkout", "x").problem(http.StatusServiceUnavailable, "ShuttingDown")
	restart()
}
