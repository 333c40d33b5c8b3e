package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// mailbox is a Mailbox on the tests' broker; spec are more of its fields.
func mailbox(name string, spec ...string) string {
	return fmt.Sprintf("kind: Mailbox\nmetadata: {name: %s}\nspec: {%s}", name, strings.Join(append([]string{"brokerRef: {name: main}"}, spec...), ", "))
}

// later sends a POST and gives its answer when it comes.
func later(t *testing.T, url, body string, headers ...string) <-chan answer {
	t.Helper()
	c := make(chan answer, 1)
	go func() {
		defer close(c) // when post has failed the test
		c <- post(t, url, body, headers...)
	}()
	return c
}

// one receives exactly one message.
func one(t *testing.T, address string) lent {
	t.Helper()
	ls := receive(t, address, "wait=20s")
	if len(ls) != 1 {
		t.Fatalf("received %d messages, want 1", len(ls))
	}
	return ls[0]
}

// none checks that nothing is to be had at the moment.
func none(t *testing.T, address string) {
	t.Helper()
	if ls := receive(t, address, "max=10&wait=0"); len(ls) != 0 {
		t.Fatalf("received %s", ls[0].Event)
	}
}

// state reads an answer of the form {"id","state"}.
func (a answer) state(id, state string) {
	a.t.Helper()
	var got map[string]string
	a.read(&got)
	if len(got) != 2 || got["state"] != state || got["id"] == "" || id != "" && got["id"] != id {
		a.t.Fatalf("want %s %s, got %s", id, state, a.body)
	}
}

func TestAMailboxTakesAndGives(t *testing.T) {
	t.Parallel()
	says(t, "M1", "M4", "M5", "M6")
	p := serve(t, mailbox("inbox"))
	address := p.at("Mailbox", "inbox", "")
	post(t, address+"/messages", "a", "Idempotency-Key", "a").want(http.StatusAccepted).state("a", "Stored")
	post(t, address+"/messages", "b", "Idempotency-Key", "b", "Prefer", "respond-async").want(http.StatusAccepted).state("b", "Accepted")
	post(t, address+"/messages", "c").want(http.StatusAccepted).state("", "Stored")

	before := time.Now()
	ids := map[string]bool{}
	for len(ids) < 3 {
		a := post(t, address+"/messages/receive?max=2&wait=20s", "").want(http.StatusOK)
		var got struct{ Messages []map[string]json.RawMessage }
		a.read(&got)
		if len(got.Messages) == 0 || len(got.Messages) > 2 {
			t.Fatalf("asked for at most 2, got %s", a.body)
		}
		for _, m := range got.Messages {
			if len(m) != 4 || m["lease"] == nil || m["expires"] == nil || string(m["deliveries"]) != "1" {
				t.Fatalf("got %v", m)
			}
			l := lent{Event: m["event"]}
			if l.attribute(t, "specversion") != "1.0" || l.attribute(t, "source") != "/default/mailboxes/inbox" || l.attribute(t, "type") != "dev.waybill.message" {
				t.Fatalf("no CloudEvent in JSON format: %s", m["event"])
			}
			ids[l.attribute(t, "id")] = true
		}
	}
	if !ids["a"] || !ids["b"] || time.Since(before) > 15*time.Second {
		t.Fatalf("got %v after %s", ids, time.Since(before))
	}

	began := time.Now()
	if a := post(t, address+"/messages/receive?wait=1s", "").want(http.StatusOK); strings.TrimSpace(a.body) != `{"messages":[]}` || time.Since(began) < 900*time.Millisecond {
		t.Fatalf("got %s after %s", a.body, time.Since(began))
	}
	began = time.Now()
	if a := post(t, address+"/messages/receive?wait=0s", "").want(http.StatusOK); strings.TrimSpace(a.body) != `{"messages":[]}` || time.Since(began) > 5*time.Second {
		t.Fatalf("got %s after %s", a.body, time.Since(began))
	}
	for _, query := range []string{"max=0", "max=-1", "max=1.5", "max=x", "max=", "wait=x", "wait=-1s", "wait=", "wait=1d"} {
		post(t, address+"/messages/receive?"+query, "").problem(http.StatusBadRequest, "BadArgument")
	}
	// Above their bounds they are clamped: the most that comes is 100, and a poll beyond the minute is not refused.
	for i := range 3 {
		var batch []string
		for n := range 50 {
			batch = append(batch, fmt.Sprintf(`{"specversion":"1.0","id":"%d-%d","source":"/s","type":"t"}`, i, n))
		}
		post(t, address+"/messages", "["+strings.Join(batch, ",")+"]", "Content-Type", "application/cloudevents-batch+json").want(http.StatusAccepted)
	}
	for got, first := 0, true; got < 150; first = false {
		n := len(receive(t, address, "max=99999999999999999999&wait=24h"))
		if n == 0 || n > 100 || first && n != 100 {
			t.Fatalf("got %d at once, after %d", n, got)
		}
		got += n
	}
}

