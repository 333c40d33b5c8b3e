package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion is the group and version of every kind in this package.
	GroupVersion = schema.GroupVersion{Group: "waybill.dev", Version: "v1alpha1"}

	// SchemeBuilder collects what AddToScheme registers.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme makes the kinds of this package known to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&Broker{}, &BrokerList{},
		&Topic{}, &TopicList{},
		&Subscription{}, &SubscriptionList{},
		&Mailbox{}, &MailboxList{},
		&Poller{}, &PollerList{},
		&Endpoint{}, &EndpointList{},
		&Pipeline{}, &PipelineList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
