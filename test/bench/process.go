package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/waybill-dev/waybill/runtime/plan"
)

// A task is what a process is told on its standard input, as the first line.
type task struct {
	URL      string // of the broker
	Server   string // of the parent's HTTP server
	Messages int
	Sync     bool
	Profile  string
	Plans    []*plan.Plan
}

// A report is a line that a process writes to its standard output. Any further line of its input asks for one with its allocations.
type report struct {
	Ready   bool   `json:"ready,omitempty"`
	Address string `json:"address,omitempty"`
	Done    bool   `json:"done,omitempty"`
	Mallocs uint64 `json:"mallocs,omitempty"`
	Error   string `json:"error,omitempty"`
}

// A process is this program in another role.
type process struct {
	address string
	cmd     *exec.Cmd
	in      io.WriteCloser
	reports chan report
	done    chan struct{} // its work is done
}

func startProcess(ctx context.Context, role string, t task) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, self, "-role", role), reports: make(chan report, 4), done: make(chan struct{})}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.follow(out)
	first, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	if err := p.tell(string(first)); err != nil {
		return nil, err
	}
	r, err := p.next(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", role, err), p.end())
	}
	p.address = r.Address
	return p, nil
}

func (p *process) follow(out io.Reader) {
	defer close(p.reports)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			r.Error = lines.Text()
		}
		if r.Done {
			close(p.done)
			continue
		}
		p.reports <- r
	}
}

func (p *process) tell(line string) error {
	_, err := io.WriteString(p.in, line+"\n")
	return err
}

func (p *process) next(ctx context.Context) (report, error) {
	select {
	case r, ok := <-p.reports:
		if !ok {
			return report{}, errors.New("the process ended")
		}
		if r.Error != "" {
			return report{}, errors.New(r.Error)
		}
		return r, nil
	case <-ctx.Done():
		return report{}, ctx.Err()
	}
}

// await waits until the process has said that its work is done.
func (p *process) await(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case r := <-p.reports:
		return fmt.Errorf("the process ended: %s", r.Error)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end closes its input, which ends it, and waits for that.
func (p *process) end() error {
	err := p.in.Close()
	for r := range p.reports {
		if r.Error != "" {
			return errors.New(r.Error)
		}
	}
	return errors.Join(err, p.cmd.Wait())
}

// figures are what a process and the broker have used since they began.
type figures struct {
	own, broker             float64 // CPU seconds
	ownMemory, brokerMemory float64 // peak RSS, MiB
	mallocs                 uint64
}

func (r *round) figures(broker *process) (f figures, err error) {
	if err := r.process.tell("figures"); err != nil {
		return figures{}, err
	}
	rep, err := r.process.next(context.Background())
	if err != nil {
		return figures{}, err
	}
	f.mallocs = rep.Mallocs
	if f.own, f.ownMemory, err = used(r.process.cmd.Process.Pid); err != nil {
		return figures{}, err
	}
	f.broker, f.brokerMemory, err = used(broker.cmd.Process.Pid)
	return f, err
}

// used reads a process's CPU time and peak memory from /proc, see proc(5).
func used(pid int) (seconds, mib float64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := bytes.Cut(stat, []byte(") ")) // the name may hold blanks
	fields := strings.Fields(string(rest))
	const utime, stime, ticks = 11, 12, 100 // USER_HZ is 100 on every Linux that Go runs on
	for _, i := range []int{utime, stime} {
		n, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return 0, 0, err
		}
		seconds += n / ticks
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &mib); err == nil {
			return seconds, mib / 1024, nil
		}
	}
	return 0, 0, errors.New("no VmHWM in /proc")
}

// A worker is a process from the inside.
type worker struct {
	task
	begun chan struct{} // closed when the parent has read the first figures
	mu    sync.Mutex
	out   *json.Encoder
}

// begin waits until the parent looks on.
func (w *worker) begin(ctx context.Context) error {
	select {
	case <-w.begun:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *worker) say(r report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.out.Encode(r); err != nil {
		fatal(err)
	}
}

// ready says that work may begin.
func (w *worker) ready(address string) { w.say(report{Ready: true, Address: address}) }

// finish says that all is done, and waits to be told to end.
func (w *worker) finish(ctx context.Context) error {
	w.say(report{Done: true})
	<-ctx.Done()
	return nil
}

// play is what a process does that was started in a role.
func play(role string) error {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	w := &worker{out: json.NewEncoder(os.Stdout), begun: make(chan struct{})}
	if !in.Scan() {
		return errors.New("no task on standard input")
	}
	if err := json.Unmarshal(in.Bytes(), &w.task); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		for asked := 0; in.Scan(); asked++ {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			w.say(report{Mallocs: m.Mallocs})
			if asked == 0 {
				close(w.begun)
			}
		}
	}()
	if w.Profile != "" {
		f, err := os.Create(w.Profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if err := w.perform(ctx, role); err != nil {
		w.say(report{Error: err.Error()})
	}
	return nil
}

func (w *worker) perform(ctx context.Context, role string) error {
	if role == "broker" {
		return broker(ctx, w)
	}
	for _, j := range jobs() {
		for _, c := range j.contenders {
			if role == j.name+"/"+c.name {
				return c.work(ctx, w)
			}
		}
	}
	return fmt.Errorf("no role %q", role)
}

func broker(ctx context.Context, w *worker) error {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer remove(dir)
	srv, err := server.NewServer(&server.Options{JetStream: true, StoreDir: dir, Port: server.RANDOM_PORT, Host: "127.0.0.1", NoSigs: true, NoLog: true, SyncAlways: w.Sync})
	if err != nil {
		return err
	}
	srv.Start()
	defer func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	}()
	if !srv.ReadyForConnections(10 * time.Second) {
		return errors.New("the server did not start")
	}
	w.ready(srv.ClientURL())
	<-ctx.Done()
	return nil
}
