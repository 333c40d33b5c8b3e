package compile

import (
	"fmt"
	"testing"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// BenchmarkCompile compiles 1,000 Subscriptions with a filter each, on ten Topics: what a laptop or a manager does with a large namespace.
func BenchmarkCompile(b *testing.B) {
	named := func(o interface {
		SetName(string)
		SetNamespace(string)
	}, name string,
	) {
		o.SetName(name)
		o.SetNamespace("default")
	}
	in := Input{Brokers: []*v1alpha1.Broker{{Spec: v1alpha1.BrokerSpec{Type: v1alpha1.BrokerEmbedded}}}}
	named(in.Brokers[0], "main")
	for i := range 10 {
		t := &v1alpha1.Topic{Spec: v1alpha1.TopicSpec{BrokerRef: v1alpha1.ResourceReference{Name: "main"}}}
		named(t, fmt.Sprintf("topic-%d", i))
		in.Topics = append(in.Topics, t)
	}
	for i := range 1000 {
		s := &v1alpha1.Subscription{Spec: v1alpha1.SubscriptionSpec{
			TopicRef:  v1alpha1.ResourceReference{Name: fmt.Sprintf("topic-%d", i%10)},
			Filter:    &v1alpha1.Expression{CEL: `type == "order.created" && data.total > 100`},
			DeliverTo: v1alpha1.Destination{URI: "https://example.com/events"},
		}}
		named(s, fmt.Sprintf("subscription-%d", i))
		in.Subscriptions = append(in.Subscriptions, s)
	}
	for b.Loop() {
		if res := Compile(in); len(res.Diagnostics) > 0 {
			b.Fatal(res.Diagnostics[0])
		}
	}
}
