package envtest

import (
	"context"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
)

// farewells are what each policy does with a resource in which messages wait, or none.
var farewells = []struct {
	name   string
	policy v1alpha1.DeletionPolicy
	full   bool
	waits  bool // until somebody decides otherwise
	stays  bool // what it made
}{
	{"unsaid", "", true, false, true},
	{"retained", v1alpha1.DeletionRetain, true, false, true},
	{"deleted", v1alpha1.DeletionDelete, true, false, false},
	{"empty", v1alpha1.DeletionDeleteIfEmpty, false, false, false},
	{"full", v1alpha1.DeletionDeleteIfEmpty, true, true, false},
}

// A leaver is a resource that is deleted, and what it made that may outlive it.
type leaver struct {
	client.Object
	kind         string
	waits, stays bool
	deletes      bool         // asks something of the broker
	made         []driver.Ref // on the broker, the one that holds messages first
	checkpoint   string
}

// leavers are resources of each kind with each policy that it may have. Those that read a Topic read orders, in which a message lies, or quiet.
func leavers(namespace string) (all []*leaver) {
	broker, start := v1alpha1.ResourceReference{Name: "main"}, &v1alpha1.StartFrom{Position: v1alpha1.StartEarliest}
	for _, f := range farewells {
		from := map[bool]string{true: "orders", false: "quiet"}[f.full]
		on := namespace + "_" + f.name
		meta := func() metav1.ObjectMeta { return named(namespace, f.name) }
		group := func(kind string) []driver.Ref {
			return []driver.Ref{{Kind: driver.Group, Name: on + kind, Of: namespace + "_" + from}, {Kind: driver.Queue, Name: on + kind + "_dead"}}
		}
		of := []*leaver{
			{kind: "Topic", made: []driver.Ref{{Kind: driver.Topic, Name: on}}, Object: &v1alpha1.Topic{ObjectMeta: meta(),
				Spec: v1alpha1.TopicSpec{BrokerRef: broker, DeletionPolicy: f.policy}}},
			{kind: "Mailbox", made: []driver.Ref{{Kind: driver.Queue, Name: on + "_mailbox"}, {Kind: driver.Queue, Name: on + "_mailbox_dead"}},
				Object: &v1alpha1.Mailbox{ObjectMeta: meta(), Spec: v1alpha1.MailboxSpec{BrokerRef: broker, DeletionPolicy: f.policy}}},
			{kind: "Subscription", made: group("_subscription"), Object: subscription(namespace, f.name, from, func(s *v1alpha1.SubscriptionSpec) {
				s.StartFrom, s.DeletionPolicy = start, f.policy
			})},
			{kind: "Pipeline", made: group("_pipeline"), Object: &v1alpha1.Pipeline{ObjectMeta: meta(), Spec: v1alpha1.PipelineSpec{StartFrom: start, DeletionPolicy: f.policy,
				From: v1alpha1.PipelineSource{TopicRef: &v1alpha1.ResourceReference{Name: from}}, To: v1alpha1.PipelineTarget{MailboxRef: &v1alpha1.ResourceReference{Name: "sink"}}}}},
		}
		for _, l := range of {
			l.waits, l.stays, l.deletes = f.waits, f.stays, !f.stays
		}
		if f.policy != v1alpha1.DeletionDeleteIfEmpty { // a checkpoint is never empty
			of = append(of, &leaver{kind: "Poller", stays: f.stays, checkpoint: f.name + "-poller-checkpoint", Object: &v1alpha1.Poller{ObjectMeta: meta(), Spec: v1alpha1.PollerSpec{
				Schedule: v1alpha1.Schedule{Every: &metav1.Duration{Duration: patience}}, DeletionPolicy: f.policy,
				HTTP: &v1alpha1.HTTPSource{URL: "https://example.com/rates"}, To: v1alpha1.PollerTarget{TopicRef: &v1alpha1.ResourceReference{Name: "quiet"}}}}})
		}
		all = append(all, of...)
	}
	return append(all, &leaver{kind: "Endpoint", Object: &v1alpha1.Endpoint{ObjectMeta: named(namespace, "intake"), Spec: v1alpha1.EndpointSpec{
		Pattern: v1alpha1.PatternRequestAck, To: v1alpha1.EndpointTarget{TopicRef: &v1alpha1.ResourceReference{Name: "quiet"}}}}})
}

