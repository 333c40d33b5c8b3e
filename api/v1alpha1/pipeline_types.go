package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=pipelines,scope=Namespaced,shortName=wbl,categories=waybill
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:printcolumn:name="Guarantee",type=string,JSONPath=`.status.effective.guarantee`
// +kubebuilder:printcolumn:name="Ordering",type=string,JSONPath=`.status.effective.ordering`,priority=1
// +kubebuilder:printcolumn:name="Backlog",type=integer,JSONPath=`.status.backlog`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 48 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must be at most 48 characters, lower case letters, digits and '-', begin with a letter and not end with '-'",fieldPath=".metadata"

// Pipeline takes messages from a source through steps to a destination, under one guarantee.
type Pipeline struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's own.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +required
	Spec PipelineSpec `json:"spec"`

	// status is what was found; the operator writes it.
	// +optional
	// +kubebuilder:default={observedGeneration: 0}
	Status PipelineStatus `json:"status,omitempty"`
}

// PipelineList is a list of them.
// +kubebuilder:object:root=true
type PipelineList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Pipeline `json:"items"`
}

// PipelineSpec is what should be done with which messages.
// +kubebuilder:validation:XValidation:rule="!has(self.externalName) || !has(self.deletionPolicy) || self.deletionPolicy != 'Delete'",message="an object named by externalName is never deleted: use Retain, or leave deletionPolicy out",fieldPath=".deletionPolicy"
// +kubebuilder:validation:XValidation:rule="has(self.externalName) == has(oldSelf.externalName) && (!has(self.externalName) || self.externalName == oldSelf.externalName)",message="externalName cannot be changed, set later or removed: delete the resource and create it anew",fieldPath=".externalName"
// +kubebuilder:validation:XValidation:rule="!has(self.to.reply) || has(self.from.mailboxRef)",message="reply answers a request in a Mailbox: use from.mailboxRef, or another destination",fieldPath=".to.reply"
// +kubebuilder:validation:XValidation:rule="!has(self.startFrom) || has(self.from.topicRef)",message="startFrom is a place in a Topic, and a Mailbox has none: remove it",fieldPath=".startFrom"
type PipelineSpec struct {
	// from is where messages come from. It cannot be changed.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="from cannot be changed, for the position belongs to that source: create a new Pipeline"
	From PipelineSource `json:"from"`

	// steps are applied in turn, at most 32; default none.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Steps []Step `json:"steps,omitempty"`

	// to is where the outcome goes.
	// +required
	To PipelineTarget `json:"to"`

	// guarantee is AtMostOnce, AtLeastOnce or ExactlyOnce; default AtLeastOnce. What cannot be met is refused.
	// +optional
	Guarantee Guarantee `json:"guarantee,omitempty"`

	// ordering is None, Key or Strict; default None.
	// +optional
	Ordering Ordering `json:"ordering,omitempty"`

	// key gives the message key: a string, number or bool. Default: the key of the message that came in.
	// +optional
	Key *Expression `json:"key,omitempty"`

	// startFrom is where reading begins when the position is created, with from.topicRef; default Latest.
	// +optional
	StartFrom *StartFrom `json:"startFrom,omitempty"`

	// ackWait is how long the broker waits for a worker that is lost before it delivers again, 1s to 12h; default 30s. It is extended while
	// work goes on.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1s') && duration(self) <= duration('12h')",message="must be a duration from 1s to 12h, such as 30s or 5m"
	AckWait *metav1.Duration `json:"ackWait,omitempty"`

	// maxInFlight is the number of messages handled at one time by a replica, 1 to 10000; default 64 (no more than its http steps call at
	// once), and 2048 where they are published in batches to a Topic or a Mailbox; with ordering Strict always 1. Messages that wait for their next attempt do not count.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	MaxInFlight *int32 `json:"maxInFlight,omitempty"`

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

	// state is Running or Paused; default Running. Paused takes nothing and keeps the position.
	// +optional
	State RunState `json:"state,omitempty"`

	// deletionPolicy is what becomes of the position when this resource is deleted: Retain, DeleteIfEmpty or Delete; default Retain.
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// externalName names a consumer, group or queue that exists already, to be used instead of one that Waybill makes. It is checked, never altered and never
	// deleted. It cannot be changed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9]([-._:/A-Za-z0-9]*[A-Za-z0-9])?$')",message="must be a name that brokers take: letters, digits, '-', '_', '.', ':' and '/', such as legacy.orders"
	ExternalName string `json:"externalName,omitempty"`

	// replicas is the number of Pods, 0 to 1000; default 1. On NATS and RabbitMQ ordering Key and Strict allow one. On a laptop it is always 1.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Replicas *int32 `json:"replicas,omitempty"`

	// workload overrides how its Pods are run.
	// +optional
	Workload *Workload `json:"workload,omitempty"`
}

