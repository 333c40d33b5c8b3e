package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ResourceReference names another resource of this group; the field that holds it says of which kind.
type ResourceReference struct {
	// name of the resource.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// namespace of the resource; default: the namespace of the one that refers to it. Another namespace has to admit this one in its
	// resource's allowedNamespaces.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
}

// SecretKeyReference names one key of a Secret in the same namespace.
type SecretKeyReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// key within the Secret; default: token for a bearer or a header, dsn for a database, ca.crt for a certificate authority.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`
}

// SecretReference names a Secret in the same namespace of which several keys are read; the field that holds it says which.
type SecretReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Keys that are read from a Secret where no other key is named.
const (
	SecretKeyToken         = "token"
	SecretKeyUsername      = "username"
	SecretKeyPassword      = "password"
	SecretKeyCredentials   = "nats.creds"
	SecretKeyAccessKeyID   = "accessKeyID"
	SecretKeySecretAccess  = "secretAccessKey"
	SecretKeySessionToken  = "sessionToken"
	SecretKeyDSN           = "dsn"
	SecretKeyTLSCert       = "tls.crt"
	SecretKeyTLSPrivateKey = "tls.key"
	SecretKeyCA            = "ca.crt"
)

// ServiceReference names a Kubernetes Service in the same namespace; on a laptop --service gives it an address.
type ServiceReference struct {
	// name of the Service.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// port of the Service, 1 to 65535; default 80.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`

	// path of the request, starting with '/'; default '/'.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.startsWith('/')",message="must start with '/', such as /events"
	Path string `json:"path,omitempty"`
}

// Expression is a CEL expression over one message: id, source, type, subject, time, key, headers and data. It is checked when it is compiled
// and bounded in cost when it runs.
type Expression struct {
	// cel is the source of the expression, at most 4096 characters.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	CEL string `json:"cel"`
}

// Guarantee is how often a message takes effect. What cannot be met is refused, never weakened.
// +kubebuilder:validation:Enum=AtMostOnce;AtLeastOnce;ExactlyOnce
type Guarantee string

const (
	// GuaranteeAtMostOnce makes one attempt: no retry, no dead letter.
	GuaranteeAtMostOnce Guarantee = "AtMostOnce"
	// GuaranteeAtLeastOnce repeats until it succeeds or the message is dead-lettered; a crash may repeat a message.
	GuaranteeAtLeastOnce Guarantee = "AtLeastOnce"
	// GuaranteeExactlyOnce commits the effect and the position in one step, where source and destination can.
	GuaranteeExactlyOnce Guarantee = "ExactlyOnce"
)

// Ordering is which messages keep their order.
// +kubebuilder:validation:Enum=None;Key;Strict
type Ordering string

const (
	// OrderingNone keeps no order and gives the most concurrency.
	OrderingNone Ordering = "None"
	// OrderingKey keeps the order of messages that share a key (the CloudEvents attribute partitionkey).
	OrderingKey Ordering = "Key"
	// OrderingStrict keeps the order in which the broker stored the messages, one at a time.
	OrderingStrict Ordering = "Strict"
)

// OnFailure is what becomes of a message whose attempts are used up.
// +kubebuilder:validation:Enum=Park;Block
type OnFailure string

const (
	// OnFailurePark moves the message to the dead letter; those behind it go on.
	OnFailurePark OnFailure = "Park"
	// OnFailureBlock keeps trying; those of the same key wait behind it.
	OnFailureBlock OnFailure = "Block"
)

// DeletionPolicy is what becomes of the broker's objects, and the messages in them, when the resource is deleted.
// +kubebuilder:validation:Enum=Retain;DeleteIfEmpty;Delete
type DeletionPolicy string

const (
	// DeletionRetain leaves them.
	DeletionRetain DeletionPolicy = "Retain"
	// DeletionDeleteIfEmpty waits until no message is left, then deletes.
	DeletionDeleteIfEmpty DeletionPolicy = "DeleteIfEmpty"
	// DeletionDelete deletes them with everything in them.
	DeletionDelete DeletionPolicy = "Delete"
)

// RunState is whether a resource works.
// +kubebuilder:validation:Enum=Running;Paused
type RunState string

const (
	// StateRunning works.
	StateRunning RunState = "Running"
	// StatePaused keeps what comes and delivers nothing.
	StatePaused RunState = "Paused"
)

// Retry says how often and how soon a failed message is tried again. Failures to connect and answers with Retry-After are no attempts.
type Retry struct {
	// maxAttempts is how often a message is tried before onFailure takes it, 1 to 1000; default 10. Workers forget the count when they
	// restart, so it may be tried more often, never less.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxAttempts *int32 `json:"maxAttempts,omitempty"`

	// backOff is the pause between two attempts.
	// +optional
	BackOff *BackOff `json:"backOff,omitempty"`
}

