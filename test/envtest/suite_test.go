// Package envtest shows the operator at work against a real API server and etcd, with a real NATS server for its broker objects. What a cluster
// has besides, Pods above all, is played by cluster_test.go.
package envtest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/controllers"
	"github.com/waybill-dev/waybill/controllers/brokers"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/test/laptop"
)

const root = "../.."

var (
	k8s      client.Client // asks the API server itself
	manager  *rest.Config  // the operator's, with its own rights and no more
	writes   *counter      // of the operator's requests
	operator *controllers.Controller
	sessions *brokers.Sessions
	server   *nats.Embedded
	pods     *cluster

	kubeconfig string     // of an administrator, for kubectl
	suite      *testing.T // takes rows for the end of `make test`
)

// settings are as a manager has them.
var settings = workload.Settings{WorkerImage: "example.com/waybill-worker:test"}

func TestMain(m *testing.M) { os.Exit(laptop.Main(m)) }

func TestOperator(t *testing.T) {
	assets, err := findAssets()
	if err != nil {
		t.Attr("not-exercised", "the operator against a real API server: "+err.Error())
		return
	}
	t.Setenv("KUBEBUILDER_ASSETS", assets)
	suite = t
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(time.Minute)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	limits, reporter := GinkgoConfiguration()
	limits.Timeout = 20 * time.Minute
	reporter.Succinct, reporter.NoColor = true, true
	if limits.LabelFilter == "" && len(limits.FocusStrings) == 0 {
		limits.LabelFilter = "!" + aside
		await := besides(t)
		defer await()
	}
	RunSpecs(t, "Operator", limits, reporter)
}

// aside is the label of the specs that wait for long: for managers that start, lead and are killed, and for operators that start anew.
const aside = "aside"

// besides runs these specs beside the others, in a process of its own with its own API server, for a process runs one spec at a time.
func besides(t *testing.T) (await func()) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestOperator$", "-test.v", "-ginkgo.label-filter", aside)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := cmd.Wait(); err != nil {
			t.Errorf("the specs with the label %s: %v\n%s", aside, err, said.String())
		}
		if !strings.Contains(said.String(), "SUCCESS!") {
			t.Errorf("the specs with the label %s: none was run:\n%s", aside, said.String())
		}
		for line := range strings.Lines(said.String()) {
			if _, row, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=== ATTR  TestOperator report "); ok {
				t.Attr("report", row)
			}
		}
	}
}

// findAssets are etcd and kube-apiserver, built when they are not there.
func findAssets() (string, error) {
	var said strings.Builder
	cmd := exec.Command(filepath.Join(root, "hack", "kubernetes.sh"))
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		return "", fmt.Errorf("%s", lines[len(lines)-1])
	}
	return strings.TrimSpace(string(out)), nil
}

var _ = BeforeSuite(func(ctx SpecContext) {
	ctrl.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(GinkgoWriter, nil)))
	scheme, err := controllers.Scheme()
	Expect(err).NotTo(HaveOccurred())

	env := &envtest.Environment{Scheme: scheme, CRDDirectoryPaths: []string{filepath.Join(root, "config", "crd", "bases")}, ErrorIfCRDPathMissing: true}
	env.ControlPlane.GetAPIServer().Configure().Set("max-requests-inflight", "2000").Set("max-mutating-requests-inflight", "1000").
		Set("service-cluster-ip-range", "10.0.0.0/16")
	config, err := env.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(env.Stop)
	config.QPS, config.Burst = -1, 0
	kubeconfig = filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(os.WriteFile(kubeconfig, env.KubeConfig, 0o600)).To(Succeed())
	k8s, err = client.New(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	manager = asManager(ctx, env, config)

	dir, err := os.MkdirTemp("", "waybill-nats")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	server, err = nats.StartEmbedded(ctx, nats.EmbeddedConfig{Dir: dir, Listen: "127.0.0.1:0"})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { _ = server.Shutdown(context.Background()) })

	clusterCtx, stop := context.WithCancel(context.Background())
	DeferCleanup(stop)
	pods = startCluster(clusterCtx, config, scheme)
	startOperator()
	DeferCleanup(func() { stopOperator() })
}, NodeTimeout(patience))

// asManager is who the operator is: a user to whom the generated role is bound.
func asManager(ctx context.Context, env *envtest.Environment, config *rest.Config) *rest.Config {
	text, err := os.ReadFile(filepath.Join(root, "config", "rbac", "role.yaml"))
	Expect(err).NotTo(HaveOccurred())
	role := new(rbacv1.ClusterRole)
	Expect(yaml.UnmarshalStrict(text, role)).To(Succeed())
	role.Name = "test" // config/default, which tests deploy, has one of the original's name
	Expect(k8s.Create(ctx, role)).To(Succeed())
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "test"}}
	binding.RoleRef = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name}
	binding.Subjects = []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "manager"}}
	Expect(k8s.Create(ctx, binding)).To(Succeed())
	user, err := env.AddUser(envtest.User{Name: "manager"}, config)
	Expect(err).NotTo(HaveOccurred())
	return user.Config()
}

// startOperator runs the operator as cmd/manager does, until stopOperator. It has little patience with brokers that are away.
func startOperator() {
	GinkgoHelper()
	startPatient(4 * time.Second)
}

// startPatient is startOperator with another time that a deletion waits for a broker.
func startPatient(away time.Duration) {
	GinkgoHelper()
	ctx, stop := context.WithCancel(context.Background())
	writes = newCounter()
	cfg := rest.CopyConfig(manager)
	cfg.Wrap(writes.wrap)
	cfg.Wrap(cuts.wrap)
	options := controllers.ManagerOptions(k8s.Scheme())
	options.Metrics = metricsserver.Options{BindAddress: "0"}
	options.Controller.SkipNameValidation = new(true)
	mgr, err := ctrl.NewManager(cfg, options)
	Expect(err).NotTo(HaveOccurred())
	sessions = brokers.New(map[string]brokers.Driver{
		"NATS":     {Open: nats.Open, Class: nats.Class},
		"Embedded": {Open: server.Open, Class: nats.Class}, // the Pods that would be one are played
	}, func(ctx context.Context, name types.NamespacedName) (map[string][]byte, error) {
		var s corev1.Secret
		err := mgr.GetAPIReader().Get(ctx, name, &s)
		return s.Data, client.IgnoreNotFound(err)
	})
	operator, err = controllers.New(mgr, controllers.Options{
		Settings: settings, Brokers: sessions, Probe: time.Second, Recheck: 5 * time.Second,
		AwayDeadline: away, GoneDeadline: 2 * time.Second, Workers: workers,
	})
	Expect(err).NotTo(HaveOccurred())
	ended := make(chan struct{})
	go func() {
		defer GinkgoRecover()
		defer close(ended)
		Expect(mgr.Start(ctx)).To(Succeed())
	}()
	running.stop, running.ended = stop, ended
}

// newNamespace makes a namespace for one spec, and has everything in it looked at when the spec ends.
func newNamespace(ctx context.Context) string {
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t"}}
	Expect(k8s.Create(ctx, n)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		checkConditions(ctx, n.Name)
		removeAll(ctx, n.Name)
	}, NodeTimeout(patience))
	return n.Name
}

// gone reports whether an object is not there any more.
func gone(ctx context.Context, o client.Object) func() bool {
	return func() bool { return apierrors.IsNotFound(k8s.Get(ctx, client.ObjectKeyFromObject(o), o)) }
}
