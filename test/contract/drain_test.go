package contract

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestADrainAnswersWhoWaits(t *testing.T) {
	t.Parallel()
	says(t, "R12", "C15", "C16")
	data := t.TempDir()
	file := manifest(t, broker, mailbox("work"), mailbox("idle"), "kind: Topic\nmetadata: {name: news}\nspec: {brokerRef: {name: main}}",
		"kind: Endpoint\nmetadata: {name: ask}\nspec: {to: {mailboxRef: {name: work}}, pattern: RequestResponse, timeout: 60s}",
		"kind: Endpoint\nmetadata: {name: done}\nspec: {to: {mailboxRef: {name: work}}, pattern: RequestAck, ackWhen: Processed, timeout: 60s}")
	p := start(t, "-f", file, "--data", data, "--drain", "2s").awaitUp()
	waiting := map[string]<-chan answer{
		"wait": later(t, p.at("Mailbox", "work", "/messages"), "x", "Idempotency-Key", "wait", "Prefer", "wait=60"),
		"ask":  later(t, p.at("Endpoint", "ask", ""), "x", "Idempotency-Key", "ask"),
		"done": later(t, p.at("Endpoint", "done", ""), "x", "Idempotency-Key", "done"),
	}
	poll := later(t, p.at("Mailbox", "idle", "/messages/receive?wait=60s"), "")
	live := listen(t, p.at("Topic", "news", ""))
	eventually(t, "all to wait", func() bool {
		requests := 0.0
		for _, name := range []string{"work", "ask", "done"} {
			requests += p.counts(t, "waybill_gateway_waiting_requests", name)
		}
		return requests == 3 && p.counts(t, "waybill_gateway_waiting_receivers", "idle") == 1
	})

	began := time.Now()
	if code := p.signal(syscall.SIGTERM); code != 3 {
		t.Errorf("exit code %d, want 3\n%s", code, p.lines())
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("a drain of 2s took %s", took)
	}
	for id, c := range waiting {
		a := <-c
		a.problem(http.StatusGatewayTimeout, "OutcomeUnknown")
		if !strings.Contains(a.body, `"id":"`+id+`"`) {
			t.Errorf("%s: the answer has not its id: %s", id, a.body)
		}
	}
	if a := <-poll; a.status != http.StatusOK || strings.TrimSpace(a.body) != `{"messages":[]}` {
		t.Errorf("the long poll got %d %s", a.status, a.body)
	}
	for e := range live.events {
		t.Errorf("a live event: %v", e)
	}
	if live.err != nil {
		t.Errorf("the live events were cut off: %v", live.err)
	}

	p = start(t, "-f", file, "--data", data).awaitUp()
	take(t, p.at("Mailbox", "work", ""), len(waiting)) // none was lost
}

// A browser opens connections ahead, and a TCP check asks nothing: neither waits for an answer.
func TestADrainDoesNotWaitForConnectionsWithoutARequest(t *testing.T) {
	t.Parallel()
	says(t, "R12", "C12", "C15")
	p := start(t, "-f", manifest(t, broker, mailbox("work")), "--ephemeral", "--drain", "1s").awaitUp()
	address, err := url.Parse(p.at("Mailbox", "work", ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{"", "POST /default/mailboxes/work HT"} {
		c, err := net.Dial("tcp", address.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, said); err != nil {
			t.Fatal(err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	post(t, p.at("Mailbox", "work", "/messages"), "x").want(http.StatusAccepted) // accepted behind the others
	if code := p.signal(syscall.SIGTERM); code != 0 || !strings.Contains(p.lines(), `"complete":true`) {
		t.Errorf("exit code %d\n%s", code, p.lines())
	}
}
