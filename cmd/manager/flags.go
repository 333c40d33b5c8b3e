package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
)

// config is what the flags say.
type config struct {
	kubeconfig        string
	image, pullPolicy string
	drain             time.Duration
	workerEnv         []string // NAME=VALUE
	env               map[string]string
	metrics, health   string
	plainMetrics      bool
	leaderElection    bool
	lease             time.Duration
	namespace         string
	watch             []string
	concurrency       int
	privateDial       bool
	debug             bool
}

// leastLease leaves time for a few signs of life, in whole seconds as the Lease has them.
const leastLease = 2 * time.Second

const about = `manager is the operator of Waybill: it makes workers, and what they need on brokers and in the cluster, be as the declared
resources say, and tells in their status how they are. It takes its rights from config/rbac and moves no message itself.

Flags:
`

// readFlags reads the command line. pflag.ErrHelp: help was asked for, and out has it.
func readFlags(args []string, env func(string) string, out io.Writer) (config, error) {
	var c config
	f := pflag.NewFlagSet("manager", pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() { fmt.Fprint(out, about, f.FlagUsagesWrapped(120)) }
	f.StringVar(&c.image, "worker-image", env("WORKER_IMAGE"), "`image` of the workers; needed; the variable WORKER_IMAGE may say it")
	f.StringVar(&c.pullPolicy, "worker-pull-policy", "", "Always, IfNotPresent or Never; without it as the cluster does")
	f.DurationVar(&c.drain, "worker-drain", 30*time.Second, "how long a worker may finish what is in flight when its Pod ends")
	f.StringArrayVar(&c.workerEnv, "worker-env", nil, "variable of every worker, as `NAME=VALUE`; may be given several times; no secrets")
	f.StringSliceVar(&c.watch, "watch-namespaces", nil, "look only after these `namespaces`, divided by commas; without it after all")
	f.IntVar(&c.concurrency, "concurrency", 4, "how many resources are looked after at once")
	f.BoolVar(&c.privateDial, "allow-private-dial", false, "let manifests make workers reach loopback and link-local addresses")
	f.StringVar(&c.namespace, "namespace", env("POD_NAMESPACE"), "`namespace` of the manager itself; the variable POD_NAMESPACE may say it")
	f.BoolVar(&c.leaderElection, "leader-election", true, "let one of several managers work at a time, by the Lease waybill-manager in --namespace")
	f.DurationVar(&c.lease, "lease", 15*time.Second, "how long after the last sign of life of the one that leads another one may")
	f.StringVar(&c.metrics, "metrics", ":8443", "`address` of /metrics, over HTTPS to who may get /metrics; 0: none")
	f.BoolVar(&c.plainMetrics, "plain-metrics", false, "serve /metrics over HTTP and to everybody")
	f.StringVar(&c.health, "health", ":8081", "`address` of /healthz and /readyz")
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "`file` that says how to reach the cluster; without it KUBECONFIG, or the Pod's own account")
	f.BoolVar(&c.debug, "debug", false, "log more")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if err := c.check(f.Args()); err != nil {
		return c, err
	}
	var err error
	c.env, err = readVariables(c.workerEnv)
	return c, err
}

// readVariables reads those of --worker-env. They stand in Pods, where many may read them, so what is known to hold a token is refused. An error
// has no value, for a log is no place for one that should not have been there; what has no = may be a value altogether, and so may what looks like a name of one that has.
func readVariables(list []string) (map[string]string, error) {
	vars := map[string]string{}
	for i, v := range list {
		name, value, ok := strings.Cut(v, "=")
		_, twice := vars[name]
		switch {
		case !ok:
			return nil, errors.New("--worker-env has no = in it: it must be NAME=VALUE")
		case len(validation.IsEnvVarName(name)) > 0:
			return nil, fmt.Errorf("--worker-env, number %d of them: it must be NAME=VALUE, with a name of letters, digits, '_', '-' and '.' that does not begin with a digit", i+1)
		case strings.HasPrefix(name, "KUBERNETES_"):
			return nil, fmt.Errorf("--worker-env has %s: by KUBERNETES_* a Pod is told where its cluster's API is, so it cannot be set", name)
		case twice:
			return nil, fmt.Errorf("--worker-env has %s twice: keep one", name)
		case strings.HasPrefix(name, "OTEL_") && strings.HasSuffix(name, "_HEADERS"):
			return nil, fmt.Errorf("--worker-env has %s, which mostly holds a token that everybody could read in the Pods: give it to a resource from a Secret, by spec.workload.env", name)
		}
		vars[name] = value
	}
	return vars, nil
}

// check refuses what cannot work, before anything is started.
func (c config) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%q is one argument too many: there are only flags", rest[0])
	case c.image == "":
		return errors.New("--worker-image is missing: name the image that workers run, here or in the variable WORKER_IMAGE")
	case !slices.Contains([]string{"", "Always", "IfNotPresent", "Never"}, c.pullPolicy):
		return fmt.Errorf("--worker-pull-policy is %q: it must be Always, IfNotPresent or Never", c.pullPolicy)
	case c.drain < 0:
		return fmt.Errorf("--worker-drain is %v: it must be 0s or longer", c.drain)
	case c.concurrency < 1:
		return fmt.Errorf("--concurrency is %d: it must be 1 or more", c.concurrency)
	case c.leaderElection && c.namespace == "":
		return errors.New("--namespace is missing: name the namespace of the manager, where its Lease is, here or in the variable POD_NAMESPACE; or set --leader-election=false")
	case c.lease < leastLease:
		return fmt.Errorf("--lease is %v: it must be %v or longer", c.lease, leastLease)
	case slices.Contains(c.watch, ""):
		return fmt.Errorf("--watch-namespaces is %q: one of the names is empty", strings.Join(c.watch, ","))
	}
	return nil
}

// flagError prints what is wrong with the flags, and gives an exit code that tells what was called wrongly (2) from what did not work (1).
func flagError(err error) int {
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	fmt.Fprintf(os.Stderr, "manager: %v\n'manager --help' says more\n", err)
	return 2
}
