// Package laptop runs `waybill run` in a process of its own, as a user would, for tests that talk to it from outside: it is built once for
// the tests of a package, started, drained, killed, and started again with the same arguments.
package laptop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a start or an end may take on a loaded machine.
const patience = time.Minute

// An Event is one line of `waybill run -o json`.
type Event struct {
	Event      string // ready, up, drained; "" for a line that is no event
	Kind       string
	Namespace  string
	Name       string
	Address    string
	Guarantee  string
	Ordering   string
	DeadLetter string

	// Of drained.
	Finished, Released, Lost int
	Complete                 bool

	Raw string `json:"-"` // the line itself
}

// A Laptop is a `waybill run -o json` on a port of its own, or none at the moment. Its methods may be called from several goroutines, but
// one of them at a time starts and ends it.
type Laptop struct {
	t    testing.TB
	args []string

	// Plain starts a program without the race detector, for tests that measure. Env is added to the environment. Set them before the start.
	Plain bool
	Env   []string
	// Log, where it is set, gets what each process writes to standard error too.
	Log io.Writer

	mu      sync.Mutex
	life    *life
	address map[string]string // KIND/NAMESPACE/NAME as last announced: what has ended is still asked for
}

// A life is one process.
type life struct {
	cmd   *exec.Cmd
	up    chan struct{}
	ended chan struct{} // closed when it has ended and all that it wrote was read

	mu     sync.Mutex
	events []Event
	errors tail
}

// New names the arguments of `waybill run`, without starting it: it has a port of its own unless they name one. What still runs at the end
// of the test is killed; a data race or a panic in any of its processes fails the test.
func New(t testing.TB, args ...string) *Laptop {
	t.TempDir() // the first one orders their removal: after the process has ended, whatever lies in one
	l := &Laptop{t: t, address: map[string]string{}}
	l.Arguments(args...)
	t.Cleanup(func() {
		if p := l.now(); p != nil {
			_ = p.cmd.Process.Kill()
			<-p.ended
			l.look(p)
			if t.Failed() {
				t.Logf("the log of waybill:\n%s", p.stderr())
			}
		}
	})
	return l
}

// Start is New, with documents of a manifest in a file of their own, and Up.
func Start(t testing.TB, documents string, args ...string) *Laptop {
	t.Helper()
	return New(t, append([]string{"-f", Manifest(t, documents)}, args...)...).Up()
}

// Manifest writes documents into a file. One without apiVersion is Waybill's.
func Manifest(t testing.TB, documents string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifest.yaml")
	Rewrite(t, path, documents)
	return path
}

// Rewrite writes other documents into the file, for the next start.
func Rewrite(t testing.TB, path, documents string) {
	t.Helper()
	var b strings.Builder
	for d := range strings.SplitSeq(documents, "\n---\n") {
		d = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(d), "---"))
		if d == "" {
			continue
		}
		if !strings.Contains(d, "apiVersion:") {
			d = "apiVersion: waybill.dev/v1alpha1\n" + d
		}
		fmt.Fprintf(&b, "---\n%s\n", d)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Arguments replaces the arguments for the next start.
func (l *Laptop) Arguments(args ...string) {
	l.args = append([]string{"run", "-o", "json"}, args...)
	for _, a := range args {
		if a == "--port" || strings.HasPrefix(a, "--port=") {
			return
		}
	}
	l.args = append(l.args, "--port", "0")
}

// Launch starts a process and does not wait until it is up.
func (l *Laptop) Launch() *Laptop {
	l.t.Helper()
	flags := raceFlags
	if l.Plain {
		flags = nil
	}
	cmd := exec.Command(Build(l.t, "./cmd/waybill", flags...), l.args...)
	cmd.Env = append(os.Environ(), l.Env...)
	cmd.Dir = l.t.TempDir() // its state would lie there
	p := &life{cmd: cmd, up: make(chan struct{}), ended: make(chan struct{})}
	cmd.Stderr = &p.errors
	if l.Log != nil {
		fmt.Fprintf(l.Log, "--- started at %s\n", time.Now().Format(time.RFC3339Nano))
		cmd.Stderr = io.MultiWriter(&p.errors, l.Log)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	l.life = p
	l.mu.Unlock()
	go l.follow(p, out)
	return l
}

func (l *Laptop) follow(p *life, out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e Event
		_ = json.Unmarshal(lines.Bytes(), &e) // what is no JSON stays in Raw
		e.Raw = lines.Text()
		p.mu.Lock()
		p.events = append(p.events, e)
		p.mu.Unlock()
		switch e.Event {
		case "ready":
			l.mu.Lock()
			l.address[e.Kind+"/"+e.Namespace+"/"+e.Name] = e.Address
			l.mu.Unlock()
		case "up":
			close(p.up)
		}
	}
	_ = p.cmd.Wait() // the exit code is in ProcessState
	close(p.ended)
}

