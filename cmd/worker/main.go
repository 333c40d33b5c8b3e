// Command worker runs plans: the entry point of the worker image. It reads them from a folder, secrets from mounted directories, and talks
// to brokers, subscribers and nobody else.
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
	"syscall"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
	"github.com/waybill-dev/waybill/runtime/telemetry"
)

// leaseKeySecret is the Secret of a namespace that its mailboxes seal lease tokens with: the keys current and, while rotating, previous.
const leaseKeySecret = "waybill-lease-key"

type config struct {
	plans, secrets, state string
	listen, health        string
	drain                 time.Duration
	administer            bool
	privateDial           bool
}

func main() {
	var c config
	flag.StringVar(&c.plans, "plans", "/etc/waybill/plans", "folder of plans, one a .json file")
	flag.StringVar(&c.secrets, "secrets", "/etc/waybill/secrets", "folder of mounted Secrets, a directory each")
	flag.StringVar(&c.state, "state", "/var/lib/waybill", "folder for the checkpoints of pollers")
	flag.StringVar(&c.listen, "listen", ":8080", "address that gateways are served on")
	flag.StringVar(&c.health, "health", ":8081", "address of /healthz, /readyz, /metrics and /status")
	flag.DurationVar(&c.drain, "drain", 20*time.Second, "how long to let what is in flight finish after SIGTERM")
	flag.BoolVar(&c.administer, "administer", false, "make the broker objects of the plans, where no operator does")
	flag.BoolVar(&c.privateDial, "allow-private-dial", false, "let manifests reach loopback and link-local addresses")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	err := work(ctx, c, log)
	stop()
	if err != nil {
		log.Error("worker ends", "error", err)
		os.Exit(1)
	}
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
	leaseKeys, err := leaseKeys(secrets)
	if err != nil {
		return err
	}
	eng := engine.New(engine.Host{
		Drivers: map[string]driver.Open{"NATS": nats.Open, "Embedded": nats.Open},
		Secrets: secrets,
		Checkpoint: func(r plan.Resource) (checkpoint.Store, error) {
			return checkpoint.File(filepath.Join(c.state, "pollers", r.Namespace, r.Name+".json")), nil
		},
		Base: func(r plan.Resource) string {
			if len(plans) == 1 {
				return ""
			}
			return r.Path()
		},
		LeaseKeys:  leaseKeys,
		Outbound:   outbound.New(outbound.Config{Secrets: secrets, Guard: guard}),
		Administer: c.administer,
		Log:        log,
	})

	gateways := &http.Server{Addr: c.listen, Handler: eng.Gateways(), ReadHeaderTimeout: 10 * time.Second}
	health := &http.Server{Addr: c.health, Handler: telemetry.Handler(eng, nil), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 2)
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
	select {
	case <-ctx.Done():
	case err = <-failed:
	}

	drainCtx, cancel := context.WithTimeout(context.Background(), c.drain)
	defer cancel()
	for _, d := range eng.Drain(drainCtx, func(ctx context.Context) {
		if gateways.Shutdown(ctx) != nil {
			gateways.Close()
		}
	}) {
		log.Info("drained", "resource", d.Resource.String(), "finished", d.Finished, "released", d.Released, "lost", int64(d.Lost)+d.AcceptedLost)
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

// leaseKeys reads the keys of the namespace; a Pod that serves no mailbox has none mounted.
func leaseKeys(s secret.Store) ([][]byte, error) {
	var keys [][]byte
	for _, name := range []string{"current", "previous"} {
		k, err := s.Value("", leaseKeySecret, name)
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
