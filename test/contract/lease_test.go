package contract

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// put stores a plain message with an id, takes it, and gives the lease.
func put(t *testing.T, address, id string) lent {
	t.Helper()
	post(t, address+"/messages", "body of "+id, "Idempotency-Key", id).want(http.StatusAccepted)
	l := one(t, address)
	if got := l.attribute(t, "id"); got != id {
		t.Fatalf("received %s, want %s", got, id)
	}
	return l
}

func TestLeasesAreSettled(t *testing.T) {
	t.Parallel()
	says(t, "L1", "L2", "L3", "L4", "L7", "L11", "L12")
	p := serve(t, mailbox("dead"), mailbox("inbox", "deadLetter: {mailboxRef: {name: dead}}"))
	address, dead := p.at("Mailbox", "inbox", ""), p.at("Mailbox", "dead", "")
	call := func(l lent, what string) answer {
		t.Helper()
		return post(t, address+"/leases/"+l.Lease+"/"+what, "")
	}
	ended := func(l lent, calls ...string) {
		t.Helper()
		for _, what := range calls {
			call(l, what).problem(http.StatusGone, "LeaseEnded")
		}
	}

	l := put(t, address, "acked")
	if a := call(l, "ack").want(http.StatusNoContent); a.body != "" {
		t.Fatalf("204 with the body %q", a.body)
	}
	call(l, "ack").want(http.StatusNoContent)
	ended(l, "nack", "reply", "reject", "extend")
	none(t, address)

	l = put(t, address, "replied")
	call(l, "reply").want(http.StatusNoContent) // nobody waits: it acknowledges all the same
	call(l, "ack").want(http.StatusNoContent)
	ended(l, "reply", "nack", "reject", "extend")
	none(t, address)

	l = put(t, address, "nacked")
	call(l, "nack").want(http.StatusNoContent)
	ended(l, "ack", "nack")
	if l = one(t, address); l.Deliveries != 2 || l.attribute(t, "id") != "nacked" {
		t.Fatalf("got %+v", l)
	}
	for _, bad := range []string{"15m1s", "16m", "901", "-1s", "x", "", "1d"} {
		call(l, "nack?delay="+bad).problem(http.StatusBadRequest, "BadArgument")
	}
	for i, delay := range []string{"1s", "1000ms", "1", "0s"} { // a bare number is seconds
		began := time.Now()
		call(l, "nack?delay="+delay).want(http.StatusNoContent)
		l = one(t, address)
		if took := time.Since(began); l.Deliveries != 3+i || delay != "0s" && took < 900*time.Millisecond {
			t.Fatalf("delay %s: delivery %d after %s", delay, l.Deliveries, took)
		}
	}
	call(l, "nack?delay=15m").want(http.StatusNoContent) // the most
	none(t, address)

	for id, reject := range map[string]func(l lent) answer{
		"unreasoned": func(l lent) answer { return call(l, "reject") },
		"query":      func(l lent) answer { return call(l, "reject?reason=no+such+customer") },
		"body": func(l lent) answer {
			return post(t, address+"/leases/"+l.Lease+"/reject", `{"reason":"no such customer"}`)
		},
	} {
		l = put(t, address, id)
		post(t, address+"/leases/"+l.Lease+"/reject", "no such customer").problem(http.StatusBadRequest, "BadArgument") // no JSON
		reject(l).want(http.StatusNoContent)
		ended(l, "ack", "reject")
		d := one(t, dead)
		if d.attribute(t, "id") != id || d.attribute(t, "wbreason") != "Rejected" || d.attribute(t, "wborigin") != "Mailbox/default/inbox" ||
			d.attribute(t, "source") != "/default/mailboxes/inbox" || d.attribute(t, "wbattempts") != "1" ||
			id != "unreasoned" && d.attribute(t, "wblasterror") != "no such customer" {
			t.Fatalf("got %s", d.Event)
		}
		post(t, dead+"/leases/"+d.Lease+"/ack", "").want(http.StatusNoContent)
	}

	var leases []string
	for i := range 20 {
		leases = append(leases, put(t, address, fmt.Sprint("list", i)).Lease)
	}
	post(t, address+"/leases/"+leases[0]+"/nack?delay=10m", "").want(http.StatusNoContent)
	list := append([]string{"forged", leases[3]}, leases...)
	body, err := json.Marshal(map[string]any{"leases": list})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Results []struct {
			Lease  string
			Status int
		}
	}
	post(t, address+"/leases/ack", string(body)).want(http.StatusOK).read(&got)
	if len(got.Results) != len(list) {
		t.Fatalf("%d results for %d leases", len(got.Results), len(list))
	}
	for i, r := range got.Results {
		want := http.StatusNoContent
		if i == 0 || i == 2 { // forged, and handed back
			want = http.StatusGone
		}
		if r.Lease != list[i] || r.Status != want {
			t.Fatalf("entry %d: got %+v, want %d", i, r, want)
		}
	}
	if a := post(t, address+"/leases/ack", `{"leases":[]}`).want(http.StatusOK); strings.TrimSpace(a.body) != `{"results":[]}` {
		t.Fatalf("got %s", a.body)
	}
	for _, bad := range []string{"", "{}", "[]", `{"leases":[1]}`, `{"leases":"x"}`, `{"leases":[` + strings.Repeat(`"x",`, 1000) + `"x"]}`} {
		post(t, address+"/leases/ack", bad).problem(http.StatusBadRequest, "BadArgument")
	}
	none(t, address)
}

