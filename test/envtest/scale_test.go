package envtest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/test/laptop"
)

// sizes are how many resources are declared at once; `make bench-operator` asks for more than `make test`.
func sizes() []int {
	text := os.Getenv("WAYBILL_RESOURCES")
	if text == "" {
		return []int{100}
	}
	var out []int
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil {
			panic("WAYBILL_RESOURCES is not a list of numbers: " + text)
		}
		out = append(out, n)
	}
	return out
}

// many are n resources of all kinds but Brokers: of ten a Topic, a Mailbox, a Poller, an Endpoint, a Pipeline and five Subscriptions.
func many(namespace string, n int) []client.Object {
	var all []client.Object
	for i := 0; len(all) < n; i++ {
		name := fmt.Sprintf("r%d", i)
		to := &v1alpha1.ResourceReference{Name: name}
		all = append(all, topic(namespace, name),
			&v1alpha1.Mailbox{ObjectMeta: named(namespace, name), Spec: v1alpha1.MailboxSpec{BrokerRef: v1alpha1.ResourceReference{Name: "main"}}},
			&v1alpha1.Poller{ObjectMeta: named(namespace, name), Spec: v1alpha1.PollerSpec{Schedule: v1alpha1.Schedule{Every: &metav1.Duration{Duration: time.Minute}},
				HTTP: &v1alpha1.HTTPSource{URL: "https://example.com/rates"}, To: v1alpha1.PollerTarget{TopicRef: to}}},
			&v1alpha1.Endpoint{ObjectMeta: named(namespace, name), Spec: v1alpha1.EndpointSpec{Pattern: v1alpha1.PatternRequestAck, To: v1alpha1.EndpointTarget{TopicRef: to}}},
			&v1alpha1.Pipeline{ObjectMeta: named(namespace, name), Spec: v1alpha1.PipelineSpec{From: v1alpha1.PipelineSource{TopicRef: to},
				To: v1alpha1.PipelineTarget{MailboxRef: to}}})
		for j := range 5 {
			all = append(all, subscription(namespace, fmt.Sprintf("%s-%d", name, j), name, func(s *v1alpha1.SubscriptionSpec) {
				s.Filter = &v1alpha1.Expression{CEL: fmt.Sprintf("type == 'order.created' && data.total > %d", j)}
			}))
		}
	}
	return all[:n]
}

var _ = Describe("Many resources", Ordered, Label(aside), func() {
	BeforeAll(func(ctx SpecContext) { deployed(ctx) }, NodeTimeout(patience))

	for _, n := range sizes() {
		It(fmt.Sprintf("are ready after a few requests each: %d", n), func(ctx SpecContext) {
			namespace := newNamespace(ctx)
			p := startProcess(ctx, "--leader-election=false", "--plain-metrics")
			Eventually(p.ready).WithContext(ctx).Should(BeTrue())
			apply(ctx, natsBroker(namespace, "main"))
			ready(ctx, namespace, "Broker", "main")
			before := p.measure()
			began := time.Now()
			apply(ctx, many(namespace, n)...)
			declared := time.Since(began)
			Eventually(func() int { return countReady(ctx, namespace) }).WithContext(ctx).WithTimeout(10 * time.Minute).WithPolling(250 * time.Millisecond).Should(Equal(n + 1))
			took := time.Since(began)
			after := p.measure()

			var events corev1.EventList
			Expect(k8s.List(ctx, &events, client.InNamespace(namespace))).To(Succeed())
			writes := float64(after.writes-before.writes-len(events.Items)) / float64(n)
			reads := float64(after.reads-before.reads) / float64(n)
			now, peak := laptop.Memory(p.cmd.Process.Pid)
			row := fmt.Sprintf("%d resources: ready %.1fs after the first was declared (declaring took %.1fs); requests a resource: %.1f writes, %.1f reads, %.1f events; manager %d MiB (at most %d), %.1fs CPU",
				n, took.Seconds(), declared.Seconds(), writes, reads, float64(len(events.Items))/float64(n), now>>20, peak>>20, after.cpu-before.cpu)
			suite.Attr("report", row)
			AddReportEntry("scale", row)
			Expect(writes).To(BeNumerically("<=", 6.5)) // six, nine for a Poller
			if len(laptop.AsTests()) == 0 {             // the race detector takes some times as much
				Expect(peak).To(BeNumerically("<=", 150<<20))
			}
			p.kill()
		}, NodeTimeout(15*time.Minute))
	}
})

// countReady counts the resources that are ready.
func countReady(ctx context.Context, namespace string) (n int) {
	GinkgoHelper()
	for _, u := range everything(ctx, namespace) {
		for _, c := range conditionsOf(&u) {
			if c.Type == string(v1alpha1.ConditionReady) && c.Status == metav1.ConditionTrue {
				n++
			}
		}
	}
	return n
}

// A measure is what a manager tells of itself.
type measure struct {
	reads, writes int
	cpu           float64 // seconds
}

func (p *process) measure() (m measure) {
	GinkgoHelper()
	code, body := ask("http://"+p.metrics+"/metrics", "")
	Expect(code).To(Equal(200))
	for line := range strings.Lines(body) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		number, err := strconv.ParseFloat(value, 64)
		switch {
		case err != nil:
		case name == "process_cpu_seconds_total":
			m.cpu = number
		case !strings.HasPrefix(name, "rest_client_requests_total{"):
		case strings.Contains(name, `method="GET"`):
			m.reads += int(number)
		default:
			m.writes += int(number)
		}
	}
	return m
}
