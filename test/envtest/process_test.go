package envtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/test/laptop"
)

// home is the namespace of the manager in config/default.
const home = "waybill-system"

// A process is a manager as its image runs it.
type process struct {
	cmd             *exec.Cmd
	health, metrics string // addresses
	ended           chan error

	mu  sync.Mutex
	log bytes.Buffer
}

// binary builds a command once, as the tests are built.
func binary(name string) string {
	GinkgoHelper()
	return laptop.Build(GinkgoTB(), "./cmd/"+name, laptop.AsTests()...)
}

// startProcess starts a manager under the rights of config/rbac and no others.
func startProcess(ctx context.Context, args ...string) *process {
	GinkgoHelper()
	p := &process{health: freeAddress(), metrics: freeAddress(), ended: make(chan error, 1)}
	p.cmd = exec.Command(binary("manager"), append([]string{
		"--kubeconfig", tokenConfig(ctx, home, "waybill-manager"), "--namespace", home, "--worker-image", settings.WorkerImage,
		"--health", p.health, "--metrics", p.metrics, "--lease", "2s"}, args...)...)
	p.cmd.Stderr = p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // if the test dies
	Expect(p.cmd.Start()).To(Succeed())
	go func() { p.ended <- p.cmd.Wait() }()
	DeferCleanup(func() {
		p.kill()
		AddReportEntry("log of a manager", p.said(), ReportEntryVisibilityFailureOrVerbose)
	})
	return p
}

// kill is kill -9, and waits for the end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
	}
}

// Write takes the log.
func (p *process) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(text)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *process) leads() bool { return strings.Contains(p.said(), "Successfully acquired lease") }

// ready reports whether it says so to a kubelet.
func (p *process) ready() bool {
	code, _ := ask("http://"+p.health+"/readyz", "")
	return code == http.StatusOK
}

// ask gets a page; the code is 0 when nobody answers.
func ask(url, token string) (code int, body string) {
	request, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err.Error()
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	// The certificate is the manager's own, made when it started.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true} //nolint:gosec // as said
	response, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

func freeAddress() string {
	GinkgoHelper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	defer l.Close()
	return l.Addr().String()
}

// tokenOf is what a Pod of a ServiceAccount would have mounted.
func tokenOf(ctx context.Context, namespace, account string) string {
	GinkgoHelper()
	request := new(authenticationv1.TokenRequest)
	Expect(k8s.SubResource("token").Create(ctx, &corev1.ServiceAccount{ObjectMeta: named(namespace, account)}, request)).To(Succeed())
	return request.Status.Token
}

func tokenConfig(ctx context.Context, namespace, account string) string {
	GinkgoHelper()
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: manager.Host, CertificateAuthorityData: manager.CAData}
	config.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: tokenOf(ctx, namespace, account)}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	config.CurrentContext = "test"
	file := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(clientcmd.WriteToFile(*config, file)).To(Succeed())
	return file
}

// kubectl is what a person has at hand, with an administrator's rights.
func kubectl(ctx context.Context, input string, args ...string) string {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, kubectlPath(), append([]string{"--kubeconfig", kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "kubectl %s: %s", strings.Join(args, " "), out)
	return string(out)
}

func kubectlPath() string {
	built := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")
	if _, err := os.Stat(built); err != nil {
		return "kubectl"
	}
	return built
}

// makeTarget runs a target of the Makefile against the cluster of the test.
func makeTarget(ctx context.Context, args ...string) string {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, "make", append([]string{"--no-print-directory", "KUBECTL=" + kubectlPath()}, args...)...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "KUBECONFIG="+kubeconfig)
	out, err := cmd.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "make %v: %s", args, out)
	return string(out)
}

// deployed installs the operator as README says, and has it removed when the spec, or the container of it, is done. Nobody runs its Pod:
// processes play that, instead of the operator of this process.
func deployed(ctx context.Context) {
	GinkgoHelper()
	stopOperator()
	DeferCleanup(startOperator)
	out := makeTarget(ctx, "install", "deploy")
	Expect(out).NotTo(ContainSubstring("Warning"))
	DeferCleanup(func(ctx SpecContext) {
		over, stop := context.WithCancel(ctx)
		defer stop()
		go endNamespace(over, home)
		makeTarget(ctx, "undeploy")
		left, err := exec.CommandContext(ctx, kubectlPath(), "--kubeconfig", kubeconfig, "get", "--ignore-not-found", "-o", "name",
			"-k", filepath.Join(root, "config", "rbac")).CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(left))
		Expect(string(left)).To(BeEmpty(), "undeploy leaves nothing of config/rbac")
		Expect(gone(ctx, &corev1.Namespace{ObjectMeta: named("", home)})()).To(BeTrue())
	}, NodeTimeout(patience))
}

// endNamespace plays the namespace controller: it lets a namespace go that is being deleted, with what is left in it.
func endNamespace(ctx context.Context, name string) {
	n := new(corev1.Namespace)
	for ctx.Err() == nil {
		if k8s.Get(ctx, client.ObjectKey{Name: name}, n) == nil && n.DeletionTimestamp != nil {
			_ = k8s.DeleteAllOf(ctx, &corev1.ConfigMap{}, client.InNamespace(name))
			n.Spec.Finalizers = nil
			_ = k8s.SubResource("finalize").Update(ctx, n)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// mayRead lets a ServiceAccount read what a role of config/rbac is for.
func mayRead(ctx context.Context, role, namespace, account string) {
	GinkgoHelper()
	b := &rbacv1.ClusterRoleBinding{ObjectMeta: named("", fmt.Sprintf("test-%s-%s", namespace, account))}
	b.RoleRef = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
	b.Subjects = []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}}
	apply(ctx, b)
	DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, b)).To(Succeed()) })
}
