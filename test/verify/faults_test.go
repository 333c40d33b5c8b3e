package verify_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/test/verify"
)

var (
	seed   = flag.Uint64("verify.seed", uint64(time.Now().UnixNano()), "what decides the faults")
	faults = flag.Int("verify.faults", 6, "how many faults are injected")
)

const documents = `
apiVersion: waybill.dev/v1alpha1
kind: Broker
metadata: {name: main}
spec: {type: Embedded}
---
apiVersion: waybill.dev/v1alpha1
kind: Topic
metadata: {name: orders}
spec: {brokerRef: {name: main}}
---
apiVersion: waybill.dev/v1alpha1
kind: Subscription
metadata: {name: pushed}
spec:
  topicRef: {name: orders}
  startFrom: {position: Earliest}
  ordering: Key
  deliverTo: {uri: %q}
  retry: {backOff: {initial: 50ms, max: 1s}}
---
apiVersion: waybill.dev/v1alpha1
kind: Subscription
metadata: {name: kept}
spec:
  topicRef: {name: orders}
  startFrom: {position: Earliest}
  deliverTo: {mailboxRef: {name: kept}}
---
apiVersion: waybill.dev/v1alpha1
kind: Mailbox
metadata: {name: kept}
spec: {brokerRef: {name: main}, ackWait: 5s}
`

// Messages of many keys go through a Topic to a subscriber that is pushed to and to a mailbox, while the process is killed and stopped at
// random moments.
func TestNothingIsLostWhenTheProcessDies(t *testing.T) {
	t.Logf("replay with -verify.seed=%d", *seed)
	random := rand.New(rand.NewPCG(*seed, 0))
	record := new(verify.Record)
	subscriber := httptest.NewServer(verify.Subscriber("pushed", record, nil))
	t.Cleanup(subscriber.Close)
	dir := t.TempDir()
	file := filepath.Join(dir, "manifest.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, documents, subscriber.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &waybill{t: t, binary: build(t), args: []string{"-f", file, "--data", filepath.Join(dir, "data"), "--drain", "2s"}}
	w.start()

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	publishing, stopPublishing := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		verify.Publish(publishing, record, verify.Traffic{Run: fmt.Sprint(*seed), Keys: 8, Pause: time.Millisecond, To: func() string { return w.at("topics/orders") }})
	})
	receiving, stopReceiving := context.WithCancel(ctx)
	work.Go(func() { verify.Receive(receiving, "kept", record, func() string { return w.at("mailboxes/kept") }) })

	for range *faults {
		select {
		case <-time.After(time.Duration(100+random.IntN(1500)) * time.Millisecond): // a fault comes when it comes
		case <-ctx.Done():
		}
		if random.IntN(3) == 0 {
			w.end(syscall.SIGTERM)
		} else {
			w.end(syscall.SIGKILL)
		}
		w.start()
	}
	stopPublishing()
	for _, observer := range []string{"pushed", "kept"} {
		if err := verify.Await(ctx, record, observer); err != nil {
			t.Error(err)
		}
	}
	stopReceiving()
	work.Wait()

	h := record.History()
	promises := map[string]verify.Promise{"pushed": {Ordered: true}, "kept": {}}
	for _, v := range verify.Judge(h, "pushed", "kept") {
		t.Attr("report", fmt.Sprintf("%d faults, %d published: %s", *faults, len(h.Publications), &v))
		if fault := v.Broken(promises[v.Observer]); fault != "" {
			t.Error(fault)
		}
	}
	if t.Failed() {
		keep(t, h)
	}
}

// keep writes a history where it outlives the test.
func keep(t *testing.T, h *verify.History) {
	f, err := os.CreateTemp("", "waybill-history-*.jsonl") //nolint:usetesting // it outlives the test
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := h.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	t.Logf("the history is in %s", f.Name())
}

func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "waybill")
	cmd := exec.Command("go", "build", "-race", "-o", binary, "./cmd/waybill")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// A waybill is a `waybill run` that is started again and again.
type waybill struct {
	t      *testing.T
	binary string
	args   []string
	base   atomic.Value // http://HOST:PORT/default/
	cmd    *exec.Cmd
	ended  chan struct{}
}

func (w *waybill) at(path string) string { return w.base.Load().(string) + path }

func (w *waybill) start() {
	w.t.Helper()
	cmd := exec.Command(w.binary, append([]string{"run", "-o", "json", "--port", "0"}, w.args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended, up := make(chan struct{}), make(chan struct{})
	w.cmd, w.ended = cmd, ended
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var e struct{ Event, Kind, Address string }
			if json.Unmarshal(lines.Bytes(), &e) != nil {
				continue
			}
			if e.Kind == "Topic" {
				w.base.Store(e.Address[:len(e.Address)-len("topics/orders")])
			}
			if e.Event == "up" {
				close(up)
			}
		}
		_ = cmd.Wait() // a killed one ends with an error
	}()
	select {
	case <-up:
	case <-ended:
		w.t.Fatalf("it ended before it was up:\n%s", stderr.String())
	case <-time.After(time.Minute):
		w.t.Fatal("it is not up after a minute")
	}
}

// end ends it with a signal and waits for that.
func (w *waybill) end(s os.Signal) {
	w.t.Helper()
	if err := w.cmd.Process.Signal(s); err != nil {
		w.t.Fatal(err)
	}
	select {
	case <-w.ended:
	case <-time.After(time.Minute):
		w.t.Fatalf("it still runs a minute after %s", s)
	}
}
