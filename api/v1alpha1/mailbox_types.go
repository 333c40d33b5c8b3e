package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=mailboxes,scope=Namespaced,shortName=wbm,categories=waybill
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:printcolumn:name="Broker",type=string,JSONPath=`.spec.brokerRef.name`
// +kubebuilder:printcolumn:name="Backlog",type=integer,JSONPath=`.status.backlog`
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.status.address.url`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 48 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must be at most 48 characters, lower case letters, digits and '-', begin with a letter and not end with '-'",fieldPath=".metadata"

// Mailbox keeps messages until their recipient has taken them: by leases over HTTP, by a handler that they are pushed to, or by a Pipeline.
type Mailbox struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's own.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +required
	Spec MailboxSpec `json:"spec"`

	// status is what was found; the operator writes it.
	// +optional
	// +kubebuilder:default={observedGeneration: 0}
	Status MailboxStatus `json:"status,omitempty"`
}

// MailboxList is a list of them.
// +kubebuilder:object:root=true
type MailboxList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Mailbox `json:"items"`
}

// MailboxSpec is what a Mailbox should be.
// +kubebuilder:validation:XValidation:rule="!has(self.externalName) || !has(self.deletionPolicy) || self.deletionPolicy != 'Delete'",message="an object named by externalName is never deleted: use Retain, or leave deletionPolicy out",fieldPath=".deletionPolicy"
// +kubebuilder:validation:XValidation:rule="has(self.externalName) == has(oldSelf.externalName) && (!has(self.externalName) || self.externalName == oldSelf.externalName)",message="externalName cannot be changed, set later or removed: delete the resource and create it anew",fieldPath=".externalName"
// +kubebuilder:validation:XValidation:rule="has(self.ordering) == has(oldSelf.ordering) && (!has(self.ordering) || self.ordering == oldSelf.ordering)",message="ordering cannot be changed, for the broker's object depends on it: create a new Mailbox",fieldPath=".ordering"
// +kubebuilder:validation:XValidation:rule="has(self.deliverTo) || !has(self.timeout)",message="timeout bounds one push to a handler: set deliverTo, or remove it (the time of a lease is ackWait)",fieldPath=".timeout"
// +kubebuilder:validation:XValidation:rule="has(self.deliverTo) || !has(self.maxInFlight)",message="maxInFlight bounds pushes to a handler: set deliverTo, or remove it",fieldPath=".maxInFlight"
type MailboxSpec struct {
	// brokerRef names the Broker that keeps the messages. It cannot be changed.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="brokerRef cannot be changed: create a new Mailbox on the other broker and let this one run empty"
	BrokerRef ResourceReference `json:"brokerRef"`

	// ordering is None, Key or Strict; default None. Key needs deliverTo, or SQS. Strict hands out one message at a time. It cannot be changed.
	// +optional
	Ordering Ordering `json:"ordering,omitempty"`

	// ackWait is how long a received message is its recipient's alone, 5s to 12h; default 30s. A lease ends two seconds before it.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('5s') && duration(self) <= duration('12h')",message="must be a duration from 5s to 12h, such as 30s or 5m"
	AckWait *metav1.Duration `json:"ackWait,omitempty"`

	// deliverTo is a handler that messages are pushed to, instead of leases; its response is the reply.
	// +optional
	DeliverTo *Handler `json:"deliverTo,omitempty"`

	// timeout bounds one push to the handler, 1ms to 1h; default 30s. It needs deliverTo.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1ms') && duration(self) <= duration('1h')",message="must be a duration from 1ms to 1h, such as 10s or 2m"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// maxInFlight is the number of messages handled at one time by a replica, 1 to 10000; default 64. It needs deliverTo. Messages that wait for their next
	// attempt do not count.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	MaxInFlight *int32 `json:"maxInFlight,omitempty"`

	// retention is how much is kept; a full Mailbox refuses new messages and loses none.
	// +optional
	Retention *MailboxRetention `json:"retention,omitempty"`

	// retry says how often and how soon a failed message is tried again.
	// +optional
	Retry *Retry `json:"retry,omitempty"`

	// onFailure is Park (to the dead letter; the others go on) or Block (keep trying; those of the same key wait, with ordering None
	// nobody); default Park.
	// +optional
	OnFailure OnFailure `json:"onFailure,omitempty"`

	// deadLetter is where undeliverable messages go; default: an object of its own on the same broker, named in status.
	// +optional
	DeadLetter *DeadLetter `json:"deadLetter,omitempty"`

	// auth is what a caller of the gateway has to show; default nothing.
	// +optional
	Auth *MailboxAuth `json:"auth,omitempty"`

	// maxMessageBytes is the size of the largest data that is taken, attributes apart; default 512Ki, at least 1Ki and at most the
	// broker's own limit less 24Ki, which a dead letter needs for its history.
	// +optional
	MaxMessageBytes *resource.Quantity `json:"maxMessageBytes,omitempty"`

	// allowedNamespaces says from which namespaces resources may refer to this Mailbox; default Same.
	// +optional
	AllowedNamespaces *AllowedNamespaces `json:"allowedNamespaces,omitempty"`

	// state is Running or Paused; default Running. Paused takes messages and hands out none.
	// +optional
	State RunState `json:"state,omitempty"`

	// deletionPolicy is what becomes of the messages when this resource is deleted: Retain, DeleteIfEmpty or Delete; default Retain.
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// externalName names a queue, stream or topic that exists already, to be used instead of one that Waybill makes. It is checked, never altered and never
	// deleted. It cannot be changed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9]([-._:/A-Za-z0-9]*[A-Za-z0-9])?$')",message="must be a name that brokers take: letters, digits, '-', '_', '.', ':' and '/', such as legacy.orders"
	ExternalName string `json:"externalName,omitempty"`

	// replicas is the number of Pods of the gateway, 0 to 1000; default 1. With 0 there is no gateway. On RabbitMQ and Kafka, and with a handler in order, 1 is the most. On a laptop it is always 1.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Replicas *int32 `json:"replicas,omitempty"`

	// workload overrides how its Pods are run.
	// +optional
	Workload *Workload `json:"workload,omitempty"`
}

// Handler is an HTTP server that messages are pushed to: exactly one of its members.
// +kubebuilder:validation:XValidation:rule="[has(self.uri), has(self.serviceRef)].exists_one(x, x)",message="exactly one of uri and serviceRef must be set"
type Handler struct {
	// uri is an HTTP address.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/ ]+')",message="must be an http or https address, such as https://example.com/events"
	URI string `json:"uri,omitempty"`

	// serviceRef names a Kubernetes Service in the same namespace.
	// +optional
	ServiceRef *ServiceReference `json:"serviceRef,omitempty"`
}

// MailboxRetention is a bound on what is kept.
type MailboxRetention struct {
	// maxMessages is the number of messages at which the Mailbox is full and answers 507, at least 1; default: none. Kafka and SQS cannot count.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxMessages *int64 `json:"maxMessages,omitempty"`

	// maxBytes is the size at which the Mailbox is full and answers 507; default: none.
	// +optional
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`

	// maxAge is the age at which a message is deleted, taken or not, 1s to 87600h; default: never, for expiry is loss.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1s') && duration(self) <= duration('87600h')",message="must be a duration from 1s to 87600h, such as 720h"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}

// MailboxStatus is what was found.
type MailboxStatus struct {
	ResourceStatus `json:",inline"`
	WorkloadStatus `json:",inline"`

	// address is where it is reached over HTTP.
	// +optional
	Address *Address `json:"address,omitempty"`

	// effective is the guarantee and the ordering that hold in fact.
	// +optional
	Effective *EffectiveGuarantee `json:"effective,omitempty"`

	// backlog is the number of messages not yet taken, to two significant digits and at most a minute old.
	// +optional
	Backlog *int64 `json:"backlog,omitempty"`

	// objects are the broker's objects in use.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	Objects []BrokerObject `json:"objects,omitempty"`

	// deadLetter says where undeliverable messages lie.
	// +optional
	DeadLetter *DeadLetterStatus `json:"deadLetter,omitempty"`
}
