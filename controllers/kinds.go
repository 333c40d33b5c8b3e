package controllers

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// Scheme knows every type that the operator reads or writes.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(s); err != nil {
		return nil, err
	}
	return s, v1alpha1.AddToScheme(s)
}

// A kind is what the controller has to know of one kind.
type kind struct {
	name string
	new  func() client.Object
	// list adds every object of the kind to what is compiled, and calls each with it. They are the cache's own and must not be changed.
	list func(ctx context.Context, from client.Reader, into *compile.Input, each func(client.Object)) error
	// parts are the places of an object at which this kind keeps what several have.
	parts func(client.Object) parts
}

// parts point into an object; nil where its kind has no such field.
type parts struct {
	common     *v1alpha1.ResourceStatus
	workload   *v1alpha1.WorkloadStatus
	address    **v1alpha1.Address
	effective  **v1alpha1.EffectiveGuarantee
	objects    *[]v1alpha1.BrokerObject
	deadLetter **v1alpha1.DeadLetterStatus
	backlog    **int64
	deletion   v1alpha1.DeletionPolicy
}

// kinds are all of them.
func kinds() []kind {
	return []kind{
		define("Broker", new(v1alpha1.BrokerList), func(l *v1alpha1.BrokerList) []v1alpha1.Broker { return l.Items },
			func(in *compile.Input) *[]*v1alpha1.Broker { return &in.Brokers },
			func(o *v1alpha1.Broker) parts { return parts{common: &o.Status.ResourceStatus} }),
		define("Topic", new(v1alpha1.TopicList), func(l *v1alpha1.TopicList) []v1alpha1.Topic { return l.Items },
			func(in *compile.Input) *[]*v1alpha1.Topic { return &in.Topics },
			func(o *v1alpha1.Topic) parts {
				s := &o.Status
				return parts{&s.ResourceStatus, &s.WorkloadStatus, &s.Address, nil, &s.Objects, nil, nil, o.Spec.DeletionPolicy}
			}),
		define("Subscription", new(v1alpha1.SubscriptionList), func(l *v1alpha1.SubscriptionList) []v1alpha1.Subscription { return l.Items },
			func(in *compile.Input) *[]*v1alpha1.Subscription { return &in.Subscriptions },
			func(o *v1alpha1.Subscription) parts {
				s := &o.Status
				return parts{&s.ResourceStatus, &s.WorkloadStatus, nil, &s.Effective, &s.Objects, &s.DeadLetter, &s.Backlog, o.Spec.DeletionPolicy}
			}),
		define("Mailbox", new(v1alpha1.MailboxList), func(l *v1alpha1.MailboxList) []v1alpha1.Mailbox { return l.Items },
			func(in *compile.Input) *[]*v1alpha1.Mailbox { return &in.Mailboxes },
			func(o *v1alpha1.Mailbox) parts {
				s := &o.Status
				return parts{&s.ResourceStatus, &s.WorkloadStatus, &s.Address, &s.Effective, &s.Objects, &s.DeadLetter, &s.Backlog, o.Spec.DeletionPolicy}
			}),
		define("Poller", new(v1alpha1.PollerList), func(l *v1alpha1.PollerList) []v1alpha1.Poller { return l.Items },
			func(in *compile.Input) *[]*v1alpha1.Poller { return &in.Pollers },
			func(o *v1alpha1.Poller) parts {
				s := &o.Status
				return parts{&s.ResourceStatus, &s.WorkloadStatus, nil, &s.Effective, nil, nil, nil, o.Spec.DeletionPolicy}
			}),
		define("Endpoint", new(v1alpha1.EndpointList), func(l *v1alpha1.EndpointList) []v1alpha1.Endpoint { return l.Items },
			func(in *compile.Input) *[]*v1alpha1.Endpoint { return &in.Endpoints },
			func(o *v1alpha1.Endpoint) parts {
				s := &o.Status
				return parts{&s.ResourceStatus, &s.WorkloadStatus, &s.Address, &s.Effective, nil, nil, nil, ""}
			}),
		define("Pipeline", new(v1alpha1.PipelineList), func(l *v1alpha1.PipelineList) []v1alpha1.Pipeline { return l.Items },
			func(in *compile.Input) *[]*v1alpha1.Pipeline { return &in.Pipelines },
			func(o *v1alpha1.Pipeline) parts {
				s := &o.Status
				return parts{&s.ResourceStatus, &s.WorkloadStatus, nil, &s.Effective, &s.Objects, &s.DeadLetter, &s.Backlog, o.Spec.DeletionPolicy}
			}),
	}
}

// define makes a kind of the few things that the compiler of Go cannot find out by itself.
func define[T, L any, O interface {
	*T
	client.Object
}, OL interface {
	*L
	client.ObjectList
}](name string, _ OL, items func(OL) []T, into func(*compile.Input) *[]O, of func(O) parts,
) kind {
	return kind{
		name: name,
		new:  func() client.Object { return O(new(T)) },
		list: func(ctx context.Context, from client.Reader, in *compile.Input, each func(client.Object)) error {
			all := OL(new(L))
			if err := from.List(ctx, all, client.UnsafeDisableDeepCopy); err != nil {
				return err
			}
			list := items(all)
			for i := range list {
				*into(in) = append(*into(in), O(&list[i]))
				each(O(&list[i]))
			}
			return nil
		},
		parts: func(o client.Object) parts { return of(o.(O)) },
	}
}

// resourceOf names an object of one of the kinds.
func resourceOf(kind string, o client.Object) plan.Resource {
	return plan.Resource{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}
}

func keyOf(r plan.Resource) client.ObjectKey {
	return client.ObjectKey{Namespace: r.Namespace, Name: r.Name}
}