// PipelineSource is where messages come from: exactly one of its members.
// +kubebuilder:validation:XValidation:rule="[has(self.topicRef), has(self.mailboxRef)].exists_one(x, x)",message="exactly one of topicRef and mailboxRef must be set"
type PipelineSource struct {
	// topicRef names a Topic.
	// +optional
	TopicRef *ResourceReference `json:"topicRef,omitempty"`

	// mailboxRef names a Mailbox, which can then be read by nobody else.
	// +optional
	MailboxRef *ResourceReference `json:"mailboxRef,omitempty"`
}

// PipelineTarget is where messages go: exactly one of its members.
// +kubebuilder:validation:XValidation:rule="[has(self.topicRef), has(self.mailboxRef), has(self.http), has(self.reply), has(self.postgres)].exists_one(x, x)",message="exactly one of topicRef, mailboxRef, http, reply and postgres must be set"
type PipelineTarget struct {
	// topicRef names a Topic.
	// +optional
	TopicRef *ResourceReference `json:"topicRef,omitempty"`

	// mailboxRef names a Mailbox.
	// +optional
	MailboxRef *ResourceReference `json:"mailboxRef,omitempty"`

	// http posts each message.
	// +optional
	HTTP *HTTPTarget `json:"http,omitempty"`

	// reply answers the request that the message came from, with from.mailboxRef. Its value is {}.
	// +optional
	Reply *ReplySink `json:"reply,omitempty"`

	// postgres writes a row for each message.
	// +optional
	Postgres *PostgresTarget `json:"postgres,omitempty"`
}

// HTTPTarget is an HTTP server that messages are posted to: exactly one of uri and serviceRef.
// +kubebuilder:validation:XValidation:rule="[has(self.uri), has(self.serviceRef)].exists_one(x, x)",message="exactly one of uri and serviceRef must be set"
type HTTPTarget struct {
	// uri is an HTTP address.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/ ]+')",message="must be an http or https address, such as https://example.com/events"
	URI string `json:"uri,omitempty"`

	// serviceRef names a Kubernetes Service in the same namespace.
	// +optional
	ServiceRef *ServiceReference `json:"serviceRef,omitempty"`

	// timeout bounds one request, 1ms to 1h; default 30s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1ms') && duration(self) <= duration('1h')",message="must be a duration from 1ms to 1h, such as 10s or 2m"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// ReplySink answers the request that a message came from. It has no fields yet.
type ReplySink struct{}

// PostgresTarget writes rows; with ExactlyOnce in one transaction with the message's identity.
type PostgresTarget struct {
	// dsnSecretRef names the Secret with the address and credentials; default key: dsn.
	// +required
	DSNSecretRef SecretKeyReference `json:"dsnSecretRef"`

	// table is the table's name, with its schema where it is not in the search path.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)?$')",message="must be TABLE or SCHEMA.TABLE, such as public.sales"
	Table string `json:"table"`

	// columns gives the value of each column, 1 to 128.
	// +required
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=128
	Columns map[string]Expression `json:"columns"`

	// conflict says what to do when a row with the same values of some columns exists; default: that is an error of the message.
	// +optional
	Conflict *PostgresConflict `json:"conflict,omitempty"`
}

// PostgresConflict is what to do about a row that exists.
type PostgresConflict struct {
	// columns are those of a unique index, 1 to 16.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	Columns []string `json:"columns"`

	// do is Update (write the other columns) or Nothing (leave the row).
	// +required
	Do ConflictAction `json:"do"`
}

// ConflictAction is what to do about a row that exists.
// +kubebuilder:validation:Enum=Update;Nothing
type ConflictAction string

const (
	// ConflictUpdate writes the other columns.
	ConflictUpdate ConflictAction = "Update"
	// ConflictNothing leaves the row as it is.
	ConflictNothing ConflictAction = "Nothing"
)

// PipelineStatus is what was found.
type PipelineStatus struct {
	ResourceStatus `json:",inline"`
	WorkloadStatus `json:",inline"`

	// effective is the guarantee and the ordering that hold in fact.
	// +optional
	Effective *EffectiveGuarantee `json:"effective,omitempty"`

	// backlog is the number of messages not yet processed, to two significant digits and at most a minute old.
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
