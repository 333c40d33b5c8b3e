// Command manager is the operator: the entry point of the manager image. It makes workers, their objects on brokers and everything around them
// be as the declared resources say, and moves no message itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/waybill-dev/waybill/controllers"
	"github.com/waybill-dev/waybill/controllers/brokers"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
)

const (
	// A Pod has 30 seconds to end. What is being reconciled gets most of them; past the second bound the process ends however it stands.
	finishTimeout = 15 * time.Second
	stopTimeout   = 20 * time.Second
	// readyTimeout bounds an answer of /readyz.
	readyTimeout = time.Second
	// gcPercent gives memory precedence over CPU time: nearly all of the heap is caches, which stay.
	gcPercent = 40
)

func main() {
	c, err := readFlags(os.Args[1:], os.Getenv, os.Stdout)
	if err != nil {
		os.Exit(flagError(err))
	}
	level := slog.LevelInfo
	if c.debug {
		level = slog.LevelDebug
	}
	log := logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctrl.SetLogger(log)
	klog.SetLogger(log)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if err := manage(ctrl.SetupSignalHandler(), c); err != nil {
		log.Error(err, "The manager ends")
		os.Exit(1)
	}
}

// manage runs the operator until ctx ends.
func manage(ctx context.Context, c config) error {
	scheme, err := controllers.Scheme()
	if err != nil {
		return err
	}
	cfg, err := clusterConfig(c.kubeconfig)
	if err != nil {
		return err
	}
	// The API server has its own fairness; these keep a thousand resources from waiting for each other here.
	cfg.QPS, cfg.Burst = 100, 200

	options := controllers.ManagerOptions(scheme)
	options.LeaderElection, options.LeaderElectionID, options.LeaderElectionNamespace = c.leaderElection, "waybill-manager", c.namespace
	options.LeaderElectionReleaseOnCancel = true // the process ends right after
	options.LeaseDuration, options.RenewDeadline, options.RetryPeriod = &c.lease, new(c.lease*2/3), new(c.lease/8)
	options.GracefulShutdownTimeout = new(finishTimeout)
	options.HealthProbeBindAddress = c.health
	options.Metrics = metricsOptions(c)
	if len(c.watch) > 0 {
		options.Cache.DefaultNamespaces = map[string]cache.Config{}
		for _, namespace := range c.watch {
			options.Cache.DefaultNamespaces[namespace] = cache.Config{}
		}
	}
	mgr, err := ctrl.NewManager(cfg, options)
	if err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("caches", readable(mgr.GetCache())); err != nil {
		return err
	}

	sessions := brokers.New(map[string]brokers.Driver{
		"NATS":     {Open: nats.Open, Class: nats.Class},
		"Embedded": {Open: nats.Open, Class: nats.Class},
	}, secretReader(mgr.GetAPIReader()))
	defer sessions.Close()
	_, err = controllers.New(mgr, controllers.Options{
		Settings: workload.Settings{
			WorkerImage: c.image, PullPolicy: c.pullPolicy, Drain: c.drain, Env: c.env,
			ManagerNamespace: c.namespace, AllowPrivateDial: c.privateDial,
		},
		Brokers: sessions, Concurrency: c.concurrency, Metrics: metrics.Registry,
	})
	if err != nil {
		return err
	}
	return start(ctx, mgr)
}

// start runs a manager until ctx ends. One whose caches have not come about, for want of a right, does not end by itself; it has begun nothing
// either. What it reads later than these, as the seven kinds once it leads, tells nothing: then it has a Lease to give back.
func start(ctx context.Context, mgr ctrl.Manager) error {
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	var begun atomic.Bool
	go func() {
		if mgr.GetCache().WaitForCacheSync(ctx) {
			begun.Store(true)
		}
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	patience := stopTimeout
	if !begun.Load() && !synced(context.Background(), mgr.GetCache()) {
		patience = 0
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
		return errors.New("not everything has ended after the signal to")
	}
}

// clusterConfig is how the cluster is reached.
func clusterConfig(file string) (*rest.Config, error) {
	if file == "" {
		return ctrl.GetConfig()
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig %s: %w", file, err)
	}
	return cfg, nil
}

// readable: the manager is of use once it has read what there is, whether it leads or waits to. Where a right is missing it never is.
func readable(all cache.Cache) healthz.Checker {
	return func(r *http.Request) error {
		if !synced(r.Context(), all) {
			return errors.New("not all objects could be read yet; the log says which, and why")
		}
		return nil
	}
}

func synced(ctx context.Context, all cache.Cache) bool {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return all.WaitForCacheSync(ctx)
}

// secretReader reads one Secret at a time, by name and from no cache.
func secretReader(from client.Reader) func(context.Context, types.NamespacedName) (map[string][]byte, error) {
	return func(ctx context.Context, name types.NamespacedName) (map[string][]byte, error) {
		var s corev1.Secret
		err := client.IgnoreNotFound(from.Get(ctx, name, &s))
		return s.Data, err
	}
}
