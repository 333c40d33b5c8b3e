package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=topics,scope=Namespaced,shortName=wbt,categories=waybill
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:printcolumn:name="Broker",type=string,JSONPath=`.spec.brokerRef.name`
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.status.address.url`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 48 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must be at most 48 characters, lower case letters, digits and '-', begin with a letter and not end with '-'",fieldPath=".metadata"

// Topic is a durable stream of messages with many independent subscriptions.
type Topic struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's own.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +required
	Spec TopicSpec `json:"spec"`

	// status is what was found; the operator writes it.
	// +optional
	// +kubebuilder:default={observedGeneration: 0}
	Status TopicStatus `json:"status,omitempty"`
}

// TopicList is a list of them.
// +kubebuilder:object:root=true
type TopicList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Topic `json:"items"`
}

// TopicSpec is what a Topic should be.
// +kubebuilder:validation:XValidation:rule="!has(self.externalName) || !has(self.deletionPolicy) || self.deletionPolicy != 'Delete'",message="an object named by externalName is never deleted: use Retain, or leave deletionPolicy out",fieldPath=".deletionPolicy"
// +kubebuilder:validation:XValidation:rule="has(self.externalName) == has(oldSelf.externalName) && (!has(self.externalName) || self.externalName == oldSelf.externalName)",message="externalName cannot be changed, set later or removed: delete the resource and create it anew",fieldPath=".externalName"
type TopicSpec struct {
	// brokerRef names the Broker that keeps the messages. It cannot be changed.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="brokerRef cannot be changed: create a new Topic on the other broker and move publishers and subscriptions to it"
	BrokerRef ResourceReference `json:"brokerRef"`

	// partitions is the number of partitions where the broker has them (Kafka, Redpanda), 1 to 10000; default: the broker's. It can only be
	// raised, and not where a subscription orders by key.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	// +kubebuilder:validation:XValidation:rule="self >= oldSelf",message="partitions can only be raised: create a new Topic to have fewer"
	Partitions *int32 `json:"partitions,omitempty"`

	// auth is what a caller of the gateway has to show; default nothing.
	// +optional
	Auth *GatewayAuth `json:"auth,omitempty"`

	// retention is how long messages are kept; what lies beyond is deleted, delivered or not. Default: the broker's.
	// +optional
	Retention *TopicRetention `json:"retention,omitempty"`

	// schema is what data has to be like; checked when a message is published through Waybill.
	// +optional
	Schema *TopicSchema `json:"schema,omitempty"`

	// maxMessageBytes is the size of the largest data that is taken, attributes apart; default 512Ki, at least 1Ki and at most the
	// broker's own limit less 24Ki, which a dead letter needs for its history.
	// +optional
	MaxMessageBytes *resource.Quantity `json:"maxMessageBytes,omitempty"`

	// allowedNamespaces says from which namespaces resources may refer to this Topic; default Same.
	// +optional
	AllowedNamespaces *AllowedNamespaces `json:"allowedNamespaces,omitempty"`

	// deletionPolicy is what becomes of the messages when this resource is deleted: Retain, DeleteIfEmpty or Delete; default Retain.
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// externalName names a topic, stream or exchange that exists already, to be used instead of one that Waybill makes. It is checked, never altered and never
	// deleted. It cannot be changed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9]([-._:/A-Za-z0-9]*[A-Za-z0-9])?$')",message="must be a name that brokers take: letters, digits, '-', '_', '.', ':' and '/', such as legacy.orders"
	ExternalName string `json:"externalName,omitempty"`

	// replicas is the number of Pods of the gateway, 0 to 1000; default 1. With 0 there is no gateway. On a laptop it is always 1.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Replicas *int32 `json:"replicas,omitempty"`

	// workload overrides how its Pods are run.
	// +optional
	Workload *Workload `json:"workload,omitempty"`
}

// TopicRetention is a bound on what is kept; whichever is reached first.
type TopicRetention struct {
	// maxAge is the age at which a message is deleted, 1s to 87600h.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1s') && duration(self) <= duration('87600h')",message="must be a duration from 1s to 87600h, such as 168h"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`

	// maxBytes is the size over which the oldest messages are deleted (Kafka: of each partition).
	// +optional
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`
}

// TopicSchema is a description of valid data.
type TopicSchema struct {
	// jsonSchema is a JSON Schema (draft 2020-12) for JSON data. It may refer only to parts of itself.
	// +required
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	JSONSchema *runtime.RawExtension `json:"jsonSchema,omitempty"`
}

// TopicStatus is what was found.
type TopicStatus struct {
	ResourceStatus `json:",inline"`
	WorkloadStatus `json:",inline"`

	// address is where it is reached over HTTP.
	// +optional
	Address *Address `json:"address,omitempty"`

	// objects are the broker's objects in use.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	Objects []BrokerObject `json:"objects,omitempty"`
}
