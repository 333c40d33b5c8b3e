// Command worker runs plans: the entry point of the worker image. It reads them from a folder, secrets from mounted directories, and talks
// to brokers, subscribers and, for a poller's checkpoint, the API server; to nobody else. `worker broker` is the server of an Embedded broker.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/checkpoint/configmap"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
	"github.com/waybill-dev/waybill/runtime/telemetry"
	"github.com/waybill-dev/waybill/runtime/tracing"
)

// apiDir is where a Pod finds the token for the API server.
const apiDir = "/var/run/secrets/kubernetes.io/serviceaccount"

type config struct {
	plans, secrets, state string
	checkpoints           string
	listen, health        string
	linger, drain         time.Duration
	rotation              time.Duration
	administer            bool
	privateDial           bool
}

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	slog.SetDefault(log) // what net/http says by itself is in no other form
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if len(os.Args) > 1 && os.Args[1] == "broker" {
		err = serveBroker(ctx, brokerFlags(os.Args[2:]), log)
	} else {
		err = work(ctx, workerFlags(os.Args[1:]), log)
	}
	stop()
	if err != nil {
		log.Error("worker ends", "error", err)
		os.Exit(1)
	}
}

func workerFlags(args []string) config {
	var c config
	f := flag.NewFlagSet("worker", flag.ExitOnError)
	f.StringVar(&c.plans, "plans", "/etc/waybill/plans", "folder of plans, one a .json file")
	f.StringVar(&c.secrets, "secrets", "/etc/waybill/secrets", "folder of mounted Secrets, a directory each")
	f.DurationVar(&c.rotation, "secrets-every", 10*time.Second, "how often to look whether Secrets of brokers were changed")
	f.StringVar(&c.checkpoints, "checkpoints", "file", "where pollers keep their checkpoints: file (in --state) or configmap (NAME-poller-checkpoint, which has to exist)")
	f.StringVar(&c.state, "state", "/var/lib/waybill", "folder for checkpoints in files")
	f.StringVar(&c.listen, "listen", ":8080", "address that gateways are served on")
	f.StringVar(&c.health, "health", ":8081", "address of /healthz, /readyz, /metrics and /status")
	f.DurationVar(&c.linger, "linger", 0, "how long to go on as before after SIGTERM, for callers that do not know of it yet")
	f.DurationVar(&c.drain, "drain", 20*time.Second, "how long to let what is in flight finish then")
	f.BoolVar(&c.administer, "administer", false, "make the broker objects of the plans, where no operator does")
	f.BoolVar(&c.privateDial, "allow-private-dial", false, "let manifests reach loopback and link-local addresses")
	_ = f.Parse(args) // it exits by itself
	return c
}

