package envtest

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

var _ = Describe("A new worker image, or other variables of the manager", func() {
	It("roll twenty resources at a time, while the others go on as they are", func(ctx SpecContext) {
		const all, atOnce = 24, 20
		namespace := newNamespace(ctx)
		apply(ctx, natsBroker(namespace, "main"), topic(namespace, "orders"))
		ready(ctx, namespace, "Topic", "orders")
		Expect(k8s.Delete(ctx, topic(namespace, "orders"))).To(Succeed())
		Eventually(gone(ctx, topic(namespace, "orders"))).Should(BeTrue())
		name := func(i int) string { return fmt.Sprintf("s-%d", i) }
		deployment := func(i int) *appsv1.Deployment {
			return &appsv1.Deployment{ObjectMeta: named(namespace, name(i)+"-topic")}
		}
		for i := range all {
			apply(ctx, topic(namespace, name(i)))
		}
		for i := range all {
			ready(ctx, namespace, "Topic", name(i))
		}
		settled(ctx, namespace)
		var release []func()
		hold := func() {
			for i := range all {
				release = append(release, pods.hold(context.Background(), deployment(i)))
			}
		}
		hold()
		letGo := func() {
			GinkgoHelper()
			for _, f := range release {
				f()
			}
			release = nil
		}
		DeferCleanup(letGo)

		old, oldEnv := settings.WorkerImage, settings.Env
		restart := func(image string, env map[string]string) {
			stopOperator()
			settings.WorkerImage, settings.Env = image, env
			startOperator()
		}
		DeferCleanup(func() { restart(old, oldEnv) })
		variable := func(d *appsv1.Deployment) string {
			for _, v := range d.Spec.Template.Spec.Containers[0].Env {
				if v.Name == "STAGE" {
					return v.Value
				}
			}
			return ""
		}
		renewed := func() (n int) {
			GinkgoHelper()
			for i := range all {
				d := deployment(i)
				Expect(k8s.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
				image, stage := d.Spec.Template.Spec.Containers[0].Image == settings.WorkerImage, variable(d) == settings.Env["STAGE"]
				if image && stage {
					n++
				} else {
					Expect(stage).To(BeFalse(), "it changes with the image, and by itself in turns too")
				}
			}
			return n
		}
		restart("example.com/waybill-worker:new", map[string]string{"STAGE": "a"})
		Eventually(renewed).Should(Equal(atOnce))
		settled(ctx, namespace)
		Expect(renewed()).To(Equal(atOnce))

		// Those that wait are what they were, and what else is declared of them goes on.
		for i := range all {
			d := deployment(i)
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
			if d.Spec.Template.Spec.Containers[0].Image == old {
				Expect(condition(ctx, "Topic", namespace, name(i), v1alpha1.ConditionReady)()).To(Equal("True/Running"))
				patch(ctx, topic(namespace, name(i)), `{"spec":{"replicas":2}}`)
				Eventually(func(g Gomega) {
					g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
					g.Expect(*d.Spec.Replicas).To(Equal(int32(2)))
				}).Should(Succeed())
				Expect(d.Spec.Template.Spec.Containers[0].Image).To(Equal(old))
				Expect(variable(d)).To(BeEmpty())
				release[i]()
				ready(ctx, namespace, "Topic", name(i))
				break
			}
		}
		// A restart in the middle starts no more: what is on its way is seen by its Deployments.
		stopOperator()
		startOperator()
		settled(ctx, namespace)
		Expect(renewed()).To(Equal(atOnce))

		letGo()
		Eventually(renewed).Should(Equal(all))
		for i := range all {
			ready(ctx, namespace, "Topic", name(i))
		}
		settled(ctx, namespace)

		hold()
		restart(settings.WorkerImage, map[string]string{"STAGE": "b"})
		Eventually(renewed).Should(Equal(atOnce))
		stopOperator()
		startOperator()
		settled(ctx, namespace)
		Expect(renewed()).To(Equal(atOnce))
		letGo()
		Eventually(renewed).Should(Equal(all))
	}, NodeTimeout(2*patience))
})