// BackOff is a pause that grows with each attempt.
// +kubebuilder:validation:XValidation:rule="!has(self.initial) || !has(self.max) || duration(self.initial) <= duration(self.max)",message="initial must not be longer than max: lower it, or raise max",fieldPath=".initial"
type BackOff struct {
	// initial is the first pause, 0s to 15m; default 1s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) <= duration('15m')",message="must be a duration from 0s to 15m, such as 500ms or 1s"
	Initial *metav1.Duration `json:"initial,omitempty"`

	// max is the longest pause, 1ms to 15m; default 5m.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1ms') && duration(self) <= duration('15m')",message="must be a duration from 1ms to 15m, such as 30s or 5m"
	Max *metav1.Duration `json:"max,omitempty"`

	// multiplier is the factor from one pause to the next, 1 to 10; default 2.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	Multiplier *int32 `json:"multiplier,omitempty"`

	// jitterPercent is how far a pause may stray from its length at random, 0 to 100; default 20.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	JitterPercent *int32 `json:"jitterPercent,omitempty"`
}

// DeadLetter is where messages go that cannot be delivered.
type DeadLetter struct {
	// mailboxRef names the Mailbox that takes them; it may live on another broker.
	// +required
	MailboxRef *ResourceReference `json:"mailboxRef,omitempty"`
}

// StartFrom is where reading begins when the position is first created. A position that exists is kept and this is not looked at.
// +kubebuilder:validation:XValidation:rule="(self.position == 'Time') == has(self.time)",message="time is required with position Time, such as 2026-01-31T12:00:00Z, and refused with any other",fieldPath=".time"
type StartFrom struct {
	// position is Earliest, Latest or Time.
	// +required
	Position StartPosition `json:"position"`

	// time is the moment from which messages are read, with position Time, as RFC 3339; one to come is now.
	// +optional
	Time *metav1.Time `json:"time,omitempty"`
}

// StartPosition is a place in a Topic.
// +kubebuilder:validation:Enum=Earliest;Latest;Time
type StartPosition string

const (
	// StartEarliest is the oldest message that the broker still has.
	StartEarliest StartPosition = "Earliest"
	// StartLatest is after the newest message.
	StartLatest StartPosition = "Latest"
	// StartTime is the first message stored at or after a moment.
	StartTime StartPosition = "Time"
)

// AllowedNamespaces says from which namespaces a resource may be referred to.
// +kubebuilder:validation:XValidation:rule="(self.from == 'Selector') == has(self.selector)",message="selector is required with from: Selector and refused with any other",fieldPath=".selector"
type AllowedNamespaces struct {
	// from is Same, All or Selector.
	// +required
	From NamespacesFrom `json:"from"`

	// selector picks namespaces by their labels, with from: Selector.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// NamespacesFrom is a way to name namespaces.
// +kubebuilder:validation:Enum=Same;All;Selector
type NamespacesFrom string

const (
	// NamespacesSame is the namespace of the resource itself.
	NamespacesSame NamespacesFrom = "Same"
	// NamespacesAll is every namespace.
	NamespacesAll NamespacesFrom = "All"
	// NamespacesSelector is every namespace whose labels match.
	NamespacesSelector NamespacesFrom = "Selector"
)

// ResourceStatus is what every kind reports.
type ResourceStatus struct {
	// observedGeneration is the generation of the spec that this status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Accepted, Programmed and Ready, and Reconciling or Stalled while they are true; CredentialsCurrent with Secrets.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// WorkloadStatus is what every kind that runs Pods reports besides.
type WorkloadStatus struct {
	// replicas is the number of Pods there are.
	// +optional
	Replicas int32 `json:"replicas,omitempty"`

	// selector picks these Pods by their labels; an autoscaler reads it.
	// +optional
	Selector string `json:"selector,omitempty"`

	// planHash names the plan that every ready Pod runs.
	// +optional
	PlanHash string `json:"planHash,omitempty"`
}

// Address is where a resource serves HTTP.
type Address struct {
	// url is the base address to which the paths of the HTTP contract are relative.
	// +required
	URL string `json:"url"`
}

// EffectiveGuarantee is what holds in fact, by the broker's features.
type EffectiveGuarantee struct {
	// guarantee that holds.
	// +required
	Guarantee Guarantee `json:"guarantee"`

	// ordering that holds.
	// +required
	Ordering Ordering `json:"ordering"`

	// mechanism says by what means.
	// +optional
	Mechanism string `json:"mechanism,omitempty"`

	// limits say where it ends, a sentence each.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Limits []string `json:"limits,omitempty"`
}

// BrokerObject is something on a broker that a resource uses.
type BrokerObject struct {
	// kind in the broker's own words: stream, consumer, topic, group, exchange, queue.
	// +required
	Kind string `json:"kind"`

	// name on the broker.
	// +required
	Name string `json:"name"`
}

// DeadLetterStatus says where undeliverable messages lie.
type DeadLetterStatus struct {
	// object is the broker's name of it. Where spec.deadLetter names no Mailbox, one with this as its externalName reads it.
	// +required
	Object string `json:"object"`
}

// ResourceList is an amount of each compute resource by name: cpu, memory, ephemeral-storage.
type ResourceList map[string]resource.Quantity