func TestALeaseEndsTwoSecondsBeforeTheBrokersAckWait(t *testing.T) {
	t.Parallel()
	says(t, "L6", "L8", "L9", "L13")
	p := serve(t, mailbox("dead"), mailbox("inbox", "ackWait: 5s", "retry: {maxAttempts: 3}", "deadLetter: {mailboxRef: {name: dead}}"))
	address := p.at("Mailbox", "inbox", "")
	post(t, address+"/messages", "x", "Idempotency-Key", "1").want(http.StatusAccepted)
	before := time.Now()
	l := one(t, address)
	if l.Expires.Before(before.Add(2500*time.Millisecond)) || l.Expires.After(time.Now().Add(3*time.Second)) {
		t.Fatalf("expires in %s", time.Until(l.Expires))
	}
	var extended struct {
		Expires time.Time
		Lease   string
	}
	eventually(t, "a second of the lease to pass", func() bool { return time.Until(l.Expires) < 1800*time.Millisecond })
	before = time.Now()
	post(t, address+"/leases/"+l.Lease+"/extend", "").want(http.StatusOK).read(&extended)
	if left := extended.Expires.Sub(before); left < 2900*time.Millisecond || left > 3500*time.Millisecond || extended.Lease == "" {
		t.Fatalf("extended to %s from then", left)
	}
	eventually(t, "the first end to pass", func() bool { return time.Now().After(l.Expires.Add(200 * time.Millisecond)) })
	none(t, address)
	eventually(t, "the second end to pass", func() bool { return time.Now().After(extended.Expires) })
	for _, lease := range []string{l.Lease, extended.Lease} {
		for _, call := range []string{"ack", "nack", "reject", "reply", "extend"} {
			post(t, address+"/leases/"+lease+"/"+call, "").problem(http.StatusGone, "LeaseEnded")
		}
	}
	second := one(t, address) // the ended lease was an attempt
	if second.Deliveries != 2 || time.Now().Before(extended.Expires.Add(1500*time.Millisecond)) {
		t.Fatalf("delivery %d, %s after the end of the lease", second.Deliveries, time.Since(extended.Expires))
	}
	post(t, address+"/leases/"+second.Lease+"/nack", "").want(http.StatusNoContent) // and so is a nack
	third := one(t, address)
	if third.Deliveries != 3 {
		t.Fatalf("delivery %d", third.Deliveries)
	}
	post(t, address+"/leases/"+third.Lease+"/nack", "").want(http.StatusNoContent)
	if d := one(t, p.at("Mailbox", "dead", "")); d.attribute(t, "wbreason") != "AttemptsExhausted" || d.attribute(t, "wbattempts") != "3" {
		t.Fatalf("got %s", d.Event)
	}
	none(t, address)

	code, out, _ := waybill(t, "validate", "-o", "json", "-f", manifest(t, broker, mailbox("short", "ackWait: 4999ms")))
	if code != 1 || !strings.Contains(out, `"field":"spec.ackWait"`) {
		t.Fatalf("exit code %d, %s", code, out)
	}
}

