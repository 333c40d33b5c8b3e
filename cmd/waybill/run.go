package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/manifest"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/telemetry"
)

// runFlags are the flags of run as they were given.
type runFlags struct {
	*sources
	*output
	port      int
	listen    string
	data      string
	ephemeral bool
	brokers   []string
	services  []string
	drain     time.Duration
}

func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run -f PATH [-f PATH]…",
		Short: "Run resources on this machine, on an embedded broker or one of your own",
		Args:  cobra.NoArgs,
	}
	flags := cmd.Flags()
	f := &runFlags{sources: sourceFlags(cmd, flags), output: outputFlag(flags, "text", "json")}
	flags.IntVar(&f.port, "port", 8080, "port to serve on; 0: any that is free")
	flags.StringVar(&f.listen, "listen", "127.0.0.1", "address to serve on; beyond this machine every gateway needs auth")
	flags.StringVar(&f.data, "data", ".waybill", "folder that keeps messages and positions between runs")
	flags.BoolVar(&f.ephemeral, "ephemeral", false, "keep nothing: a temporary folder that is removed at the end")
	flags.StringArrayVar(&f.brokers, "broker", nil, "NAME=URL: run the Broker NAME at this address instead (embedded:, nats://…); may be repeated")
	flags.StringArrayVar(&f.services, "service", nil, "NAME[.NAMESPACE][:PORT]=URL: where a Service is on this machine; may be repeated")
	flags.DurationVar(&f.drain, "drain", 20*time.Second, "how long to let what is in flight finish at the end")
	cmd.MarkFlagsMutuallyExclusive("data", "ephemeral")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return run(cmd.Context(), f, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

// run is one run from the files to the end of the drain. ctx ends with the first signal.
func run(ctx context.Context, f *runFlags, stdout, stderr io.Writer) (err error) {
	began := time.Now()
	urls, mapped, err := f.parse()
	if err != nil {
		return &exit{exitUsage, err}
	}
	l, err := read(f.paths, f.recursive)
	if err != nil {
		return err
	}
	secrets := secretsOf(l)
	asDeclared, here, err := override(l.input(), urls, secrets)
	if err != nil {
		return &exit{exitUsage, err}
	}
	wanted := compile.Compile(asDeclared)
	faults := l.diagnostics(wanted.Diagnostics, declared)
	report(f.output, stdout, stderr, faults)
	reportSkipped(stderr, l.set)
	if len(faults) > 0 {
		return &exit{exitInvalid, fmt.Errorf("%s found; nothing was started", count(len(faults), "fault"))}
	}

	actual := compile.Compile(here)
	unused(stderr, urls, mapped, actual.Plans())
	refused := l.diagnostics(actual.Diagnostics, func(compile.Diagnostic) bool { return true })
	report(f.output, stdout, stderr, refused)

	st, err := openState(f.stateDir())
	if err != nil {
		return &exit{exitInvalid, err}
	}
	defer func() { err = errors.Join(err, st.close()) }()
	listener, err := f.bind(actual.Plans())
	if err != nil {
		return &exit{exitInvalid, err}
	}
	defer listener.Close()

	say := &speaker{stdout, f.value == "json"}
	show := newDisplay(stdout, stderr, say.json)
	log := slog.New(slog.NewTextHandler(show, &slog.HandlerOptions{Level: slog.LevelWarn}))
	lap := &laptop{state: st, secrets: secrets, services: mapped, origin: "http://" + listener.Addr().String()}
	outcomes, missing := lap.runnable(l, &actual)
	report(f.output, stdout, stderr, missing)
	mirror(outcomes, secrets)
	plans := plansOf(outcomes)
	if len(plans) == 0 {
		return &exit{exitInvalid, errors.New("there is nothing that could be started")}
	}
	if needsEmbedded(plans) {
		if err = lap.startEmbedded(ctx, log); err != nil {
			return &exit{exitInvalid, err}
		}
		defer func() {
			closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			err = errors.Join(err, lap.embedded.Shutdown(closing))
		}()
	}
	host, err := lap.host(log)
	if err != nil {
		return &exit{exitInvalid, err}
	}

	eng := engine.New(host)
	server := &http.Server{Handler: telemetry.Handler(eng, eng.Gateways()), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	eng.Start(ctx, plans)
	all := say.announce(ctx, eng, outcomes, &wanted, lap.address, func() { show.pending(eng) })
	if ctx.Err() == nil {
		say.up(time.Since(began))
	}
	partly := len(refused)+len(missing) > 0 || !all
	show.watch(ctx, eng)
	say.draining(f.drain)

	drainCtx, cancel := context.WithTimeout(context.Background(), f.drain)
	defer cancel()
	drained := eng.Drain(drainCtx, func(ctx context.Context) {
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			log.Error("serving HTTP ended", "error", err)
		}
	})
	complete := drainCtx.Err() == nil
	say.drained(drained, complete)
	if partly || !complete {
		return &exit{exitPartly, nil}
	}
	return nil
}

func (f *runFlags) parse() ([]brokerURL, services, error) {
	var urls []brokerURL
	for _, b := range f.brokers {
		u, err := parseBroker(b)
		if err != nil {
			return nil, nil, err
		}
		urls = append(urls, u)
	}
	if f.port < 0 || f.port > 65535 {
		return nil, nil, fmt.Errorf("--port %d: want 0 to 65535", f.port)
	}
	if f.drain < 0 {
		return nil, nil, fmt.Errorf("--drain %s: want a duration of 0s or more", f.drain)
	}
	mapped, err := parseServices(f.services)
	return urls, mapped, err
}

func (f *runFlags) stateDir() string {
	if f.ephemeral {
		return ""
	}
	return f.data
}

// bind takes the port. Beyond this machine nothing may be open to everybody.
func (f *runFlags) bind(plans []*plan.Plan) (net.Listener, error) {
	address := net.JoinHostPort(f.listen, strconv.Itoa(f.port))
	if ip := net.ParseIP(f.listen); f.listen != "localhost" && (ip == nil || !ip.IsLoopback()) {
		for _, p := range plans {
			if !guarded(p) {
				return nil, fmt.Errorf("--listen %s: %s has no auth, so everybody who reaches this machine could use it: add spec.auth, or listen on 127.0.0.1", f.listen, p.Resource)
			}
		}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w; choose another port with --port", address, err)
	}
	return l, nil
}

// guarded reports whether all that p serves over HTTP asks who is there.
func guarded(p *plan.Plan) bool {
	switch {
	case p.Topic != nil:
		return p.Topic.Publish != nil && p.Topic.Receive != nil
	case p.Mailbox != nil:
		return p.Mailbox.Publish != nil && p.Mailbox.Receive != nil
	case p.Endpoint != nil:
		return p.Endpoint.Auth != nil
	}
	return true
}

// runnable picks the outcomes that can run here, and says of the others which flag is missing.
func (l *laptop) runnable(from *load, result *compile.Result) (ok []compile.Outcome, missing []manifest.Diagnostic) {
	running := func(r plan.Resource) bool {
		o := result.Outcome(r)
		return o != nil && !o.Refused
	}
	for _, o := range result.Outcomes {
		if o.Refused {
			continue
		}
		if o.Plan != nil {
			if services := l.unmapped(o.Plan, running); len(services) > 0 {
				for _, s := range services {
					missing = append(missing, from.place(compile.Diagnostic{
						Kind: o.Resource.Kind, Namespace: o.Resource.Namespace, Name: o.Resource.Name, Field: s.Field, Reason: "ServiceNotMapped",
						Message: fmt.Sprintf("Service %s, port %d, is not on this machine: add --service %s=URL", s.Name, s.Port, serviceFlag(s.Service))}))
				}
				continue
			}
		}
		ok = append(ok, o)
	}
	return ok, missing
}

func plansOf(outcomes []compile.Outcome) []*plan.Plan {
	var plans []*plan.Plan
	for _, o := range outcomes {
		if o.Plan != nil {
			plans = append(plans, o.Plan)
		}
	}
	return plans
}
