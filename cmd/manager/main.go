// Command manager is the operator: the entry point of the manager image. It makes workers, their objects on brokers and everything around them
// be as the declared resources say, and moves no message itself.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/waybill-dev/waybill/controllers"
	"github.com/waybill-dev/waybill/controllers/brokers"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
)

// config is what the flags say.
type config struct {
	image, pullPolicy string
	drain             time.Duration
	metrics, health   string
	plainMetrics      bool
	leaderElection    bool
	namespace         string
	watch             string
	concurrency       int
	privateDial       bool
	debug             bool
}

func main() {
	var c config
	flag.StringVar(&c.image, "worker-image", os.Getenv("WORKER_IMAGE"), "image of the workers; default: the variable WORKER_IMAGE")
	flag.StringVar(&c.pullPolicy, "worker-pull-policy", "", "Always, IfNotPresent or Never; default: the cluster's")
	flag.DurationVar(&c.drain, "worker-drain", 30*time.Second, "how long a worker may finish what is in flight when its Pod ends")
	flag.StringVar(&c.metrics, "metrics", ":8443", "address of /metrics, over HTTPS; 0: none")
	flag.BoolVar(&c.plainMetrics, "plain-metrics", false, "serve /metrics over HTTP and to everybody")
	flag.StringVar(&c.health, "health", ":8081", "address of /healthz and /readyz")
	flag.BoolVar(&c.leaderElection, "leader-election", true, "let one of several managers work at a time")
	flag.StringVar(&c.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace of the manager itself; default: the variable POD_NAMESPACE")
	flag.StringVar(&c.watch, "watch-namespaces", "", "look only after these namespaces, divided by commas; default: all")
	flag.IntVar(&c.concurrency, "concurrency", 4, "how many resources are looked after at once")
	flag.BoolVar(&c.privateDial, "allow-private-dial", false, "let manifests make workers reach loopback and link-local addresses")
	flag.BoolVar(&c.debug, "debug", false, "log more")
	flag.Parse()

	level := slog.LevelInfo
	if c.debug {
		level = slog.LevelDebug
	}
	log := logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctrl.SetLogger(log)
	klog.SetLogger(log)
	if err := manage(ctrl.SetupSignalHandler(), c); err != nil {
		log.Error(err, "The manager ends")
		os.Exit(1)
	}
}

// manage runs the operator until ctx ends.
func manage(ctx context.Context, c config) error {
	if c.image == "" {
		return fmt.Errorf("--worker-image says which image the workers run, and has no default: set it, or WORKER_IMAGE")
	}
	scheme, err := controllers.Scheme()
	if err != nil {
		return err
	}
	cfg, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	// The API server has its own fairness; these keep a thousand resources from waiting for each other here.
	cfg.QPS, cfg.Burst = 100, 200

	options := controllers.ManagerOptions(scheme)
	options.LeaderElection, options.LeaderElectionID, options.LeaderElectionNamespace = c.leaderElection, "waybill-manager", c.namespace
	options.LeaderElectionReleaseOnCancel = true // the process ends right after
	options.HealthProbeBindAddress = c.health
	options.Metrics = metricsOptions(c)
	if c.watch != "" {
		options.Cache.DefaultNamespaces = map[string]cache.Config{}
		for namespace := range strings.SplitSeq(c.watch, ",") {
			options.Cache.DefaultNamespaces[strings.TrimSpace(namespace)] = cache.Config{}
		}
	}
	mgr, err := ctrl.NewManager(cfg, options)
	if err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return err
	}

	sessions := brokers.New(map[string]brokers.Driver{
		"NATS":     {Open: nats.Open, Class: nats.Class},
		"Embedded": {Open: nats.Open, Class: nats.Class},
	}, secretReader(mgr.GetAPIReader()))
	defer sessions.Close()
	_, err = controllers.New(mgr, controllers.Options{
		Settings: workload.Settings{
			WorkerImage: c.image, PullPolicy: c.pullPolicy, Drain: c.drain,
			ManagerNamespace: c.namespace, AllowPrivateDial: c.privateDial,
		},
		Brokers: sessions, Concurrency: c.concurrency, Metrics: metrics.Registry,
	})
	if err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// metricsOptions: who may read metrics is for the cluster's own roles to say (system:auth-delegator, nonResourceURLs /metrics).
func metricsOptions(c config) metricsserver.Options {
	o := metricsserver.Options{BindAddress: c.metrics}
	if !c.plainMetrics {
		o.SecureServing = true
		o.FilterProvider = filters.WithAuthenticationAndAuthorization
		o.TLSOpts = []func(*tls.Config){func(t *tls.Config) { t.MinVersion = tls.VersionTLS12 }}
	}
	return o
}

// secretReader reads one Secret at a time, by name and from no cache.
func secretReader(from client.Reader) func(context.Context, types.NamespacedName) (map[string][]byte, error) {
	return func(ctx context.Context, name types.NamespacedName) (map[string][]byte, error) {
		var s corev1.Secret
		err := client.IgnoreNotFound(from.Get(ctx, name, &s))
		return s.Data, err
	}
}