func TestALeaseCannotBeForgedOrUsedElsewhere(t *testing.T) {
	t.Parallel()
	says(t, "L14")
	documents := []string{mailbox("inbox"), mailbox("other"), "kind: Mailbox\nmetadata: {name: inbox, namespace: team}\nspec: {brokerRef: {name: main}}",
		"kind: Broker\nmetadata: {name: main, namespace: team}\nspec: {type: Embedded}"}
	p, q := serve(t, documents...), serve(t, documents...)
	address := p.at("Mailbox", "inbox", "")
	l, foreign := put(t, address, "1"), put(t, q.at("Mailbox", "inbox", ""), "1")
	raw, err := base64.RawURLEncoding.DecodeString(l.Lease)
	if err != nil || len(l.Lease) > 1024 || strings.Contains(string(raw), "ACK") || strings.Contains(string(raw), "inbox") {
		t.Fatalf("not opaque: %q, %v", l.Lease, err)
	}
	calls := []string{"ack", "nack", "reject", "reply", "extend"}
	refused := func(address, lease string) {
		t.Helper()
		for _, call := range calls {
			if detail := post(t, address+"/leases/"+lease+"/"+call, "").problem(http.StatusGone, "NoLease"); strings.Contains(detail, "ended") {
				t.Fatalf("told that it has ended: %s", detail)
			}
		}
	}
	refused(p.at("Mailbox", "other", ""), l.Lease)
	refused(p.at("Mailbox", "team/inbox", ""), l.Lease)
	refused(address, foreign.Lease) // of another process, with another key
	for _, lease := range []string{"x", l.Lease[:len(l.Lease)/2], l.Lease + "A", l.Lease[1:], strings.Repeat("A", 4096), strings.Repeat(l.Lease, 100), "%00"} {
		refused(address, lease)
	}
	for i := 0; i < len(raw); i += 5 { // one bit of each part: version, nonce, text, tag
		raw[i] ^= 1 << (i % 8)
		post(t, address+"/leases/"+base64.RawURLEncoding.EncodeToString(raw)+"/ack", "").problem(http.StatusGone, "NoLease")
		raw[i] ^= 1 << (i % 8)
	}
	post(t, address+"/leases//ack", "").problem(http.StatusNotFound, "NotFound")
	post(t, address+"/leases/"+l.Lease, "").problem(http.StatusNotFound, "NotFound")
	post(t, address+"/leases/"+l.Lease+"/ack/", "").problem(http.StatusNotFound, "NotFound")
	post(t, address+"/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent) // it was good all the time
	none(t, address)
	p.signal(os.Interrupt)
	if log := p.stderr.String() + p.lines(); strings.Contains(log, l.Lease) || strings.Contains(log, foreign.Lease) {
		t.Fatal("a lease was logged")
	}
}

func TestAnExtendedLeaseHasANewToken(t *testing.T) {
	t.Parallel()
	says(t, "L6", "L16")
	data := t.TempDir()
	file := manifest(t, broker, mailbox("inbox", "ackWait: 22s"))
	p := start(t, "-f", file, "--data", data).awaitUp()
	address := p.at("Mailbox", "inbox", "")
	old := []lent{put(t, address, "0"), put(t, address, "1")}
	anew := make([]lent, len(old))
	eventually(t, "most of the leases' time to pass", func() bool { return time.Until(old[1].Expires) < 2*time.Second })
	for i := range old {
		post(t, address+"/leases/"+old[i].Lease+"/extend", "").want(http.StatusOK).read(&anew[i])
		if anew[i].Lease == "" || anew[i].Lease == old[i].Lease || !anew[i].Expires.After(old[i].Expires) {
			t.Fatalf("extended to %+v", anew[i])
		}
	}
	eventually(t, "the first end to pass", func() bool { return time.Now().After(old[1].Expires) })
	post(t, address+"/leases/"+old[0].Lease+"/ack", "").want(http.StatusNoContent) // it knows of the extension
	post(t, address+"/leases/"+anew[0].Lease+"/nack", "").problem(http.StatusGone, "LeaseEnded")
	if code := p.signal(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d", code)
	}

	p = start(t, "-f", file, "--data", data).awaitUp()
	address = p.at("Mailbox", "inbox", "")
	none(t, address) // it is out still
	post(t, address+"/leases/"+old[1].Lease+"/ack", "").problem(http.StatusGone, "LeaseEnded")
	post(t, address+"/leases/"+anew[1].Lease+"/ack", "").want(http.StatusNoContent)
	none(t, address)
}

func TestALeaseOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	says(t, "L16", "C16")
	data := t.TempDir()
	file := manifest(t, broker, mailbox("inbox", "ackWait: 5m"), mailbox("strict", "ackWait: 5m", "ordering: Strict"))
	p := start(t, "-f", file, "--data", data).awaitUp()
	var leases []lent
	for i := range 3 {
		leases = append(leases, put(t, p.at("Mailbox", "inbox", ""), fmt.Sprint(i)))
	}
	strict := put(t, p.at("Mailbox", "strict", ""), "0")
	post(t, p.at("Mailbox", "strict", "/messages"), "x", "Idempotency-Key", "1").want(http.StatusAccepted)
	if code := p.signal(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d", code)
	}

	p = start(t, "-f", file, "--data", data).awaitUp()
	address := p.at("Mailbox", "inbox", "")
	none(t, address) // all three are out still
	none(t, p.at("Mailbox", "strict", ""))
	post(t, address+"/leases/"+leases[0].Lease+"/ack", "").want(http.StatusNoContent)
	post(t, address+"/leases/"+leases[1].Lease+"/extend", "").want(http.StatusOK)
	post(t, address+"/leases/"+leases[2].Lease+"/nack", "").want(http.StatusNoContent)
	if l := one(t, address); l.attribute(t, "id") != "2" || l.Deliveries != 2 {
		t.Fatalf("got %+v", l)
	}
	post(t, p.at("Mailbox", "strict", "/leases/"+strict.Lease+"/ack"), "").want(http.StatusNoContent)
	if l := one(t, p.at("Mailbox", "strict", "")); l.attribute(t, "id") != "1" {
		t.Fatalf("got %+v", l)
	}

	// Killed, the process may have lost what was out, but no message: a lease is good, or has ended and its message comes again.
	lease := leases[1]
	p.signal(os.Kill)
	p = start(t, "-f", file, "--data", data).awaitUp()
	address = p.at("Mailbox", "inbox", "")
	switch a := post(t, address+"/leases/"+lease.Lease+"/ack", ""); a.status {
	case http.StatusNoContent:
	default:
		a.problem(http.StatusGone, "LeaseEnded")
		ids := map[string]bool{}
		for range 2 {
			ids[one(t, address).attribute(t, "id")] = true
		}
		if !ids["1"] || !ids["2"] {
			t.Fatalf("got %v", ids)
		}
	}
}
