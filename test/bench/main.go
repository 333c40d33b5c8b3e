// Command bench measures one job beside expert loops that do the same with the broker's own client, in one run on one server:
//
//	NATS → keep type == "order.created" && total > 100 (40 % pass), make {"id","customer","total","units"} → NATS
//
// Messages of about 300 bytes of JSON, in the order of 500 keys; the input is acknowledged after the broker confirmed the output. Rounds are
// interleaved, each on streams of its own; each checks that nothing was lost, doubled or put out of order within a key.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	messages := flag.Int("messages", 200_000, "messages a round")
	rounds := flag.Int("rounds", 5, "rounds of each contender")
	sync := flag.Bool("sync", false, "let the server sync each write to disk before it confirms, as the embedded broker does")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the flow's rounds to this file")
	flag.Parse()

	contenders := []contender{{"raw", raw(decodeStruct)}, {"raw-fast", raw(decodeFast)}, {"waybill", waybill}}
	results := map[string][]result{}
	for round := range *rounds {
		for _, c := range contenders {
			stop := func() {}
			if c.name == "waybill" && *profile != "" && round == 0 {
				stop = startProfile(*profile)
			}
			r, err := measure(c, *messages, *sync)
			stop()
			if err != nil {
				fatal(fmt.Errorf("%s: %w", c.name, err))
			}
			results[c.name] = append(results[c.name], r)
		}
	}
	table(os.Stdout, contenders, results, *messages, *sync)
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

func startProfile(path string) func() {
	f, err := os.Create(path)
	if err != nil {
		fatal(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		fatal(err)
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}
}

// A contender moves everything from the stream in to the stream out and returns when the last input is acknowledged.
type contender struct {
	name string
	run  func(ctx context.Context, url string, messages, outputs int) error
}

type result struct {
	perSecond  float64
	cpu        float64 // seconds for 1,000 messages, client and server
	allocs     float64 // a message, client and server
	inOrder    bool
	peakMemory float64 // MiB of the process, so far
}

func measure(c contender, messages int, sync bool) (r result, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	srv, err := server.NewServer(&server.Options{JetStream: true, StoreDir: dir, Port: server.RANDOM_PORT, Host: "127.0.0.1", NoSigs: true, NoLog: true, SyncAlways: sync})
	if err != nil {
		return result{}, err
	}
	srv.Start()
	defer func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	}()
	if !srv.ReadyForConnections(10 * time.Second) {
		return result{}, fmt.Errorf("the server did not start")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	outputs, err := fill(ctx, srv.ClientURL(), messages)
	if err != nil {
		return result{}, fmt.Errorf("filling the input: %w", err)
	}

	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, began := cpuSeconds(), time.Now()
	if err := c.run(ctx, srv.ClientURL(), messages, outputs); err != nil {
		return result{}, err
	}
	took := time.Since(began).Seconds()
	cpu = cpuSeconds() - cpu
	runtime.ReadMemStats(&after)

	ordered, err := check(ctx, srv.ClientURL(), outputs)
	if err != nil {
		return result{}, err
	}
	return result{
		perSecond: float64(messages) / took, cpu: cpu / float64(messages) * 1000,
		allocs: float64(after.Mallocs-before.Mallocs) / float64(messages), inOrder: ordered, peakMemory: peak(),
	}, nil
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		fatal(err)
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

func peak() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		fatal(err)
	}
	return float64(u.Maxrss) / 1024
}

func table(out io.Writer, contenders []contender, results map[string][]result, messages int, sync bool) {
	fmt.Fprintf(out, "%d messages a round, %d cores, %s, server syncs each write: %t\n\n", messages, runtime.NumCPU(), runtime.Version(), sync)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "contender\tmsg/s median\tratio to raw min\tmedian\tmax\tCPU s/1,000\tallocs/msg\torder kept\t")
	raw := results["raw"]
	for _, c := range contenders {
		rs := results[c.name]
		var speed, ratio, cpu, allocs []float64
		ordered := true
		for i, r := range rs {
			speed, cpu, allocs = append(speed, r.perSecond), append(cpu, r.cpu), append(allocs, r.allocs)
			ratio = append(ratio, r.perSecond/raw[i].perSecond)
			ordered = ordered && r.inOrder
		}
		slices.Sort(ratio)
		fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.2f\t%.2f\t%.4f\t%.1f\t%t\t\n", c.name, median(speed), ratio[0], median(ratio), ratio[len(ratio)-1], median(cpu), median(allocs), ordered)
	}
	if err := w.Flush(); err != nil {
		fatal(err)
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// quiet is the product's log during a measurement: errors only.
var quiet = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))

// order is the input, as an expert would declare it.
type order struct {
	ID       int    `json:"id"`
	Type     string `json:"type"`
	Customer string `json:"customer"`
	Total    int    `json:"total"`
	Lines    []line `json:"lines"`
	Note     string `json:"note"`
}

type line struct {
	SKU   string `json:"sku"`
	Qty   int    `json:"qty"`
	Price int    `json:"price"`
}

type shaped struct {
	ID       int    `json:"id"`
	Customer string `json:"customer"`
	Total    int    `json:"total"`
	Units    int    `json:"units"`
}

func (o *order) passes() bool { return o.Type == "order.created" && o.Total > 100 }

func makeOrder(i int) order {
	o := order{ID: i, Type: "order.created", Customer: fmt.Sprintf("customer-%d", i%keys), Total: 101 + i%900,
		Note: "please leave it at the back door, and ring the bell twice when nobody comes at once"}
	switch {
	case i%5 < 2:
		o.Type = "order.cancelled"
	case i%5 == 2:
		o.Total = i % 100
	}
	for l := range 3 {
		o.Lines = append(o.Lines, line{fmt.Sprintf("sku-%d", (i+l)%5000), 1 + l, 3 + i%40})
	}
	return o
}

const keys = 500

func encode(o order) []byte {
	b, err := json.Marshal(o)
	if err != nil {
		fatal(err)
	}
	return b
}
