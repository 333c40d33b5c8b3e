package contract

import (
	"net/http"
	"strings"
	"testing"
)

func TestTokensAreAskedForAtEveryGateway(t *testing.T) {
	t.Parallel()
	says(t, "R11", "M11")
	secret := func(name, token string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: " + name + "}\nstringData: {token: \"" + token + "\"}"
	}
	const all = "auth: {bearer: {secretRef: {name: in}}}"
	p := serve(t, secret("in", `sesame-in\n`), secret("out", "  sesame-out"), // as files and editors leave them
		"kind: Topic\nmetadata: {name: topic}\nspec: {brokerRef: {name: main}, "+all+"}",
		"kind: Subscription\nmetadata: {name: s}\nspec: {topicRef: {name: topic}, deliverTo: {mailboxRef: {name: both}}}",
		mailbox("both", all),
		mailbox("apart", "auth: {publish: {bearer: {secretRef: {name: in}}}, receive: {bearer: {secretRef: {name: out}}}}"),
		mailbox("drop", "auth: {receive: {bearer: {secretRef: {name: out}}}}"),
		"kind: Endpoint\nmetadata: {name: door}\nspec: {pattern: RequestAck, path: /in, to: {mailboxRef: {name: both}}, "+all+"}")
	type call struct{ method, url string }
	receiving := func(name string) []call {
		var calls []call
		for _, path := range []string{"/messages/receive?wait=0", "/leases/x/ack", "/leases/x/nack", "/leases/x/reject", "/leases/x/reply", "/leases/x/extend", "/leases/ack"} {
			calls = append(calls, call{http.MethodPost, p.at("Mailbox", name, path)})
		}
		return calls
	}
	publishing := func(name string) call { return call{http.MethodPost, p.at("Mailbox", name, "/messages")} }
	in := append(receiving("both"), publishing("both"), publishing("apart"), call{http.MethodPost, p.at("Topic", "topic", "")}, call{http.MethodGet, p.at("Topic", "topic", "")},
		call{http.MethodPost, p.at("Endpoint", "door", "")})
	out := append(receiving("apart"), receiving("drop")...)
	for _, c := range append(in, out...) {
		right, wrong := "sesame-in", "sesame-out"
		for _, o := range out {
			if c == o {
				right, wrong = wrong, right
			}
		}
		a := send(t, c.method, c.url, "x")
		a.problem(http.StatusUnauthorized, "Unauthorized")
		if got := a.header.Get("WWW-Authenticate"); got != `Bearer realm="waybill"` {
			t.Fatalf("%s: %q", c.url, got)
		}
		for _, given := range []string{"Bearer " + wrong, "Bearer", "Bearer ", "Basic " + right, right, "Bearer " + right + "x", "Bearer " + right[:5], "Bearer " + right + ", " + right} {
			a := send(t, c.method, c.url, "x", "Authorization", given)
			a.problem(http.StatusUnauthorized, "Unauthorized")
			if !strings.Contains(a.header.Get("WWW-Authenticate"), `error="invalid_token"`) || strings.Contains(a.body, "sesame") {
				t.Fatalf("%s with %q: %v %s", c.url, given, a.header, a.body)
			}
		}
		if c.method == http.MethodGet {
			continue // it would go on and on
		}
		for _, scheme := range []string{"Bearer ", "bearer ", "BEARER "} {
			if a := send(t, c.method, c.url, "", "Authorization", scheme+right); a.status == http.StatusUnauthorized {
				t.Fatalf("%s: %s", c.url, a.body)
			}
		}
	}
	post(t, p.at("Mailbox", "drop", "/messages"), "x").want(http.StatusAccepted) // the one that is left out is open
}
