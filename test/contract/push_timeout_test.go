package contract

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestATimeoutIsTheDestinationsFault(t *testing.T) {
	t.Parallel()
	says(t, "P7")
	release := make(chan struct{})
	retry := "retry: {maxAttempts: 2, " + soon + "}"
	silent := func(_ http.ResponseWriter, _ pushed, _ int) { <-release }
	routes := []route{
		{name: "silent", spec: []string{retry, "timeout: 200ms"}, answer: silent},
		{name: "dripping", spec: []string{retry, "timeout: 200ms"}, uri: newDrippingServer(t)}, // a head without an end
		{name: "slow", spec: []string{retry, "timeout: 2s"}, answer: func(w http.ResponseWriter, _ pushed, _ int) {
			<-time.After(300 * time.Millisecond)
			w.WriteHeader(http.StatusNoContent)
		}},
		{name: "others", spec: []string{retry, "timeout: 200ms"}, answer: func(w http.ResponseWriter, p pushed, n int) {
			if p.header.Get("Ce-Id") == "hangs" {
				silent(w, p, n)
			}
			w.WriteHeader(http.StatusNoContent)
		}},
		{name: "thirty", spec: []string{retry}, answer: func(w http.ResponseWriter, _ pushed, n int) {
			if n == 1 {
				<-release
			}
			w.WriteHeader(http.StatusNoContent)
		}},
	}
	r := push(t, routes)
	t.Cleanup(func() { close(release) }) // before the subscriber is closed, which waits for its answers
	r.publish("thirty", "one")
	for _, name := range []string{"silent", "dripping", "slow"} {
		r.publish(name, "one")
	}
	for _, id := range []string{"a", "hangs", "b", "c"} {
		r.publish("others", id)
	}
	for _, name := range []string{"silent", "dripping", "others"} {
		d := r.dead(name, 1)[0]
		if text := d.attribute(t, "wblasterror"); d.attribute(t, "wbreason") != "AttemptsExhausted" || d.attribute(t, "wbattempts") != "2" || !strings.Contains(text, "did not answer within 200ms") {
			t.Errorf("%s: dead-lettered as %s", name, d.Event)
		}
	}
	for _, gap := range gaps(r.pushes("silent")) {
		if gap < 100*time.Millisecond || gap > 5*time.Second { // between arrivals: the first may have been on its way for a part of its timeout
			t.Errorf("the next attempt came %v after the first", gap)
		}
	}
	if s := r.outcome("slow"); s.Counts.Out != 1 || s.Counts.Retried != 0 {
		t.Errorf("an answer within the timeout: %+v", s)
	}
	if s := r.settled("others"); s.Counts.Out != 3 || s.Counts.DeadLettered != 1 {
		t.Errorf("beside a message that hangs: %+v", s)
	}
	// 30s unless set.
	if n := len(r.pushes("thirty")); n != 1 {
		t.Errorf("%d pushes, want one that still waits", n)
	}
	code, out, _ := waybill(t, "compile", "-f", manifest(t, append([]string{broker}, route{name: "x", uri: "http://example.com"}.documents("")...)...), "-o", "json")
	if code != 0 || !strings.Contains(out, `"timeout":"30s"`) {
		t.Errorf("compile (%d) does not say that the timeout is 30s: %s", code, out)
	}
}

func TestAckWaitIsExtendedAndIsForLostWorkers(t *testing.T) {
	t.Parallel()
	says(t, "P8")
	long := make(chan struct{})
	subscriber := subscribe(t, func(w http.ResponseWriter, p pushed) {
		switch p.header.Get("Ce-Id") {
		case "long":
			<-time.After(3500 * time.Millisecond)
		case "lost":
			<-long
		}
		w.WriteHeader(http.StatusNoContent)
	})
	data, file := t.TempDir(), manifest(t, append([]string{broker}, route{name: "in", spec: []string{"ackWait: 1s", "startFrom: {position: Earliest}"}}.documents(subscriber.URL)...)...)
	p := start(t, "-f", file, "--data", data).awaitUp()
	r := &rig{process: p, subscriber: subscriber}
	r.publish("in", "long")
	eventually(t, "the long push to be done", func() bool { return r.subscription("in").Counts.Out == 1 })
	if s := r.subscription("in"); s.Counts.In != 1 || count(subscriber.all(), "long") != 1 {
		t.Errorf("a push of 3.5 s with an ackWait of 1 s: %d pushes, %+v", count(subscriber.all(), "long"), s)
	}
	r.publish("in", "lost")
	subscriber.await(2)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.ended
	close(long)
	killed := time.Now()
	again := start(t, "-f", file, "--data", data).awaitUp()
	// What was acknowledged in the moment of the kill may come again too: the server need not have written that yet.
	eventually(t, "the lost one to come again", func() bool { return count(subscriber.all(), "lost") == 2 })
	all := subscriber.all()
	if last := slices.IndexFunc(all, func(p pushed) bool { return p.at.After(killed) && p.header.Get("Ce-Id") == "lost" }); all[last].at.Sub(killed) > 15*time.Second {
		t.Errorf("a lost worker's message came again after %v", all[last].at.Sub(killed))
	}
	eventually(t, "the lost one to be done", func() bool { return again.status("Subscription", "in").Counts.Out >= 1 })
}
