package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=endpoints,scope=Namespaced,shortName=wbe,categories=waybill
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:printcolumn:name="Pattern",type=string,JSONPath=`.spec.pattern`
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.status.address.url`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 48 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must be at most 48 characters, lower case letters, digits and '-', begin with a letter and not end with '-'",fieldPath=".metadata"

// Endpoint is an HTTP front door: callers ask, hand over or drop off, and the messages go to a Mailbox or a Topic.
type Endpoint struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's own.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +required
	Spec EndpointSpec `json:"spec"`

	// status is what was found; the operator writes it.
	// +optional
	// +kubebuilder:default={observedGeneration: 0}
	Status EndpointStatus `json:"status,omitempty"`
}

// EndpointList is a list of them.
// +kubebuilder:object:root=true
type EndpointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Endpoint `json:"items"`
}

// EndpointSpec is what the front door should be.
// +kubebuilder:validation:XValidation:rule="self.pattern != 'RequestResponse' || !has(self.to.topicRef)",message="RequestResponse needs one consumer that answers, and a Topic may have any number: use to.mailboxRef, or pattern RequestAck",fieldPath=".to.topicRef"
// +kubebuilder:validation:XValidation:rule="!has(self.ackWhen) || self.pattern == 'RequestAck'",message="ackWhen belongs to pattern RequestAck: remove it, or change pattern",fieldPath=".ackWhen"
// +kubebuilder:validation:XValidation:rule="!has(self.ackWhen) || self.ackWhen != 'Processed' || !has(self.to.topicRef)",message="Processed needs one consumer whose receipt is waited for, and a Topic may have any number: use to.mailboxRef, or ackWhen: Stored",fieldPath=".ackWhen"
type EndpointSpec struct {
	// pattern is what a caller gets: RequestResponse (the reply), RequestAck (a receipt) or RequestForget (nothing to wait for).
	// +required
	Pattern Pattern `json:"pattern"`

	// path is the path that is served, as it is written, and no other; default '/'. Most clients resolve . and .. before they
	// send.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^/([A-Za-z0-9._~!$&()*+,;=:@/-]|%[0-9A-Fa-f]{2})*$')",message="must be a path that starts with '/', such as /checkout, and has only letters, digits and -._~!$&()*+,;=:@/ in it; others are written as % and two hexadecimal digits a byte"
	Path string `json:"path,omitempty"`

	// to is where requests go.
	// +required
	To EndpointTarget `json:"to"`

	// timeout is how long a caller waits for a reply, or for a receipt that says Processed, 1ms to 1h; default 10s. Then the answer is 504: the
	// outcome is unknown. Where a caller waits for neither, with RequestForget and with a receipt that says Stored, it has no effect.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1ms') && duration(self) <= duration('1h')",message="must be a duration from 1ms to 1h, such as 10s or 2m"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// ackWhen is what a receipt says, with RequestAck: Stored (on the broker) or Processed (its consumer has acknowledged it); default Stored.
	// +optional
	AckWhen AckWhen `json:"ackWhen,omitempty"`

	// whenExpired is what becomes of a request that nobody waits for any more and that was not begun: Drop or Deliver; default Drop with
	// RequestResponse, else Deliver. It needs a pattern that makes a caller wait.
	// +optional
	WhenExpired WhenExpired `json:"whenExpired,omitempty"`

	// guarantee is AtMostOnce, AtLeastOnce or ExactlyOnce; default AtLeastOnce (AtMostOnce with RequestForget). What cannot be met is refused.
	// +optional
	Guarantee Guarantee `json:"guarantee,omitempty"`

	// key gives the message key: a string, number or bool. Default: the request's attribute partitionkey.
	// +optional
	Key *Expression `json:"key,omitempty"`

	// auth is what a caller has to show; default nothing.
	// +optional
	Auth *GatewayAuth `json:"auth,omitempty"`

	// limits bound what a caller may send.
	// +optional
	Limits *EndpointLimits `json:"limits,omitempty"`

	// allowedNamespaces says from which namespaces it may be called, an ingress controller's for one; default Same. A NetworkPolicy says so,
	// which holds where the cluster's network enforces them.
	// +optional
	AllowedNamespaces *AllowedNamespaces `json:"allowedNamespaces,omitempty"`

	// replicas is the number of Pods of the gateway, 0 to 1000; default 1. On a laptop it is always 1.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Replicas *int32 `json:"replicas,omitempty"`

	// workload overrides how its Pods are run.
	// +optional
	Workload *Workload `json:"workload,omitempty"`
}

// Pattern is a way to deal with a request.
// +kubebuilder:validation:Enum=RequestResponse;RequestAck;RequestForget
type Pattern string

const (
	// PatternRequestResponse waits for the reply.
	PatternRequestResponse Pattern = "RequestResponse"
	// PatternRequestAck waits for a receipt.
	PatternRequestAck Pattern = "RequestAck"
	// PatternRequestForget waits for nothing.
	PatternRequestForget Pattern = "RequestForget"
)

// AckWhen is what a receipt says.
// +kubebuilder:validation:Enum=Stored;Processed
type AckWhen string

const (
	// AckStored says that the broker has stored the message.
	AckStored AckWhen = "Stored"
	// AckProcessed says that the message's consumer has acknowledged it.
	AckProcessed AckWhen = "Processed"
)

// WhenExpired is what becomes of a request that nobody waits for any more.
// +kubebuilder:validation:Enum=Drop;Deliver
type WhenExpired string

const (
	// ExpiredDrop drops it and counts it.
	ExpiredDrop WhenExpired = "Drop"
	// ExpiredDeliver delivers it all the same.
	ExpiredDeliver WhenExpired = "Deliver"
)

// EndpointTarget is where requests go: exactly one of its members.
// +kubebuilder:validation:XValidation:rule="[has(self.mailboxRef), has(self.topicRef)].exists_one(x, x)",message="exactly one of mailboxRef and topicRef must be set"
type EndpointTarget struct {
	// mailboxRef names a Mailbox.
	// +optional
	MailboxRef *ResourceReference `json:"mailboxRef,omitempty"`

	// topicRef names a Topic.
	// +optional
	TopicRef *ResourceReference `json:"topicRef,omitempty"`
}

// EndpointLimits bound what callers may send.
type EndpointLimits struct {
	// maxBodyBytes is the size of the largest body; beyond it the answer is 413. Default, and at most: what the target takes.
	// +optional
	MaxBodyBytes *resource.Quantity `json:"maxBodyBytes,omitempty"`

	// ratePerSecond is the number of requests a second that each replica takes, with a burst of one second's worth, 1 to 1000000; beyond it the
	// answer is 429. Default: no limit.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	RatePerSecond *int32 `json:"ratePerSecond,omitempty"`
}

// EndpointStatus is what was found.
type EndpointStatus struct {
	ResourceStatus `json:",inline"`
	WorkloadStatus `json:",inline"`

	// address is where it is reached over HTTP.
	// +optional
	Address *Address `json:"address,omitempty"`

	// effective is the guarantee and the ordering that hold in fact.
	// +optional
	Effective *EffectiveGuarantee `json:"effective,omitempty"`
}