// Up starts a process and waits until all that starts is up.
func (l *Laptop) Up() *Laptop {
	l.t.Helper()
	return l.Launch().AwaitUp()
}

// AwaitUp waits until all is up that starts.
func (l *Laptop) AwaitUp() *Laptop {
	l.t.Helper()
	p := l.now()
	select {
	case <-p.up:
	case <-p.ended:
		l.t.Fatalf("waybill ended with %d before it was up:\n%s\n%s", p.cmd.ProcessState.ExitCode(), l.Output(), p.stderr())
	case <-time.After(patience):
		l.t.Fatalf("waybill is not up after %s:\n%s\n%s", patience, l.Output(), p.stderr())
	}
	return l
}

// Kill ends it as kill -9 does.
func (l *Laptop) Kill() {
	l.t.Helper()
	l.Signal(syscall.SIGKILL)
}

// Drain ends it by SIGTERM and returns the exit code and what it said at its end.
func (l *Laptop) Drain() (code int, drained Event) {
	l.t.Helper()
	code = l.Signal(syscall.SIGTERM)
	for _, e := range l.Events() {
		if e.Event == "drained" {
			drained = e
		}
	}
	return code, drained
}

// Signal sends a signal, waits for the end and returns the exit code, -1 for a process that was killed.
func (l *Laptop) Signal(s os.Signal) int {
	l.t.Helper()
	if err := l.now().cmd.Process.Signal(s); err != nil {
		l.t.Fatalf("waybill ended by itself: %v\n%s", err, l.now().stderr())
	}
	return l.ExitCode()
}

// ExitCode waits for the end and returns the exit code, -1 for a process that was killed.
func (l *Laptop) ExitCode() int {
	l.t.Helper()
	p := l.now()
	select {
	case <-p.ended:
	case <-time.After(patience):
		l.t.Fatalf("waybill still runs after %s:\n%s", patience, p.stderr())
	}
	l.look(p)
	return p.cmd.ProcessState.ExitCode()
}

// Ended is closed when the process has ended.
func (l *Laptop) Ended() <-chan struct{} { return l.now().ended }

// Pid is its process.
func (l *Laptop) Pid() int { return l.now().cmd.Process.Pid }

// Events are the lines of its standard output until now.
func (l *Laptop) Events() []Event {
	p := l.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Event(nil), p.events...)
}

// Output is its standard output until now.
func (l *Laptop) Output() string {
	var b strings.Builder
	for _, e := range l.Events() {
		b.WriteString(e.Raw + "\n")
	}
	return b.String()
}

// Errors is the end of its standard error until now.
func (l *Laptop) Errors() string { return l.now().stderr() }

// Address is where a resource is served: one of the namespace default, unless name is NAMESPACE/NAME. While no process runs it is where the
// resource was served last; "" for one that never was.
func (l *Laptop) Address(kind, name string) string {
	if !strings.Contains(name, "/") {
		name = "default/" + name
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.address[kind+"/"+name]
}

func (l *Laptop) now() *life {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.life
}

// look fails the test for what no process may do.
func (l *Laptop) look(p *life) {
	l.t.Helper()
	said := p.stderr()
	for _, sign := range []string{"DATA RACE", "\npanic: ", "fatal error: "} {
		if strings.Contains(said, sign) {
			l.t.Errorf("waybill wrote %q:\n%s", strings.TrimSpace(sign), said)
			return
		}
	}
}

func (p *life) stderr() string { return p.errors.String() }

// A tail keeps the end of what is written.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailBytes = 256 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - tailBytes; over > tailBytes {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
