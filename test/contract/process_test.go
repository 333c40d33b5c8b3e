package contract

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// An event is one line of `waybill run -o json`.
type event struct {
	Event      string `json:"event"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	Address    string `json:"address"`
	Guarantee  string `json:"guarantee"`
	Ordering   string `json:"ordering"`
	DeadLetter string `json:"deadLetter"`

	raw string
}

// A process is a `waybill run -o json`.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr bytes.Buffer // read it when ended is closed
	up     chan struct{}
	ended  chan struct{}

	mu     sync.Mutex
	events []event
}

// broker is the Broker that the tests' manifests name.
const broker = `
apiVersion: waybill.dev/v1alpha1
kind: Broker
metadata: {name: main}
spec: {type: Embedded}
`

// manifest writes documents to a file. They may leave apiVersion out: a document without one is Waybill's own.
func manifest(t *testing.T, documents ...string) string {
	t.Helper()
	var b strings.Builder
	for _, d := range documents {
		if !strings.Contains(d, "apiVersion:") {
			d = "apiVersion: waybill.dev/v1alpha1\n" + strings.TrimLeft(d, "\n")
		}
		b.WriteString("---\n" + strings.TrimLeft(d, "\n") + "\n")
	}
	path := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// serve runs documents and a Broker "main" on the embedded broker, on a port of their own, and waits until all is up.
func serve(t *testing.T, documents ...string) *process {
	t.Helper()
	return start(t, "-f", manifest(t, append([]string{broker}, documents...)...), "--ephemeral").awaitUp()
}

// start runs `waybill run -o json` with a port of its own, unless args name one. What still runs at the end of the test is killed.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	args = append([]string{"run", "-o", "json"}, args...)
	if !strings.Contains(strings.Join(args, " "), "--port") {
		args = append(args, "--port", "0")
	}
	p := &process{t: t, cmd: exec.Command(binary, args...), up: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Dir = t.TempDir() // its state would lie there
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			e := event{raw: lines.Text()}
			_ = json.Unmarshal(lines.Bytes(), &e) // what is no JSON stays in raw
			p.mu.Lock()
			p.events = append(p.events, e)
			p.mu.Unlock()
			if e.Event == "up" {
				close(p.up)
			}
		}
		_ = p.cmd.Wait() // the exit code is in ProcessState
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if strings.Contains(p.stderr.String(), "DATA RACE") {
			t.Errorf("a data race:\n%s", p.stderr.String())
		} else if t.Failed() {
			t.Logf("waybill's log:\n%s", p.stderr.String())
		}
	})
	return p
}

func (p *process) awaitUp() *process {
	p.t.Helper()
	select {
	case <-p.up:
	case <-p.ended:
		p.t.Fatalf("ended with %d before it was up:\n%s\n%s", p.cmd.ProcessState.ExitCode(), p.lines(), p.stderr.String())
	case <-time.After(time.Minute):
		p.t.Fatal("not up after a minute")
	}
	return p
}

// signal sends a signal and returns the exit code, -1 for a killed process.
func (p *process) signal(s os.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	return p.exitCode()
}

// exitCode waits for the end. It is what a shell says: 128 and the signal of a process that a signal ended.
func (p *process) exitCode() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		p.t.Fatal("still runs after a minute")
	}
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal())
	}
	return p.cmd.ProcessState.ExitCode()
}

// seen are the lines of stdout until now.
func (p *process) seen() []event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]event(nil), p.events...)
}

func (p *process) lines() string {
	var b strings.Builder
	for _, e := range p.seen() {
		fmt.Fprintln(&b, e.raw)
	}
	return b.String()
}

// ready is the ready line of a resource: of the namespace default, unless name is NAMESPACE/NAME.
func (p *process) ready(kind, name string) event {
	p.t.Helper()
	namespace := "default"
	if ns, n, ok := strings.Cut(name, "/"); ok {
		namespace, name = ns, n
	}
	for _, e := range p.seen() {
		if e.Event == "ready" && e.Kind == kind && e.Namespace == namespace && e.Name == name {
			return e
		}
	}
	p.t.Fatalf("no ready line for %s %s/%s in\n%s", kind, namespace, name, p.lines())
	return event{}
}

// at is a path below the address of a resource.
func (p *process) at(kind, name, path string) string {
	p.t.Helper()
	return p.ready(kind, name).Address + path
}

// waybill runs a command that ends by itself.
func waybill(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}