func TestReceiveWaitsTwentySecondsUnlessTold(t *testing.T) {
	t.Parallel()
	says(t, "M6")
	p := serve(t, mailbox("inbox"))
	began := time.Now()
	if ls := receive(t, p.at("Mailbox", "inbox", ""), ""); len(ls) != 0 {
		t.Fatalf("got %v", ls)
	}
	if took := time.Since(began); took < 19*time.Second || took > 25*time.Second {
		t.Fatalf("waited %s", took)
	}
}

func TestAMailboxIsRequestResponseWithPreferWait(t *testing.T) {
	t.Parallel()
	says(t, "M2", "M3", "L4", "L5", "L10", "R6", "R7")
	p := serve(t, mailbox("work"))
	address := p.at("Mailbox", "work", "")
	ask := func(id, prefer string) <-chan answer {
		return later(t, address+"/messages", "question", "Prefer", prefer, "Idempotency-Key", id)
	}
	settle := func(l lent, call, body string, headers ...string) answer {
		t.Helper()
		return post(t, address+"/leases/"+l.Lease+call, body, headers...)
	}

	// An event's own expirytime is no request's: nothing is dropped.
	post(t, address+"/messages", "old", "ce-specversion", "1.0", "ce-id", "0", "ce-source", "/s", "ce-type", "t", "ce-expirytime", "2001-01-01T00:00:00Z").want(http.StatusAccepted)
	old := one(t, address)
	if old.attribute(t, "expirytime") != "2001-01-01T00:00:00Z" {
		t.Fatalf("got %s", old.Event)
	}
	settle(old, "/ack", "").want(http.StatusNoContent)

	a := ask("1", `handling=strict, wait="20"; x=y, foo="a, wait=1"`) // other preferences beside it
	settle(one(t, address), "/reply", "<b>42</b>", "Content-Type", "text/html; charset=utf-8").want(http.StatusNoContent)
	if got := (<-a).want(http.StatusOK); got.body != "<b>42</b>" || got.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("got %s %v", got.body, got.header)
	}

	a = ask("2", "wait=99999999999999999999") // above the bound
	settle(one(t, address), "/reply", `{"specversion":"1.0","id":"r","source":"/r","type":"answer","color":"red","datacontenttype":"application/xml","data":"<x/>"}`,
		"Content-Type", "application/cloudevents+json").want(http.StatusNoContent)
	if got := (<-a).want(http.StatusOK); got.body != "<x/>" || got.header.Get("Content-Type") != "application/xml" || got.header.Get("Ce-Id") != "r" || got.header.Get("Ce-Color") != "red" {
		t.Fatalf("got %s %v", got.body, got.header)
	}

	a = ask("3", "respond-async, wait=20") // who waits is not answered before
	settle(one(t, address), "/reply", "", "Ce-Specversion", "1.0", "Ce-Id", "r", "Ce-Source", "/r", "Ce-Type", "t").want(http.StatusNoContent)
	if got := (<-a).want(http.StatusOK); got.body != "" || len(got.header["Content-Type"]) != 0 || got.header.Get("Ce-Type") != "t" {
		t.Fatalf("got %q %v", got.body, got.header)
	}

	for _, status := range []string{"400", "404", "599"} {
		a = ask("s"+status, "wait=20")
		settle(one(t, address), "/reply?status="+status, `{"why":"no"}`, "Content-Type", "application/json").want(http.StatusNoContent)
		if got := <-a; fmt.Sprint(got.status) != status || got.body != `{"why":"no"}` || got.header.Get("Content-Type") != "application/json" {
			t.Fatalf("got %d %s %v", got.status, got.body, got.header)
		}
	}
	a = ask("4", "wait=20")
	l := one(t, address)
	for _, bad := range []string{"200", "399", "600", "x", "", "-400"} {
		settle(l, "/reply?status="+bad, "no").problem(http.StatusBadRequest, "BadArgument")
	}
	settle(l, "/reply", "[]", "Content-Type", "application/cloudevents-batch+json").problem(http.StatusBadRequest, "")
	b := ask("4", "wait=20") // the same source and id, while the first waits
	none(t, address)         // and it is not a second message
	settle(l, "/reply", "same", "Content-Type", "text/plain").want(http.StatusNoContent)
	if x, y := (<-a).want(http.StatusOK), (<-b).want(http.StatusOK); x.body != "same" || y.body != "same" {
		t.Fatalf("got %q and %q", x.body, y.body)
	}

	a = ask("5", "wait=1")
	if got := <-a; !strings.Contains(got.problem(http.StatusGatewayTimeout, "OutcomeUnknown"), "unknown") || !strings.Contains(got.body, `"id":"5"`) {
		t.Fatalf("got %s", got.body)
	}
	none(t, address) // nobody waits for it any more
	a = ask("6", "wait=1")
	l = one(t, address)
	(<-a).problem(http.StatusGatewayTimeout, "OutcomeUnknown")
	settle(l, "/reply", "late").want(http.StatusNoContent)
	eventually(t, "what was dropped and what came late to be counted", func() bool {
		return p.counts(t, "waybill_gateway_expired_total", "work") == 1 && p.counts(t, "waybill_gateway_late_replies_total", "work") == 1
	})

	for _, bad := range []string{"wait=0", "wait=-1", "wait", "wait=", "wait=soon", "wait=1.5", "wait=5s"} {
		post(t, address+"/messages", "x", "Prefer", bad).problem(http.StatusBadRequest, "BadArgument")
	}
	post(t, address+"/messages", "[]", "Prefer", "wait=1", "Content-Type", "application/cloudevents-batch+json").problem(http.StatusBadRequest, "OneEventOnly")
	post(t, address+"/messages", "x", "Prefer", "waiting=1", "Idempotency-Key", "7").want(http.StatusAccepted).state("7", "Stored")
}

