package verify_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/test/laptop"
	"github.com/waybill-dev/waybill/test/verify"
)

var (
	seed   = flag.Uint64("verify.seed", uint64(time.Now().UnixNano()), "what decides the faults")
	faults = flag.Int("verify.faults", 0, "how many faults are injected in all; 0: a few of every kind, as make test does")
	logs   = flag.String("verify.log", "", "file that gets the log of every process; empty: none")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(laptop.Main(m))
}

// A rig is one run of a scenario: a `waybill run`, traffic through it, observers, faults and the verdict. A scenario makes one, adds what
// observes, starts it, publishes, injects its faults and settles.
type rig struct {
	t        *testing.T
	laptop   *laptop.Laptop
	manifest string
	record   *verify.Record
	ctx      context.Context

	observers    []string
	destinations []*verify.Destination
	publishing   context.Context
	publishers   sync.WaitGroup
	observing    sync.WaitGroup
	stopPublish  func()
	stopObserve  func()
	observeCtx   context.Context
	injected     map[string]int
	began        time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	t.Logf("replay with -verify.seed=%d -verify.faults=%d", *seed, *faults)
	r := &rig{t: t, laptop: laptop.New(t), record: new(verify.Record), ctx: t.Context(), injected: map[string]int{}, began: time.Now()}
	if *logs != "" {
		f, err := os.OpenFile(*logs, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		r.laptop.Log = f
	}
	r.publishing, r.stopPublish = context.WithCancel(r.ctx)
	r.observeCtx, r.stopObserve = context.WithCancel(r.ctx)
	t.Cleanup(func() {
		r.stopPublish()
		r.stopObserve()
		r.publishers.Wait()
		r.observing.Wait()
		for _, d := range r.destinations {
			d.Away()
		}
		if t.Failed() {
			r.keep()
		}
	})
	return r
}

// promise names an observer and what it is promised.
func (r *rig) promise(name string, p verify.Promise) {
	r.record.Promise(name, p)
	r.observers = append(r.observers, name)
}

// destination is an observer that messages are pushed to, for a deliverTo.uri or a to.http.uri.
func (r *rig) destination(name string, p verify.Promise, always verify.Mood) *verify.Destination {
	r.t.Helper()
	r.promise(name, p)
	d, err := verify.NewDestination(name, r.record, always)
	if err != nil {
		r.t.Fatal(err)
	}
	r.destinations = append(r.destinations, d)
	return d
}

// start writes the manifest and starts the process.
func (r *rig) start(documents string, args ...string) {
	r.t.Helper()
	r.manifest = laptop.Manifest(r.t, documents)
	r.laptop.Arguments(append([]string{"-f", r.manifest}, args...)...)
	r.laptop.Up()
}

// rewrite writes another manifest, for the next start.
func (r *rig) rewrite(documents string) {
	r.t.Helper()
	laptop.Rewrite(r.t, r.manifest, documents)
}

// address gives where a resource is served at the moment.
func (r *rig) address(kind, name, below string) func() string {
	return func() string { return r.laptop.Address(kind, name) + below }
}

// receive is an observer that receives from a Mailbox.
func (r *rig) receive(name, mailbox string, p verify.Promise) {
	r.promise(name, p)
	r.observing.Go(func() { verify.Receive(r.observeCtx, name, r.record, r.address("Mailbox", mailbox, "")) })
}

// live is an observer of the live events of a Topic. It returns when the first connection stands.
func (r *rig) live(name, topic string, p verify.Promise) {
	r.t.Helper()
	r.promise(name, p)
	connected := make(chan struct{})
	r.observing.Go(func() {
		verify.Live(r.observeCtx, name, r.record, r.address("Topic", topic, ""), sync.OnceFunc(func() { close(connected) }))
	})
	select {
	case <-connected:
	case <-time.After(time.Minute):
		r.t.Fatal("no live events after a minute")
	}
}

// publish publishes until the rig is settled. The names of the run are its own.
func (r *rig) publish(traffic verify.Traffic) {
	traffic.Run = fmt.Sprint(*seed)
	r.publishers.Go(func() { verify.Publish(r.publishing, r.record, traffic) })
}

// An injector does one fault. What lasts beyond it ends by itself after f.For.
type injector func(f verify.Fault)

// inject does n faults of all the kinds, one after the other, once every observer has seen something.
func (r *rig) inject(n int, kinds []verify.Kind, by map[string]injector) {
	r.t.Helper()
	first, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	for _, o := range r.observers {
		if err := verify.AwaitFirst(first, r.record, o); err != nil {
			r.t.Fatal(err)
		}
	}
	for i, f := range verify.Schedule(*seed, n, kinds) {
		select {
		case <-time.After(f.After): // a fault comes when it comes
		case <-r.laptop.Ended():
			r.t.Fatalf("waybill ended by itself:\n%s", r.laptop.Errors())
		case <-r.ctx.Done():
			return
		}
		r.record.Note("fault %d of %d: %s", i+1, n, f)
		if *faults > 0 {
			r.t.Logf("%s fault %d of %d: %s", time.Since(r.began).Round(time.Millisecond), i+1, n, f)
		}
		by[f.Kind](f)
		r.injected[f.Kind]++
		if r.t.Failed() {
			return
		}
		if n := i + 1; n%50 == 0 {
			r.judge()
			if r.t.Failed() {
				return
			}
		}
	}
}

// judge fails for what no later sighting can mend.
func (r *rig) judge() {
	r.t.Helper()
	verdicts, objections := r.record.Verdicts()
	for _, o := range objections {
		r.t.Error(o)
	}
	for i := range verdicts {
		v := &verdicts[i]
		r.t.Logf("until now %s", v)
		v.Lost, v.Unheard = nil, nil // on their way, or not yet answered
		if broken := v.Broken(); broken != "" {
			r.t.Error(broken)
		}
	}
}

// settle ends the traffic, waits until everybody has seen what is meant for him, and judges. A trickle of further messages goes on
// meanwhile: a destination that answers nothing but errors is not told from one that is down by its last messages alone.
func (r *rig) settle(pulse verify.Traffic) {
	r.t.Helper()
	r.stopPublish()
	r.publishers.Wait()
	pulsing, stop := context.WithCancel(r.ctx)
	defer stop()
	pulse.Run, pulse.Prefix, pulse.Keys, pulse.Pause = fmt.Sprint(*seed), "pulse", 1, 100*time.Millisecond
	var beating sync.WaitGroup
	beating.Go(func() { verify.Publish(pulsing, r.record, pulse) })
	end, cancel := context.WithTimeout(r.ctx, 3*time.Minute)
	defer cancel()
	await := func() {
		for _, o := range r.observers {
			if err := verify.Await(end, r.record, o); err != nil {
				r.t.Error(err)
			}
		}
	}
	await()
	stop()
	beating.Wait()
	await()
	r.stopObserve()
	r.observing.Wait()
	r.report()
}

// report prints the verdicts.
func (r *rig) report() {
	r.t.Helper()
	total, kinds := 0, []string{}
	for _, kind := range slices.Sorted(maps.Keys(r.injected)) {
		total += r.injected[kind]
		kinds = append(kinds, fmt.Sprintf("%s %d", kind, r.injected[kind]))
	}
	verdicts, objections := r.record.Verdicts()
	if total == 0 {
		kinds = append(kinds, "none of the schedule")
	}
	r.row("%s, seed %d, %s: %d faults (%s), %d messages published", strings.TrimPrefix(r.t.Name(), "Test"), *seed, time.Since(r.began).Round(time.Second), total, strings.Join(kinds, ", "), len(r.record.History().Publications))
	for _, o := range objections {
		r.t.Error(o)
	}
	for i := range verdicts {
		r.row("  %s", &verdicts[i])
		if broken := verdicts[i].Broken(); broken != "" {
			r.t.Error(broken)
		}
	}
}

func (r *rig) row(format string, args ...any) {
	r.t.Helper()
	text := fmt.Sprintf(format, args...)
	r.t.Attr("report", text)
	r.t.Log(text)
}

// keep writes the history where it outlives the test.
func (r *rig) keep() {
	f, err := os.CreateTemp("", "waybill-history-*.jsonl") // it outlives the test
	if err != nil {
		r.t.Error(err)
		return
	}
	defer f.Close()
	if _, err := r.record.History().WriteTo(f); err != nil {
		r.t.Error(err)
	}
	r.t.Logf("the history is in %s", f.Name())
}

// kill is kill -9 of the process, and its next start.
func (r *rig) kill(verify.Fault) {
	r.laptop.Kill()
	r.laptop.Up()
}

// drain is SIGTERM under load, and the next start. Messages may be handed back, none may be lost.
func (r *rig) drain(verify.Fault) {
	r.end()
	r.laptop.Up()
}

// end is SIGTERM under load.
func (r *rig) end() {
	r.t.Helper()
	code, drained := r.laptop.Drain()
	if code != 0 && code != 3 || drained.Lost != 0 || drained.Event == "" {
		r.t.Errorf("the drain ended with %d: %+v\n%s", code, drained, r.laptop.Errors())
	}
}

// stall stops the process for a while, as a suspended machine or a starved container is stopped.
func (r *rig) stall(f verify.Fault) {
	pid := r.laptop.Pid()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		r.t.Fatal(err)
	}
	<-time.After(f.For)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		r.t.Fatal(err)
	}
}
