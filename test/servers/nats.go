package servers

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/waybill-dev/waybill/test/laptop"
)

// NATS is a nats-server with JetStream, in a process of its own.
type NATS struct {
	t      testing.TB
	binary string
	dir    string
	port   int
	sync   string
	log    bytes.Buffer
	cmd    *exec.Cmd
	done   chan struct{}
}

// StartNATS starts a server that is killed at the end of the test. What it has confirmed is on disk. The package's TestMain must be
// laptop.Main.
func StartNATS(t testing.TB) *NATS {
	t.Helper()
	return startNATS(t, "always")
}

// StartFastNATS starts one that syncs its files every two minutes, as nats-server does unless it is told otherwise.
func StartFastNATS(t testing.TB) *NATS {
	t.Helper()
	return startNATS(t, "2m")
}

func startNATS(t testing.TB, sync string) *NATS {
	t.Helper()
	n := &NATS{t: t, sync: sync, binary: laptop.Build(t, "github.com/nats-io/nats-server/v2"), dir: t.TempDir(), port: freePort(t)}
	t.Cleanup(n.Kill)
	n.Start()
	return n
}

// URL is where it is.
func (n *NATS) URL() string { return "nats://127.0.0.1:" + strconv.Itoa(n.port) }

// Start starts it on the port and the data that it had, and waits until it takes connections and JetStream answers.
func (n *NATS) Start() {
	n.t.Helper()
	n.log.Reset()
	cmd := exec.Command(n.binary, "-a", "127.0.0.1", "-p", strconv.Itoa(n.port), "-c", n.config())
	cmd.Stderr = &n.log
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	done := make(chan struct{})
	n.cmd, n.done = cmd, done
	go func() {
		_ = cmd.Wait() // a killed one ends with an error
		close(done)
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !n.answers() {
		select {
		case <-tick.C:
		case <-done:
			n.t.Fatalf("nats-server ended:\n%s", n.log.String())
		case <-deadline:
			n.t.Fatal("nats-server does not answer after a minute")
		}
	}
}

func (n *NATS) answers() bool {
	c, err := nats.Connect(n.URL(), nats.Timeout(time.Second), nats.NoReconnect())
	if err != nil {
		return false
	}
	defer c.Close()
	_, err = c.Request("$JS.API.INFO", nil, time.Second)
	return err == nil
}

// config is a file, for what has no flag.
func (n *NATS) config() string {
	path := filepath.Join(n.dir, "server.conf")
	if err := os.WriteFile(path, fmt.Appendf(nil, "jetstream { store_dir: %q, sync_interval: %q }\n", n.dir, n.sync), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return path
}

// Kill ends it as kill -9 does. Its data stay.
func (n *NATS) Kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill() // it may have ended
	<-n.done
	n.cmd = nil
}

// Pid is its process.
func (n *NATS) Pid() int { return n.cmd.Process.Pid }

// FreeAddress is an address on loopback that nobody listens on.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
}
