package contract

import (
	"net/http"
	"strings"
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
