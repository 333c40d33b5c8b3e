// Command bench measures Waybill beside expert loops that do the same work with the broker's own client or net/http, in one run.
//
// A job is a piece of work, such as moving orders from one Topic to another through a filter and a transform. Each of its contenders does it
// in a process of its own on a server of its own; rounds are interleaved, and each checks that nothing was lost or doubled. What is compared
// are the rounds of two contenders that stand beside each other: on a machine whose speed drifts only ratios can be trusted.
//
// main.go runs rounds and prints the tables; process.go starts and measures processes; flow.go, request.go, mailbox.go, push.go and poll.go
// hold a job each, with the raw loops that it is compared with; waybill.go is the product.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A job is what its contenders do, each as it would.
type job struct {
	name, title string
	unit        string // what is counted
	messages    int    // a round, where nothing else is asked for
	// contenders are compared with the first.
	contenders []contender
	// prepare brings the broker into the state in which the work begins.
	prepare func(ctx context.Context, r *round) (traffic, error)
}

// traffic is what happens in a round.
type traffic struct {
	// drive makes the contender work, and returns when all of it is done. It notes the moment of the first message.
	drive func(context.Context) error
	// check looks at what the work has left.
	check func(context.Context) error
}

// A contender does a job in a process of its own until ctx ends or the work is done.
type contender struct {
	name string
	work func(ctx context.Context, w *worker) error
	// manifest is what the product is given, compiled as the operator would. SERVER in it stands for the address of this process's own server.
	manifest string
}

func jobs() []job {
	return []job{flow(), requestAck(), requestForget(), mailbox(), push(), poller()}
}

func main() {
	var o options
	names := flag.String("jobs", "", "jobs to run, separated by commas (default all)")
	flag.IntVar(&o.messages, "messages", 0, "messages a round (default: each job's own)")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each contender")
	flag.BoolVar(&o.sync, "sync", false, "let the server sync each write to disk before it confirms, as the embedded broker does")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of the product's first round to this file")
	role := flag.String("role", "", "what a process that this one starts is to be: for itself only")
	flag.Parse()
	if *role != "" {
		if err := play(*role); err != nil {
			fatal(err)
		}
		return
	}
	chosen, err := choose(*names)
	if err != nil {
		fatal(err)
	}
	fmt.Fprintf(os.Stdout, "%s, %d cores, %s; the server syncs each write: %t\n", time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), o.sync)
	for _, j := range chosen {
		if err := run(os.Stdout, j, o); err != nil {
			fatal(fmt.Errorf("%s: %w", j.name, err))
		}
	}
}

type options struct {
	messages, rounds int
	sync             bool
	profile          string
}

func choose(names string) ([]job, error) {
	all := jobs()
	if names == "" {
		return all, nil
	}
	var chosen []job
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(j job) bool { return j.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no job %q", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func run(out io.Writer, j job, o options) error {
	if o.messages > 0 {
		j.messages = o.messages
	}
	results := map[string][]result{}
	for n := range o.rounds {
		for i := range j.contenders {
			c := j.contenders[(i+n)%len(j.contenders)] // no contender is always the first on a cold or the last on a hot machine
			profile := ""
			if c.name == product && n == 0 {
				profile = o.profile
			}
			r, err := measure(j, c, o.sync, profile)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			results[c.name] = append(results[c.name], r)
		}
	}
	table(out, j, results)
	return nil
}

type result struct {
	perSecond               float64
	own, broker             float64 // CPU seconds for 1,000 messages, of the process and of the broker
	allocs                  float64 // a message
	ownMemory, brokerMemory float64 // peak RSS, MiB
	start                   time.Duration
	disordered              bool
}

const limit = 5 * time.Minute

func measure(j job, c contender, sync bool, profile string) (res result, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	broker, err := startProcess(ctx, "broker", task{Sync: sync})
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, broker.end()) }()
	r := &round{url: broker.address, messages: j.messages}
	if err := r.connect(); err != nil {
		return result{}, err
	}
	defer r.close()
	t, err := j.prepare(ctx, r)
	if err != nil {
		return result{}, fmt.Errorf("preparing: %w", err)
	}
	given, err := plans(c.manifest, r.url, r.server())
	if err != nil {
		return result{}, err
	}
	began := time.Now()
	r.process, err = startProcess(ctx, j.name+"/"+c.name, task{URL: r.url, Messages: r.messages, Server: r.server(), Plans: given, Profile: profile})
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, r.process.end()) }()

	before, err := r.figures(broker)
	if err != nil {
		return result{}, err
	}
	r.started = time.Now()
	if err := t.drive(ctx); err != nil {
		return result{}, err
	}
	took := r.took
	if took == 0 {
		took = time.Since(r.started)
	}
	after, err := r.figures(broker)
	if err != nil {
		return result{}, err
	}
	if err := t.check(ctx); err != nil {
		return result{}, err
	}
	n := float64(r.messages)
	return result{
		perSecond: n / took.Seconds(), own: (after.own - before.own) / n * 1000, broker: (after.broker - before.broker) / n * 1000,
		allocs: float64(after.mallocs-before.mallocs) / n, ownMemory: after.ownMemory, brokerMemory: after.brokerMemory,
		start: r.first.Sub(began), disordered: r.disordered,
	}, nil
}

func table(out io.Writer, j job, results map[string][]result) {
	fmt.Fprintf(out, "\n%s. %d %s a round, %d rounds.\n\n", j.title, j.messages, j.unit, len(results[j.contenders[0].name]))
	fmt.Fprintf(out, "| contender | %s/s, median | ratio: min | median | max | CPU s / 1,000: process | broker | allocations each | peak MiB: process | broker | start to first, ms | order kept |\n", j.unit)
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|---|---|---|")
	base := results[j.contenders[0].name]
	for _, c := range j.contenders {
		rs := results[c.name]
		of := func(pick func(result) float64) float64 {
			var v []float64
			for _, r := range rs {
				v = append(v, pick(r))
			}
			slices.Sort(v)
			return v[len(v)/2]
		}
		var ratio []float64
		order := "yes"
		for i, r := range rs {
			ratio = append(ratio, r.perSecond/base[i].perSecond)
			if r.disordered {
				order = "no"
			}
		}
		slices.Sort(ratio)
		fmt.Fprintf(out, "| %s | %.0f | %.2f | %.2f | %.2f | %.4f | %.4f | %.1f | %.0f | %.0f | %.0f | %s |\n", c.name,
			of(func(r result) float64 { return r.perSecond }), ratio[0], ratio[len(ratio)/2], ratio[len(ratio)-1],
			of(func(r result) float64 { return r.own }), of(func(r result) float64 { return r.broker }),
			of(func(r result) float64 { return r.allocs }), of(func(r result) float64 { return r.ownMemory }),
			of(func(r result) float64 { return r.brokerMemory }),
			of(func(r result) float64 { return float64(r.start.Milliseconds()) }), order)
	}
}

func remove(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}
