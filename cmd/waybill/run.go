package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/manifest"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/telemetry"
	"github.com/waybill-dev/waybill/runtime/tracing"
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
	steps     []string
	drain     time.Duration
}

func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run -f PATH [-f PATH]…",
		Short: "Run resources on this machine, on an embedded broker or one of your own",
		Long: `Run checks resources as the cluster would and runs them in this process: it serves their HTTP on --port, delivers, polls, and prints each
resource with its address and what it can be relied on for. Messages and positions are kept in --data, so that the next run goes on where
this one stopped. Ctrl-C or SIGTERM drains: what is in flight finishes within --drain, the rest is handed back; a second one ends at once.

Exit codes: 0 done, 1 invalid input, a taken port or a folder in use, 2 the command was called wrongly, 3 some resources did not run, or
the drain took too long.`,
		Example: `  waybill run -f config/samples/quickstart
  waybill run -f deploy/ --broker main=embedded:                      # in the place of the Kafka that the files declare
  waybill run -f deploy/ --broker main=nats://me:secret@127.0.0.1:4222
  waybill run -f deploy/ --service billing.shop:80=http://127.0.0.1:9000 --step score=http://127.0.0.1:8000
  waybill run -f orders.yaml --ephemeral --port 0 -o json             # for a test: waits for {"event":"up"}`,
		Args: noArguments,
	}
	flags := cmd.Flags()
	f := &runFlags{sources: sourceFlags(cmd, flags), output: outputFlag(flags, "text", "json")}
	flags.IntVar(&f.port, "port", 8080, "port to serve on; 0: any that is free")
	flags.StringVar(&f.listen, "listen", "127.0.0.1", "address to serve on; beyond this machine every gateway needs auth")
	flags.StringVar(&f.data, "data", ".waybill", "folder that keeps messages and positions between runs")
	flags.BoolVar(&f.ephemeral, "ephemeral", false, "keep nothing: a temporary folder that is removed at the end")
	flags.StringArrayVar(&f.brokers, "broker", nil, "NAME=URL: run the Broker NAME at this address instead (embedded:, nats://…); may be repeated")
	flags.StringArrayVar(&f.services, "service", nil, "NAME[.NAMESPACE][:PORT]=URL: where a Service is on this machine; may be repeated")
	flags.StringArrayVar(&f.steps, "step", nil, "NAME=URL: where the program of the container step NAME is on this machine; may be repeated")
	flags.DurationVar(&f.drain, "drain", 20*time.Second, "how long to let what is in flight finish at the end")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.ephemeral && flags.Changed("data") {
			return usage(cmd, "--data and --ephemeral exclude each other: the one keeps a folder, the other keeps nothing")
		}
		// Who reads the output may end before this process does, as tee does on Ctrl-C: a line that nobody reads must not cost the drain.
		signal.Ignore(syscall.SIGPIPE)
		ctx, end := untilSignal(cmd.Context())
		defer end()
		return run(ctx, f, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

// run is one run from the files to the end of the drain. ctx ends with the first signal.
func run(ctx context.Context, f *runFlags, stdin io.Reader, stdout, stderr io.Writer) (err error) {
	began := time.Now()
	given, err := f.parse()
	if err != nil {
		return &exit{exitUsage, err}
	}
	say := &speaker{out: stdout, json: f.value == "json"}
	l, err := f.read(until{ctx, stdin})
	switch {
	case ctx.Err() != nil:
		say.neverUp()
		return nil
	case err != nil:
		return err
	}
	if len(l.faults) == 0 { // else it is not known what is referred to
		if err = unknownBroker(given.brokers, referencesOf(l)); err != nil {
			return &exit{exitUsage, err}
		}
	}
	secrets := secretsOf(l)
	asDeclared, here, err := override(l.input(), given.brokers, secrets)
	if err != nil {
		return &exit{exitUsage, err}
	}
	asDeclared, here = given.steps.replace(asDeclared), alone(given.steps.replace(here))
	wanted := compile.Compile(asDeclared)
	faults := l.diagnostics(append(wanted.Diagnostics, l.ofFaulty(asDeclared)...), func(d compile.Diagnostic) bool { return declared(d) && !isContainer(d) })
	report(f.output, stdout, stderr, faults)
	reportSkipped(stderr, l.set)
	if len(faults) > 0 {
		return &exit{exitInvalid, fmt.Errorf("%s found; nothing was started", count(len(faults), "fault"))}
	}
	if len(wanted.Outcomes) == 0 {
		return &exit{exitInvalid, fmt.Errorf("%s: nothing there is Waybill's, so there is nothing to run", strings.Join(l.set.Files, ", "))}
	}

	actual := compile.Compile(here)
	given.warnOfUnused(stderr, l)
	// What is left was not said about the declared broker: it is the one that runs here that cannot.
	refused := l.diagnostics(onlyHere(here, actual.Diagnostics), func(compile.Diagnostic) bool { return true })
	report(f.output, stdout, stderr, refused)

	st, err := openState(f.stateDir())
	if err != nil {
		return &exit{exitInvalid, err}
	}
	defer func() { err = errors.Join(err, st.close()) }()
	listener, err := f.bind(given.host, actual.Plans())
	if err != nil {
		return &exit{exitInvalid, err}
	}
	defer listener.Close()

	show := newDisplay(stdout, stderr, say.json)
	log := slog.New(&console{display: show})
	slog.SetDefault(log) // what net/http says by itself is in no other form
	lap := &laptop{state: st, secrets: secrets, services: given.services, origin: origin(listener)}
	outcomes, missing := lap.runnable(l, &actual)
	report(f.output, stdout, stderr, missing)
	mirror(outcomes, secrets)
	plans := plansOf(outcomes)
	if len(plans) == 0 {
		return nothingRuns(refused, missing)
	}
	if needsEmbedded(plans) {
		switch err = lap.startEmbedded(ctx, log); {
		case ctx.Err() != nil && errors.Is(err, ctx.Err()):
			say.neverUp()
			return partly(len(refused)+len(missing) > 0)
		case err != nil:
			return &exit{exitInvalid, err}
		}
		defer func() {
			closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			err = errors.Join(err, lap.embedded.Shutdown(closing))
		}()
	}
	tracer, err := tracing.FromEnv(log)
	if err != nil {
		return &exit{exitInvalid, err}
	}
	host, err := lap.host(tracer, log)
	if err != nil {
		return &exit{exitInvalid, err}
	}

	eng := engine.New(host)
	server := &http.Server{Handler: watchedLocally(telemetry.Handler(eng, eng.Gateways())), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	engine.CloseNewcomers(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	eng.Start(ctx, plans)
	untroubled := say.announce(ctx, eng, outcomes, &wanted, lap.address, func() { show.pending(eng) })
	if ctx.Err() == nil {
		say.up(time.Since(began), lap, outcomes, notStarted(slices.Concat(refused, missing), &actual, f.ephemeral && lap.embedded != nil), f.stateDir())
	}
	show.watch(ctx, eng)
	say.draining(f.drain)

	drainCtx, cancel := context.WithTimeout(context.Background(), f.drain)
	defer cancel()
	complete, gone, left := true, f.ephemeral && lap.embedded != nil, int64(0)
	drained := eng.Drain(drainCtx, func(ctx context.Context) {
		if server.Shutdown(ctx) != nil {
			complete = false // somebody still waited for an answer
			server.Close()
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			log.Error("serving HTTP ended", "error", err)
		}
		if gone { // what is left is known until the connections close
			left = undelivered(context.WithoutCancel(ctx), eng, plans)
		}
	})
	lastTraces(tracer, log)
	complete = complete && !slices.ContainsFunc(drained, func(d engine.Drained) bool { return d.Cut })
	say.drained(drained, complete, gone, left)
	return partly(len(refused)+len(missing) > 0 || !untroubled || !complete)
}

// partly is the end of a run of which a part did not start, or was cut off.
func partly(is bool) error {
	if is {
		return &exit{exitPartly, nil}
	}
	return nil
}

// undelivered counts what waits on the embedded broker for those that read it.
func undelivered(ctx context.Context, eng *engine.Engine, plans []*plan.Plan) (messages int64) {
	for _, b := range eng.Backlogs(ctx) {
		if slices.ContainsFunc(plans, func(p *plan.Plan) bool { return p.Resource == b.Resource && needsEmbedded([]*plan.Plan{p}) }) {
			messages += b.Messages
		}
	}
	return messages
}

// lastTraces sends the spans that are left.
func lastTraces(tracer *tracing.Tracer, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := tracer.Close(ctx); err != nil {
		log.Warn("the last traces were not sent", "error", err)
	}
}

// nothingRuns ends a run of which no part could be started.
func nothingRuns(refused, missing []manifest.Diagnostic) error {
	if len(refused)+len(missing) > 0 {
		return &exit{exitPartly, errors.New("no resource is left that could run")}
	}
	return &exit{exitInvalid, errors.New("there is nothing to run: no Topic, Mailbox or other resource uses the Brokers")}
}

// overrides are what stands on this machine in the place of the cluster's.
type overrides struct {
	host     string
	brokers  []brokerURL
	services services
	steps    steps
}

func (f *runFlags) parse() (given overrides, err error) {
	for _, b := range f.brokers {
		u, err := parseBroker(b)
		if err != nil {
			return given, err
		}
		if slices.ContainsFunc(given.brokers, func(o brokerURL) bool { return brokerKey(o.name) == brokerKey(u.name) }) {
			return given, fmt.Errorf("--broker %s is given twice: keep one", u.name)
		}
		given.brokers = append(given.brokers, u)
	}
	switch {
	case f.port < 0 || f.port > 65535:
		return given, fmt.Errorf("--port %d: want 0 to 65535", f.port)
	case f.drain < 0:
		return given, fmt.Errorf("--drain %s: want a duration of 0s or more", f.drain)
	case f.data == "" && !f.ephemeral:
		return given, errors.New("--data: name a folder, or say --ephemeral to keep nothing")
	}
	if given.host, err = f.host(); err != nil {
		return given, err
	}
	if given.services, err = parseServices(f.services); err != nil {
		return given, err
	}
	given.steps, err = parseSteps(f.steps)
	return given, err
}

func (f *runFlags) stateDir() string {
	if f.ephemeral {
		return ""
	}
	return f.data
}

// host reads --listen: an address, or a name that this machine has.
func (f *runFlags) host() (string, error) {
	host := f.listen
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]") // as an address of IPv6 stands before a port
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return host, nil
	}
	const want = "want an address of this machine, such as 127.0.0.1 or ::1, or 0.0.0.0 for all that it has"
	address, port, err := net.SplitHostPort(f.listen)
	switch {
	case host == "":
		return "", errors.New("--listen: " + want)
	case err == nil && strings.Trim(port, "0123456789") == "":
		return "", fmt.Errorf("--listen %s: the port stands apart: --listen %s --port %s", shown(f.listen), cmp.Or(shown(address), "0.0.0.0"), cmp.Or(shown(port), "8080"))
	case strings.Trim(host, "0123456789.") == "", !hostName.MatchString(host):
		return "", fmt.Errorf("--listen %s: %s", shown(f.listen), want)
	}
	return host, nil
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$`)

// shown is a value as it was typed, or in quotes where a terminal would not show it.
func shown(s string) string {
	if strconv.Quote(s) != `"`+s+`"` {
		return strconv.Quote(s)
	}
	return s
}

// bind takes the port. Beyond this machine nothing may be open to everybody.
func (f *runFlags) bind(host string, plans []*plan.Plan) (net.Listener, error) {
	address := net.JoinHostPort(host, strconv.Itoa(f.port))
	l, err := net.Listen("tcp", address)
	var dns *net.DNSError
	switch {
	case err == nil:
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("cannot listen on %s: another process does; choose another port with --port (0: any that is free), or stop that process", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("cannot listen on %s: ports below 1024 need rights that this process does not have; choose another with --port", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.As(err, &dns):
		return nil, fmt.Errorf("cannot listen on %s: --listen %s is no address of this machine", address, host)
	default:
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	// Of a name only the listener knows what it stands for. Nobody is served yet.
	if at, ok := l.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
		var open []string
		for _, p := range plans {
			if !guarded(p) {
				open = append(open, p.Resource.String())
			}
		}
		if len(open) > 0 {
			return nil, errors.Join(fmt.Errorf("--listen %s: everybody who reaches this machine could use %s%s: add spec.auth, or listen on 127.0.0.1", host, open[0], more(len(open)-1)), l.Close())
		}
	}
	return l, nil
}

// origin is how clients on this machine reach what listens: one that listens on all addresses listens on loopback too.
func origin(l net.Listener) string {
	address, ok := l.Addr().(*net.TCPAddr)
	if ok && address.IP.IsUnspecified() {
		return "http://127.0.0.1:" + strconv.Itoa(address.Port)
	}
	return "http://" + l.Addr().String()
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
						Kind: o.Resource.Kind, Namespace: o.Resource.Namespace, Name: o.Resource.Name, Field: s.Field, Reason: v1alpha1.ReasonServiceNotMapped,
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