// work runs the plans until ctx ends, then drains.
func work(ctx context.Context, c config, log *slog.Logger) error {
	plans, err := readPlans(c.plans)
	if err != nil {
		return err
	}
	secrets := secret.Dir(c.secrets)
	var guard *outbound.Guard
	if !c.privateDial {
		guard = &outbound.Guard{Refuse: apiServer()}
	}
	failed := make(chan error, 4)
	checkpoints, err := c.checkpointStores(log, failed)
	if err != nil {
		return err
	}
	tracer, err := tracing.FromEnv(log)
	if err != nil {
		log.Error("there are no traces", "error", err) // messages matter more
	}
	eng := engine.New(engine.Host{
		Drivers:    map[string]driver.Open{"NATS": nats.Open, "Embedded": nats.Open},
		Secrets:    secrets,
		Checkpoint: checkpoints,
		Base: func(r plan.Resource) string {
			if len(plans) == 1 {
				return ""
			}
			return r.Path()
		},
		LeaseKeys:  func() ([][]byte, error) { return leaseKeys(secrets) },
		Outbound:   outbound.New(outbound.Config{Secrets: secrets, Guard: guard, Wrap: tracer.Transport}),
		Administer: c.administer,
		Tracing:    tracer,
		Log:        log,
	})

	var ending atomic.Bool
	gateways := &http.Server{Addr: c.listen, Handler: eng.Gateways(), ReadHeaderTimeout: 10 * time.Second}
	engine.CloseNewcomers(gateways)
	health := &http.Server{Addr: c.health, Handler: unready(&ending, telemetry.Handler(eng, nil)), ReadHeaderTimeout: 10 * time.Second}
	for _, s := range []*http.Server{gateways, health} {
		go func() {
			if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
	}
	defer health.Close()

	eng.Start(ctx, plans)
	log.Info("started", "plans", len(plans))
	rotating := follow(ctx, c.rotation, eng)
	select {
	case <-ctx.Done():
		ending.Store(true)
		pause(c.linger)
	case err = <-failed:
	}
	rotated := rotating() // a dial of its that is under way must not delay the drain; it ends with the connections

	drainCtx, cancel := context.WithTimeout(context.Background(), c.drain)
	defer cancel()
	for _, d := range eng.Drain(drainCtx, func(ctx context.Context) {
		if gateways.Shutdown(ctx) != nil {
			gateways.Close()
		}
	}) {
		log.Info("drained", "resource", d.Resource.String(), "finished", d.Finished, "released", d.Released, "lost", int64(d.Lost)+d.AcceptedLost)
	}
	<-rotated
	last, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	if e := tracer.Close(last); e != nil {
		log.Warn("the last traces were not sent", "error", e)
	}
	return err
}

// unready says so to whoever asks whether to send more, from the moment that the worker is told to end.
func unready(ending *atomic.Bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" && ending.Load() {
			http.Error(w, "ending", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func pause(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// follow lets the engine look after its Secrets every so often. What it returns ends that, and gives a channel that is closed when it has ended.
func follow(ctx context.Context, every time.Duration, eng *engine.Engine) func() <-chan struct{} {
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // it goes on while the worker lingers
	go func() {
		defer close(done)
		if every <= 0 {
			return
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				eng.RefreshSecrets(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() <-chan struct{} {
		cancel()
		return done
	}
}

// checkpointStores is where pollers keep where they stand. Where another process writes the same one, this worker ends with an error: started
// anew it goes on from what is written there.
func (c *config) checkpointStores(log *slog.Logger, failed chan<- error) (func(plan.Resource) (checkpoint.Store, error), error) {
	switch c.checkpoints {
	case "", "file":
		return func(r plan.Resource) (checkpoint.Store, error) {
			return checkpoint.File(filepath.Join(c.state, "pollers", r.Namespace, r.Name+".json")), nil
		}, nil
	case "configmap":
		return func(r plan.Resource) (checkpoint.Store, error) {
			api, err := configmap.InCluster(apiDir)
			if err != nil {
				return nil, err
			}
			return &soleWriter{configmap.New(api, r.Namespace, r.Checkpoint(), log), failed}, nil
		}, nil
	}
	return nil, fmt.Errorf("--checkpoints %q: must be file or configmap", c.checkpoints)
}

// soleWriter tells of a conflict.
type soleWriter struct {
	checkpoint.Store
	failed chan<- error
}

func (s *soleWriter) Save(ctx context.Context, doc []byte) error {
	err := s.Store.Save(ctx, doc)
	if errors.Is(err, checkpoint.ErrConflict) {
		select {
		case s.failed <- err:
		default: // it is ending already
		}
	}
	return err
}

func readPlans(dir string) ([]*plan.Plan, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("--plans %s: %w", dir, fs.ErrNotExist)
	}
	var plans []*plan.Plan
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		p, err := plan.Unmarshal(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		plans = append(plans, p)
	}
	return plans, nil
}

// leaseKeys reads the keys of the namespace: the first seals, all open. A Pod that hands out no leases has none mounted.
func leaseKeys(s secret.Store) ([][]byte, error) {
	var keys [][]byte
	for _, name := range []string{"current", "next", "previous"} {
		k, err := s.Value("", plan.LeaseKeySecret, name)
		switch {
		case err == nil:
			keys = append(keys, k)
		case errors.Is(err, secret.ErrNoSecret), errors.Is(err, secret.ErrNoKey):
		default:
			return nil, err
		}
	}
	return keys, nil
}

// apiServer is the address of the cluster's API server, which no manifest may make a worker call; none outside of a cluster.
func apiServer() []netip.Prefix {
	a, err := netip.ParseAddr(os.Getenv("KUBERNETES_SERVICE_HOST"))
	if err != nil {
		return nil
	}
	return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
}
