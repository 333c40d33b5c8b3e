package contract

import (
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestADrainTellsReadinessAndEndsInTime(t *testing.T) {
	t.Parallel()
	says(t, "C16", "A5")
	release := make(chan struct{})
	subscriber := subscribe(t, func(w http.ResponseWriter, p pushed) {
		if p.path == "/hangs" || p.path == "/in" && p.header.Get("Ce-Id") == "slow" {
			<-release
		}
		w.WriteHeader(http.StatusNoContent)
	})
	data := t.TempDir()
	file := func(name string) string {
		return manifest(t, append([]string{broker}, route{name: name, own: true, spec: []string{"startFrom: {position: Earliest}", "ackWait: 2s"}}.documents(subscriber.URL)...)...)
	}
	p := start(t, "-f", file("in"), "--data", data, "--drain", "30s").awaitUp()
	r := &rig{process: p, subscriber: subscriber}
	hanging := start(t, "-f", file("hangs"), "--ephemeral", "--drain", "500ms").awaitUp()
	t.Cleanup(func() {
		select {
		case <-release:
		default:
			close(release)
		}
	})
	r.publish("in", "slow")
	post(t, hanging.at("Topic", "hangs", "/"), "x", "Idempotency-Key", "1").want(http.StatusAccepted)
	subscriber.await(2)

	// A push goes on: the process is not ready, takes nothing more, says so, and ends when it is done.
	send(t, http.MethodGet, p.root("/readyz"), "").want(http.StatusOK)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "/readyz to tell of the drain", func() bool {
		a := send(t, http.MethodGet, p.root("/readyz"), "")
		return a.status == http.StatusServiceUnavailable && strings.Contains(a.body, "draining")
	})
	send(t, http.MethodGet, p.root("/healthz"), "").want(http.StatusOK)
	eventually(t, "the gateway to refuse", func() bool {
		a := post(t, p.at("Topic", "in", "/"), "late", "Idempotency-Key", "late")
		return a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") != "" && strings.Contains(a.body, "ShuttingDown")
	})

	// One that hangs is cut when the time is over, and comes again.
	began := time.Now()
	code := hanging.signal(syscall.SIGTERM)
	if took := time.Since(began); code != 3 || took > 10*time.Second {
		t.Errorf("a push that hangs past --drain 500ms: exit code %d after %v", code, took)
	}
	t.Logf("a drain of 500ms took %v", time.Since(began))

	close(release)
	if code := p.exitCode(); code != 0 {
		t.Errorf("exit code %d after a drain that finished its push", code)
	}
	if n := count(subscriber.all(), "slow"); n != 1 {
		t.Errorf("the push that the drain finished came %d times", n)
	}
}

// What a drain hands back comes at once in the next run, however long it would have been out or set aside: much sooner than in ten minutes.
func TestWhatADrainHandsBackComesAgainAtOnce(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]int{"hangs": 3, "later": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			says(t, "C15", "C16")
			release := make(chan struct{})
			var pushes atomic.Int32
			subscriber := subscribe(t, func(w http.ResponseWriter, _ pushed) {
				switch {
				case pushes.Add(1) > 1:
					w.WriteHeader(http.StatusNoContent)
				case name == "hangs":
					<-release
				default:
					w.Header().Set("Retry-After", "600")
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			})
			t.Cleanup(func() { close(release) })
			data := t.TempDir()
			to := route{name: name, own: true, spec: []string{"ordering: None", "ackWait: 10m", "startFrom: {position: Earliest}"}}
			file := manifest(t, append([]string{broker}, to.documents(subscriber.URL)...)...)
			p := start(t, "-f", file, "--data", data, "--drain", "1s").awaitUp()
			post(t, p.at("Topic", name, "/"), "x", "Idempotency-Key", "1").want(http.StatusAccepted)
			subscriber.await(1)
			if name == "later" {
				eventually(t, "the message to be set aside", func() bool { return p.status("Subscription", name).Counts.Held == 1 })
			}
			if got := p.signal(syscall.SIGTERM); got != code {
				t.Errorf("exit code %d, want %d\n%s", got, code, p.lines())
			}

			p = start(t, "-f", file, "--data", data).awaitUp()
			if again := subscriber.await(2)[1]; again.header.Get("Ce-Id") != "1" {
				t.Errorf("another message came: %v", again.header)
			}
			if got := p.signal(syscall.SIGTERM); got != 0 {
				t.Errorf("exit code %d at the end\n%s", got, p.lines())
			}
		})
	}
}

// The one attempt of AtMostOnce that is cut off does not come again: nothing may say so.
func TestADrainCountsWhatAtMostOnceLoses(t *testing.T) {
	t.Parallel()
	says(t, "C9", "P14")
	hang := make(chan struct{})
	sub := subscribe(t, func(http.ResponseWriter, pushed) { <-hang })
	t.Cleanup(func() { close(hang) })
	p := start(t, "-f", manifest(t, broker, "kind: Topic\nmetadata: {name: orders}\nspec: {brokerRef: {name: main}}",
		"kind: Subscription\nmetadata: {name: s}\nspec: {topicRef: {name: orders}, guarantee: AtMostOnce, ordering: None, deliverTo: {uri: '"+sub.URL+"'}}"),
		"--data", t.TempDir(), "--drain", "300ms").awaitUp()
	for range 4 {
		post(t, p.at("Topic", "orders", ""), "x").want(http.StatusAccepted)
	}
	sub.await(4)
	if code := p.signal(syscall.SIGTERM); code != 3 || !strings.Contains(p.lines(), `{"event":"drained","finished":0,"released":0,"lost":4,"complete":false}`) {
		t.Errorf("exit code %d\n%s", code, p.lines())
	}
}
