package envtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// quickstart are the samples of the quickstart but for their broker, as a person would give them to kubectl.
func quickstart() string {
	GinkgoHelper()
	files, err := filepath.Glob(filepath.Join(root, "config", "samples", "quickstart", "*.yaml"))
	Expect(err).NotTo(HaveOccurred())
	var texts []string
	for _, file := range files {
		if filepath.Base(file) == "broker.yaml" {
			continue
		}
		text, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		texts = append(texts, string(text))
	}
	return strings.Join(texts, "\n---\n")
}

var _ = Describe("The manager, deployed", Ordered, Label(aside), func() {
	BeforeAll(func(ctx SpecContext) { deployed(ctx) }, NodeTimeout(patience))

	It("does under its own rights what a person asks for by kubectl, tells it, and ends in order", func(ctx SpecContext) {
		const password = "corr3ct-horse"
		namespace := newNamespace(ctx)
		p := startProcess(ctx)
		Eventually(p.ready).WithContext(ctx).Should(BeTrue())
		code, _ := ask("http://"+p.health+"/healthz", "")
		Expect(code).To(Equal(http.StatusOK))

		b := natsBroker(namespace, "main")
		b.Spec.SecretRef = &v1alpha1.SecretReference{Name: "nats-user"}
		apply(ctx, &corev1.Secret{ObjectMeta: named(namespace, "nats-user"), StringData: map[string]string{"username": "waybill", "password": password}}, b)
		kubectl(ctx, quickstart(), "apply", "-n", namespace, "-f", "-")
		for _, u := range everything(ctx, namespace) {
			ready(ctx, namespace, u.GetKind(), u.GetName())
		}
		list := kubectl(ctx, "", "get", "waybill", "-n", namespace)
		Expect(list).To(MatchRegexp(`broker.waybill.dev/main +NATS +\d+\.\d+\.\d+ +True +Reachable`))
		Expect(list).To(MatchRegexp(`endpoint.waybill.dev/intake +RequestAck +http://intake-endpoint\.%s\.svc/intake +True +Running`, namespace))
		Expect(list).To(MatchRegexp(`subscription.waybill.dev/large-orders +orders .*True +Running`))
		Expect(list).NotTo(MatchRegexp(`\b(False|Unknown)\b`))
		Eventually(func() string {
			return kubectl(ctx, "", "describe", "subscriptions.waybill.dev", "-n", namespace, "large-orders")
		}).
			Should(And(ContainSubstring("Guarantee:  AtLeastOnce"), MatchRegexp(`Normal +Running .*Every Pod runs the current plan`)))

		// What is wrong is told where a person looks.
		kubectl(ctx, "", "patch", "subscriptions.waybill.dev", "-n", namespace, "large-orders", "--type=merge", "-p", `{"spec":{"filter":{"cel":"datas.total > 100"}}}`)
		Eventually(func() string {
			return kubectl(ctx, "", "describe", "subscriptions.waybill.dev", "-n", namespace, "large-orders")
		}).
			Should(MatchRegexp(`Warning +InvalidExpression .*there is no datas here; did you mean data\?`))

		Expect(p.cmd.Process.Signal(syscall.SIGTERM)).To(Succeed())
		Eventually(p.ended).WithTimeout(30 * time.Second).Should(Receive(Succeed()))
		var lease coordinationv1.Lease
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: home, Name: "waybill-manager"}, &lease)).To(Succeed())
		Expect(*lease.Spec.HolderIdentity).To(BeEmpty(), "the next one need not wait")
		for line := range strings.Lines(p.said()) {
			Expect(json.Unmarshal([]byte(line), new(map[string]any))).To(Succeed(), "each line of the log is JSON: %s", line)
			Expect(line).NotTo(ContainSubstring(password))
			// So the library calls what it was told to give up, perhaps in the middle of a renewal.
			if !strings.Contains(line, "leader election lost") && !strings.Contains(line, `"err":"context canceled"`) {
				Expect(line).NotTo(ContainSubstring(`"level":"ERROR"`))
			}
		}
	}, NodeTimeout(patience))

	It("shows its metrics to whom the cluster allows to, and to nobody else", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		apply(ctx, &corev1.ServiceAccount{ObjectMeta: named(namespace, "stranger")}, &corev1.ServiceAccount{ObjectMeta: named(namespace, "reader")})
		mayRead(ctx, "waybill-metrics-reader", namespace, "reader")
		p := startProcess(ctx, "--leader-election=false")
		Eventually(p.ready).WithContext(ctx).Should(BeTrue())
		url := "https://" + p.metrics + "/metrics"
		Eventually(func() int { code, _ := ask(url, ""); return code }).WithContext(ctx).ShouldNot(BeZero())
		for _, c := range []struct {
			token string
			want  int
		}{
			{"", http.StatusUnauthorized},
			{"no-such-token", http.StatusUnauthorized},
			{tokenOf(ctx, namespace, "stranger"), http.StatusForbidden},
			{tokenOf(ctx, namespace, "reader"), http.StatusOK},
		} {
			code, body := ask(url, c.token)
			Expect(code).To(Equal(c.want), body)
			if c.want == http.StatusOK {
				Expect(body).To(And(ContainSubstring("waybill_left_behind_total"), ContainSubstring(`controller_runtime_reconcile_total{controller="waybill"`)))
			} else {
				Expect(body).NotTo(ContainSubstring("waybill_"))
			}
		}
		code, _ := ask("http://"+p.metrics+"/metrics", tokenOf(ctx, namespace, "reader"))
		Expect(code).To(Equal(http.StatusBadRequest), "there is no way without TLS")
	}, NodeTimeout(patience))

	It("is not ready without its rights, says which it lacks, and ends when it is told to", func(ctx SpecContext) {
		apply(ctx, &corev1.ServiceAccount{ObjectMeta: named(home, "powerless")})
		p := startProcess(ctx, "--leader-election=false", "--kubeconfig", tokenConfig(ctx, home, "powerless"))
		Eventually(p.said).WithContext(ctx).Should(ContainSubstring(`cannot list resource \"deployments\"`))
		code, _ := ask("http://"+p.health+"/healthz", "")
		Expect(code).To(Equal(http.StatusOK))
		Expect(p.ready()).To(BeFalse())
		Expect(p.cmd.Process.Signal(syscall.SIGTERM)).To(Succeed())
		Eventually(p.ended).WithTimeout(30 * time.Second).Should(Receive())
	}, NodeTimeout(patience))

	It("is followed by another one that goes on where it was killed", func(ctx SpecContext) {
		const rounds, each = 3, 8
		namespace := newNamespace(ctx)
		processes := []*process{startProcess(ctx), startProcess(ctx)}
		leads := func(p *process) bool { return p.leads() }
		Eventually(func() bool { return slices.ContainsFunc(processes, leads) }).WithContext(ctx).Should(BeTrue())
		apply(ctx, natsBroker(namespace, "main"), topic(namespace, "orders"))
		ready(ctx, namespace, "Topic", "orders")
		for round := range rounds {
			for i := range each {
				apply(ctx, subscription(namespace, fmt.Sprintf("s%d-%d", round, i), "orders"))
			}
			// Some are finished, some begun, some not.
			Eventually(func(g Gomega) {
				var made appsv1.DeploymentList
				g.Expect(k8s.List(ctx, &made, client.InNamespace(namespace))).To(Succeed())
				g.Expect(len(made.Items)).To(BeNumerically(">=", 1+round*each+2))
			}).WithContext(ctx).WithPolling(2 * time.Millisecond).Should(Succeed())
			leader := slices.IndexFunc(processes, leads)
			processes[leader].kill()
			processes[leader] = startProcess(ctx)
			Eventually(processes[1-leader].leads).WithContext(ctx).Should(BeTrue())
		}
		for round := range rounds {
			for i := range each {
				ready(ctx, namespace, "Subscription", fmt.Sprintf("s%d-%d", round, i))
			}
		}
		expectExactly(ctx, namespace, "Subscription", rounds*each)
		Expect(slices.ContainsFunc(processes, func(p *process) bool { return !p.leads() })).To(BeTrue(), "one at a time")
	}, NodeTimeout(patience))
})

// expectExactly: each of n resources of a kind has its Deployment and the one plan that it runs, and there is nothing besides.
func expectExactly(ctx context.Context, namespace, kind string, n int) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		ours := client.MatchingLabels{"waybill.dev/kind": kind}
		var plans corev1.ConfigMapList
		var workloads appsv1.DeploymentList
		g.Expect(k8s.List(ctx, &plans, client.InNamespace(namespace), ours)).To(Succeed())
		g.Expect(k8s.List(ctx, &workloads, client.InNamespace(namespace), ours)).To(Succeed())
		g.Expect(plans.Items).To(HaveLen(n))
		g.Expect(workloads.Items).To(HaveLen(n))
	}).WithContext(ctx).Should(Succeed())
}