// counts reads a metric of one resource from /metrics.
func (p *process) counts(t *testing.T, name, resource string) (n float64) {
	t.Helper()
	for _, e := range p.seen() {
		if e.Address == "" {
			continue
		}
		root := e.Address[:strings.Index(e.Address[len("http://"):], "/")+len("http://")]
		for line := range strings.SplitSeq(send(t, http.MethodGet, root+"/metrics", "").want(http.StatusOK).body, "\n") {
			series, value, _ := strings.Cut(line, " ")
			if strings.HasPrefix(series, name+"{") && strings.Contains(series, `name="`+resource+`"`) {
				if _, err := fmt.Sscan(value, &n); err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
		return 0
	}
	t.Fatal("nothing serves HTTP")
	return 0
}

func TestAFullMailboxRefusesAndLosesNothing(t *testing.T) {
	t.Parallel()
	says(t, "M8")
	p := serve(t, mailbox("few", "retention: {maxMessages: 2}"), mailbox("small", "retention: {maxBytes: 8Ki}"),
		"kind: Endpoint\nmetadata: {name: door}\nspec: {pattern: RequestAck, to: {mailboxRef: {name: few}}}")
	for name, size := range map[string]int{"few": 1, "small": 3000} {
		address := p.at("Mailbox", name, "")
		body := strings.Repeat("x", size)
		stored, refused := 0, ""
		for i := 0; refused == ""; i++ {
			id := fmt.Sprint(i)
			if a := post(t, address+"/messages", body, "Idempotency-Key", id); a.status == http.StatusAccepted {
				stored++
			} else {
				a.problem(http.StatusInsufficientStorage, "Full")
				refused = id
			}
			if stored > 2 {
				t.Fatalf("%s took %d messages", name, stored)
			}
		}
		if name == "few" {
			post(t, p.at("Endpoint", "door", ""), "x").problem(http.StatusInsufficientStorage, "Full")
			post(t, address+"/messages", "x", "Prefer", "wait=20").problem(http.StatusInsufficientStorage, "Full")
		}
		l := one(t, address)
		post(t, address+"/messages", body, "Idempotency-Key", refused).problem(http.StatusInsufficientStorage, "Full") // lent out is not taken
		post(t, address+"/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent)
		post(t, address+"/messages", body, "Idempotency-Key", refused).want(http.StatusAccepted)
		ids := map[string]bool{l.attribute(t, "id"): true}
		for len(ids) <= stored {
			ids[one(t, address).attribute(t, "id")] = true
		}
		if !ids[refused] || !ids["0"] {
			t.Fatalf("%s: got %v", name, ids)
		}
	}
}

func TestAMailboxHasOneMode(t *testing.T) {
	t.Parallel()
	says(t, "M7", "M10")
	s := subscribe(t, func(w http.ResponseWriter, p pushed) {
		switch p.body {
		case "poison":
			http.Error(w, "cannot read it", http.StatusUnprocessableEntity)
		case "event":
			w.Header().Set("Content-Type", "application/cloudevents+json")
			fmt.Fprint(w, `{"specversion":"1.0","id":"r","source":"/r","type":"t","data":{"n":1.0}}`)
		case "nothing":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set("Content-Type", "text/x-answer")
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, "answer to "+p.body)
		}
	})
	p := serve(t, mailbox("handled", "ordering: Key", "deliverTo: {uri: '"+s.URL+"/handle'}"), mailbox("piped"),
		"kind: Topic\nmetadata: {name: out}\nspec: {brokerRef: {name: main}}",
		"kind: Pipeline\nmetadata: {name: pipe}\nspec: {from: {mailboxRef: {name: piped}}, to: {topicRef: {name: out}}}")
	for name, by := range map[string]string{"handled": "handler", "piped": "Pipeline"} {
		address := p.at("Mailbox", name, "")
		for _, path := range []string{"/messages/receive", "/leases/ack", "/leases/x/ack", "/leases/x/nack", "/leases/x/reject", "/leases/x/reply", "/leases/x/extend"} {
			if detail := post(t, address+path, "").problem(http.StatusConflict, "WrongMode"); !strings.Contains(detail, by) {
				t.Fatalf("%s does not say who takes the messages: %s", path, detail)
			}
		}
	}
	address := p.at("Mailbox", "handled", "/messages")
	post(t, address, "plain", "Idempotency-Key", "p").want(http.StatusAccepted)
	if got := s.await(1)[0]; got.body != "plain" || got.path != "/handle" || got.header.Get("Ce-Id") != "p" {
		t.Fatalf("got %+v", got)
	}
	if a := post(t, address, "question", "Prefer", "wait=20").want(http.StatusOK); a.body != "answer to question" || a.header.Get("Content-Type") != "text/x-answer" {
		t.Fatalf("got %s %v", a.body, a.header)
	}
	if a := post(t, address, "event", "Prefer", "wait=20").want(http.StatusOK); a.body != `{"n":1.0}` || a.header.Get("Content-Type") != "application/json" || a.header.Get("Ce-Id") != "r" {
		t.Fatalf("got %s %v", a.body, a.header)
	}
	if a := post(t, address, "nothing", "Prefer", "wait=20").want(http.StatusOK); a.body != "" {
		t.Fatalf("got %s", a.body)
	}
	if detail := post(t, address, "poison", "Prefer", "wait=20").problem(http.StatusBadGateway, "Terminal"); !strings.Contains(detail, "422") {
		t.Fatalf("the last error is not told: %s", detail)
	}
	// A key's order is for handlers and Pipelines.
	code, out, _ := waybill(t, "validate", "-o", "json", "-f", manifest(t, broker, mailbox("keyed", "ordering: Key")))
	if code != 1 || !strings.Contains(out, `"field":"spec.ordering"`) {
		t.Fatalf("exit code %d, %s", code, out)
	}
}

func TestAStrictMailboxHasOneMessageOut(t *testing.T) {
	t.Parallel()
	says(t, "M9", "L2")
	p := serve(t, mailbox("strict", "ordering: Strict"))
	address := p.at("Mailbox", "strict", "")
	for i := range 4 {
		post(t, address+"/messages", "x", "Idempotency-Key", fmt.Sprint(i)).want(http.StatusAccepted)
	}
	for i := range 4 {
		ls := receive(t, address, "max=100&wait=20s")
		if len(ls) != 1 || ls[0].attribute(t, "id") != fmt.Sprint(i) {
			t.Fatalf("step %d: got %d messages, the first %s", i, len(ls), ls[0].Event)
		}
		none(t, address)
		if i == 1 { // what is handed back is still the first, after its delay too
			began := time.Now()
			post(t, address+"/leases/"+ls[0].Lease+"/nack?delay=1s", "").want(http.StatusNoContent)
			if ls[0] = one(t, address); ls[0].attribute(t, "id") != "1" || time.Since(began) < 900*time.Millisecond {
				t.Fatalf("got %s after %s", ls[0].Event, time.Since(began))
			}
		}
		post(t, address+"/leases/"+ls[0].Lease+"/ack", "").want(http.StatusNoContent)
	}
}

func TestAReceiverThatHangsUpHasReceivedNothing(t *testing.T) {
	t.Parallel()
	says(t, "L15")
	p := serve(t, mailbox("inbox", "ackWait: 10m"))
	address := p.at("Mailbox", "inbox", "")
	for i := range 10 {
		ctx, hangUp := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/messages/receive?wait=60s", bytes.NewReader(nil))
			if err != nil {
				t.Error(err)
				return
			}
			if resp, err := http.DefaultClient.Do(r); err == nil {
				resp.Body.Close()
				t.Error("a poll that hung up was answered")
			}
		}()
		eventually(t, "the poll to be seen", func() bool { return p.counts(t, "waybill_gateway_waiting_receivers", "inbox") == 1 })
		hangUp()
		<-ended
		eventually(t, "the poll to be gone", func() bool { return p.counts(t, "waybill_gateway_waiting_receivers", "inbox") == 0 })
		began := time.Now()
		post(t, address+"/messages", "x", "Idempotency-Key", fmt.Sprint(i)).want(http.StatusAccepted)
		l := one(t, address)
		if l.attribute(t, "id") != fmt.Sprint(i) || l.Deliveries != 1 || time.Since(began) > 10*time.Second {
			t.Fatalf("round %d: got %s, delivery %d, after %s", i, l.Event, l.Deliveries, time.Since(began))
		}
		post(t, address+"/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent)
	}
}

func TestAReplyThatIsTooLarge(t *testing.T) {
	t.Parallel()
	says(t, "M12", "R8")
	sizes := map[string]int{"fits": 1<<20 - 24<<10, "broker": 1 << 20, "more": 1<<20 + 1}
	sub := subscribe(t, func(w http.ResponseWriter, p pushed) { _, _ = w.Write(make([]byte, sizes[p.header.Get("Ce-Id")])) })
	p := serve(t, mailbox("pushed", "deliverTo: {uri: '"+sub.URL+"'}"), mailbox("leased", "maxMessageBytes: 2Ki"))
	for id, size := range sizes {
		a := post(t, p.at("Mailbox", "pushed", "/messages"), "x", "Idempotency-Key", id, "Prefer", "wait=30")
		if id == "fits" {
			if a.want(http.StatusOK); len(a.body) != size {
				t.Errorf("%d bytes came of %d", len(a.body), size)
			}
			continue
		}
		detail := a.problem(http.StatusBadGateway, "Terminal")
		if strings.Contains(detail, "reply: reply") || !strings.Contains(detail, "larger than the broker takes") && !strings.Contains(detail, "more than 1048576 bytes") {
			t.Errorf("%s: %s", id, detail)
		}
	}
	if n := len(sub.all()); n != len(sizes) {
		t.Errorf("%d pushes of %d messages", n, len(sizes))
	}

	leased := p.at("Mailbox", "leased", "")
	l := put(t, leased, "1")
	post(t, leased+"/leases/"+l.Lease+"/reply", strings.Repeat("x", 2<<10+1)).problem(http.StatusRequestEntityTooLarge, "TooLarge")
	post(t, leased+"/leases/"+l.Lease+"/reply", strings.Repeat("x", 2<<10)).want(http.StatusNoContent)
}
