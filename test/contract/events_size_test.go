package contract

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// What is taken can be dead-lettered with its history, up to the largest event that can be.
func TestEventsAtTheLimit(t *testing.T) {
	t.Parallel()
	says(t, "E15")
	sub := subscribe(t, func(w http.ResponseWriter, _ pushed) { w.WriteHeader(http.StatusUnprocessableEntity) })
	docs := []string{"kind: Mailbox\nmetadata: {name: small}\nspec: {brokerRef: {name: main}, maxMessageBytes: 1Ki}",
		"kind: Endpoint\nmetadata: {name: front}\nspec: {pattern: RequestAck, path: /front, to: {mailboxRef: {name: small}}, limits: {maxBodyBytes: 1000}}"}
	// The most that NATS takes leaves 24 KiB beside the data.
	limits := map[string]int{"usual": 512 << 10, "most": 1_024_000 - 1<<9}
	for name, limit := range limits {
		docs = append(docs,
			fmt.Sprintf("kind: Topic\nmetadata: {name: %s}\nspec: {brokerRef: {name: main}, maxMessageBytes: %d}", name, limit),
			fmt.Sprintf("kind: Mailbox\nmetadata: {name: %s-dead}\nspec: {brokerRef: {name: main}, ordering: None, maxMessageBytes: %d}", name, limit),
			fmt.Sprintf("kind: Subscription\nmetadata: {name: %s}\nspec: {topicRef: {name: %s}, deliverTo: {uri: '%s'}, deadLetter: {mailboxRef: {name: %s-dead}}}", name, name, sub.URL, name))
	}
	p := serve(t, docs...)
	tooLarge := func(a answer, limit int, field string) {
		t.Helper()
		a.problem(http.StatusRequestEntityTooLarge, "TooLarge")
		var got struct {
			Limit  int
			Field  string
			Detail string
		}
		if a.read(&got); got.Limit != limit || got.Field != field || field != "" && !strings.Contains(got.Detail, field) {
			t.Errorf("got %s, want the limit %d of %s", a.body, limit, field)
		}
	}
	const field = "spec.maxMessageBytes"
	small := p.at("Mailbox", "small", "/messages")
	kilobyte := strings.Repeat("x", 1024)
	for _, length := range []string{"", "chunked"} {
		send := func(body string, headers ...string) answer {
			if length == "" {
				return post(t, small, body, headers...)
			}
			return postChunked(t, small, body, headers...)
		}
		send(kilobyte).want(http.StatusAccepted)
		tooLarge(send(kilobyte+"x"), 1024, field)
		send(structuredEvent("s"+length, `,"data":"`+kilobyte[2:]+`"`), "Content-Type", structuredType).want(http.StatusAccepted)
		tooLarge(send(structuredEvent("n", `,"data":"`+kilobyte[1:]+`"`), "Content-Type", structuredType), 1024, field)
		send("["+structuredEvent("b"+length, `,"data":"`+kilobyte[2:]+`"`)+"]", "Content-Type", batchedType).want(http.StatusAccepted)
		a := send("["+structuredEvent("n", "")+","+structuredEvent("m", `,"data":"`+kilobyte[1:]+`"`)+"]", "Content-Type", batchedType)
		if a.problem(http.StatusUnprocessableEntity, "BadMember"); !strings.Contains(a.body, `"index":1`) || !strings.Contains(a.body, field) {
			t.Error(a.body)
		}
		tooLarge(send(strings.Repeat("x", 9<<20), "Content-Type", batchedType), 8<<20, "")
		tooLarge(send(strings.Repeat("x", 4<<20)), 1024, field)
	}
	front := p.at("Endpoint", "front", "")
	post(t, front, kilobyte[:1000]).want(http.StatusAccepted)
	tooLarge(post(t, front, kilobyte[:1001]), 1000, "spec.limits.maxBodyBytes")

	for name, limit := range limits {
		topic, dead := p.at("Topic", name, "/"), p.at("Mailbox", name+"-dead", "")
		data := strings.Repeat("x", limit)
		tooLarge(post(t, topic, data+"x"), limit, field)
		ids := map[string]bool{"plain": true, "attributes": true}
		post(t, topic, data, "Idempotency-Key", "plain").want(http.StatusAccepted)
		// As many attributes as go with that: each of these characters takes six bytes on the broker.
		n := 3960
		for ; ; n-- {
			a := post(t, topic, data, binaryHeaders("attributes", "ce-subject", strings.Repeat("é", n), "Content-Type", "text/plain")...)
			if a.status == http.StatusAccepted {
				break
			}
			if a.problem(http.StatusRequestEntityTooLarge, "TooLarge"); n < 3900 {
				t.Fatal(a.body)
			}
		}
		for len(ids) > 0 {
			for _, l := range receive(t, dead, "wait=20s&max=10") {
				id := l.attribute(t, "id")
				if !ids[id] || l.attribute(t, "wbreason") != "Terminal" || l.attribute(t, "wborigin") != "Subscription/default/"+name || l.attribute(t, "wbattempts") != "1" || l.attribute(t, "wbtime") == "" {
					t.Errorf("%s: %.300s", name, l.Event[max(0, len(l.Event)-300):])
				}
				if id == "attributes" && (l.attribute(t, "data") != data || l.attribute(t, "subject") != strings.Repeat("é", n)) {
					t.Errorf("%s: the data or the subject are not what was published", name)
				}
				delete(ids, id)
				post(t, dead+"/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent)
			}
		}
	}
}

// postChunked posts without saying how much.
func postChunked(t *testing.T, url, body string, headers ...string) answer {
	t.Helper()
	a, err := tryBody(t, url, struct{ *strings.Reader }{strings.NewReader(body)}, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