// expectLeft: what the resource made is there still, or all of it is gone.
func (l *leaver) expectLeft(ctx context.Context, on *nats.Embedded, there bool) {
	GinkgoHelper()
	for _, ref := range l.made {
		Expect(onServer(ctx, on, ref).Exists).To(Equal(there), ref.Name)
	}
	if l.checkpoint != "" {
		Expect(gone(ctx, &corev1.ConfigMap{ObjectMeta: named(l.GetNamespace(), l.checkpoint)})()).To(Equal(!there), l.checkpoint)
	}
}

var _ = Describe("Deleting resources of every kind with every policy", func() {
	for _, test := range []struct {
		name    string
		away    bool
		decides v1alpha1.DeletionPolicy // for what waits
	}{
		{"does with the broker's objects as it says", false, v1alpha1.DeletionRetain},
		{"waits for a broker that is away, where the policy asks something of it", true, v1alpha1.DeletionDelete},
	} {
		It(test.name, func(ctx SpecContext) {
			namespace, dir := newNamespace(ctx), GinkgoT().TempDir()
			var own *nats.Embedded
			listen := func(address string) {
				GinkgoHelper()
				var err error
				own, err = nats.StartEmbedded(ctx, nats.EmbeddedConfig{Dir: dir, Listen: address})
				Expect(err).NotTo(HaveOccurred())
			}
			listen("127.0.0.1:0")
			DeferCleanup(func() { _ = own.Shutdown(context.Background()) })
			if test.away {
				stopOperator()
				startPatient(patience)
				DeferCleanup(func() {
					stopOperator()
					startOperator()
				})
			}
			b, all := natsBroker(namespace, "main"), leavers(namespace)
			b.Spec.NATS.Servers = []v1alpha1.BrokerAddress{v1alpha1.BrokerAddress(own.Addr())}
			apply(ctx, b, topic(namespace, "orders"), topic(namespace, "quiet"),
				&v1alpha1.Mailbox{ObjectMeta: named(namespace, "sink"), Spec: v1alpha1.MailboxSpec{BrokerRef: v1alpha1.ResourceReference{Name: "main"}}})
			for _, l := range all {
				apply(ctx, l.Object)
			}
			for _, l := range all {
				ready(ctx, namespace, l.kind, l.GetName())
				l.expectLeft(ctx, own, true)
				if (l.kind == "Topic" || l.kind == "Mailbox") && l.GetName() != "empty" {
					publishTo(ctx, own, l.made[0])
				}
			}
			publishTo(ctx, own, driver.Ref{Kind: driver.Topic, Name: namespace + "_orders"})

			if test.away {
				address := strings.TrimPrefix(own.Addr(), "nats://")
				Expect(own.Shutdown(ctx)).To(Succeed())
				Eventually(condition(ctx, "Broker", namespace, "main", v1alpha1.ConditionReady)).Should(Equal("False/Unreachable"))
				for _, l := range all {
					Expect(k8s.Delete(ctx, l.Object)).To(Succeed())
				}
				for _, l := range all {
					who := l.kind + "/" + l.GetName()
					if l.deletes {
						Eventually(condition(ctx, l.kind, namespace, l.GetName(), v1alpha1.ConditionReady)).Should(Equal("False/UnreachableFromManager"), who)
					} else {
						Eventually(gone(ctx, l.Object)).Should(BeTrue(), who)
					}
				}
				listen(address)
			} else {
				for _, l := range all {
					Expect(k8s.Delete(ctx, l.Object)).To(Succeed())
				}
			}
			for _, l := range all {
				who := l.kind + "/" + l.GetName()
				if !l.waits {
					Eventually(gone(ctx, l.Object)).Should(BeTrue(), who)
					l.expectLeft(ctx, own, l.stays)
					continue
				}
				Eventually(condition(ctx, l.kind, namespace, l.GetName(), v1alpha1.ConditionReady)).Should(Equal("False/NotEmpty"), who)
				Expect(says(ctx, l.kind, namespace, l.GetName(), v1alpha1.ConditionReady)()).To(ContainSubstring(l.made[0].Name+" has 1 messages left"), who)
				l.expectLeft(ctx, own, true)
				patch(ctx, l.Object, `{"spec":{"deletionPolicy":"%s"}}`, test.decides)
				Eventually(gone(ctx, l.Object)).Should(BeTrue(), who)
				l.expectLeft(ctx, own, test.decides == v1alpha1.DeletionRetain)
			}
		}, NodeTimeout(2*patience))
	}
})
