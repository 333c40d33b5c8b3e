package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=brokers,scope=Namespaced,shortName=wbb,categories=waybill
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 48 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must be at most 48 characters, lower case letters, digits and '-', begin with a letter and not end with '-'",fieldPath=".metadata"

// Broker is how to reach a message broker, and who may use it.
type Broker struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's own.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +required
	Spec BrokerSpec `json:"spec"`

	// status is what was found; the operator writes it.
	// +optional
	// +kubebuilder:default={observedGeneration: 0}
	Status BrokerStatus `json:"status,omitempty"`
}

// BrokerList is a list of them.
// +kubebuilder:object:root=true
type BrokerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Broker `json:"items"`
}

// BrokerSpec says how to reach a broker. Exactly the member that belongs to type is set.
// +kubebuilder:validation:XValidation:rule="self.type in ['Embedded'] || !has(self.embedded)",message="embedded belongs to type Embedded: remove it, or change type",fieldPath=".embedded"
// +kubebuilder:validation:XValidation:rule="self.type in ['NATS'] == has(self.nats)",message="nats is required with type NATS and refused with any other",fieldPath=".nats"
// +kubebuilder:validation:XValidation:rule="self.type in ['Kafka', 'Redpanda'] == has(self.kafka)",message="kafka is required with types Kafka and Redpanda and refused with any other",fieldPath=".kafka"
// +kubebuilder:validation:XValidation:rule="self.type in ['RabbitMQ'] == has(self.rabbitmq)",message="rabbitmq is required with type RabbitMQ and refused with any other",fieldPath=".rabbitmq"
// +kubebuilder:validation:XValidation:rule="self.type in ['SQS'] == has(self.sqs)",message="sqs is required with type SQS and refused with any other",fieldPath=".sqs"
// +kubebuilder:validation:XValidation:rule="has(self.prefix) == has(oldSelf.prefix) && (!has(self.prefix) || self.prefix == oldSelf.prefix)",message="prefix cannot be changed: the objects that were made carry it. Create a new Broker instead",fieldPath=".prefix"
type BrokerSpec struct {
	// type is the kind of broker: Embedded, NATS, Kafka, Redpanda, RabbitMQ or SQS. Redpanda uses the member kafka.
	// +required
	Type BrokerType `json:"type"`

	// embedded is a NATS JetStream server of Waybill's own, with type Embedded; it may be left out.
	// +optional
	Embedded *EmbeddedBroker `json:"embedded,omitempty"`

	// nats says how to reach NATS JetStream, with type NATS.
	// +optional
	NATS *NATSBroker `json:"nats,omitempty"`

	// kafka says how to reach Kafka or Redpanda, with type Kafka or Redpanda.
	// +optional
	Kafka *KafkaBroker `json:"kafka,omitempty"`

	// rabbitmq says how to reach RabbitMQ, with type RabbitMQ.
	// +optional
	RabbitMQ *RabbitMQBroker `json:"rabbitmq,omitempty"`

	// sqs says how to reach Amazon SQS or a server that speaks its protocol, with type SQS.
	// +optional
	SQS *SQSBroker `json:"sqs,omitempty"`

	// secretRef names the Secret with the credentials that workers use: the keys username and password; for NATS instead token or nats.creds (a
	// credentials file); for SQS accessKeyID, secretAccessKey and perhaps sessionToken. Left out, none are used (SQS: the SDK's default chain).
	// +optional
	SecretRef *SecretReference `json:"secretRef,omitempty"`

	// adminSecretRef names the Secret that only the manager uses, to make and check objects; the same keys. Default: secretRef.
	// +optional
	AdminSecretRef *SecretReference `json:"adminSecretRef,omitempty"`

	// allowedNamespaces says from which namespaces resources may use this broker; default Same. The Secret of secretRef is copied into them:
	// to admit a namespace is to hand it these credentials.
	// +optional
	AllowedNamespaces *AllowedNamespaces `json:"allowedNamespaces,omitempty"`

	// prefix begins the name of every object that Waybill makes on this broker, at most 40 characters; default none. It keeps clusters that
	// share a broker apart, and cannot be changed.
	// +optional
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:XValidation:rule="self.matches('^([A-Za-z0-9][-_A-Za-z0-9]*)?$')",message="must be letters, digits, '-' and '_', and begin with a letter or a digit, such as staging"
	Prefix string `json:"prefix,omitempty"`
}

// BrokerType is a kind of broker.
// +kubebuilder:validation:Enum=Embedded;NATS;Kafka;Redpanda;RabbitMQ;SQS
type BrokerType string

const (
	// BrokerEmbedded is a NATS JetStream server that Waybill runs itself.
	BrokerEmbedded BrokerType = "Embedded"
	// BrokerNATS is NATS with JetStream.
	BrokerNATS BrokerType = "NATS"
	// BrokerKafka is Apache Kafka.
	BrokerKafka BrokerType = "Kafka"
	// BrokerRedpanda is Redpanda, which speaks Kafka's protocol.
	BrokerRedpanda BrokerType = "Redpanda"
	// BrokerRabbitMQ is RabbitMQ.
	BrokerRabbitMQ BrokerType = "RabbitMQ"
	// BrokerSQS is Amazon SQS, with SNS for Topics.
	BrokerSQS BrokerType = "SQS"
)

// EmbeddedBroker is a server of Waybill's own: in a cluster a StatefulSet of one Pod with a volume, on a laptop a part of the process.
type EmbeddedBroker struct {
	// storage is the size of the volume; default 1Gi.
	// +optional
	Storage *resource.Quantity `json:"storage,omitempty"`

	// storageClassName is the storage class of the volume; default: the cluster's.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	StorageClassName string `json:"storageClassName,omitempty"`

	// workload overrides how its Pod is run.
	// +optional
	Workload *Workload `json:"workload,omitempty"`
}

// NATSBroker says how to reach a NATS server or cluster with JetStream.
type NATSBroker struct {
	// servers are the addresses to try, HOST:PORT or nats://HOST:PORT, 1 to 32.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Servers []BrokerAddress `json:"servers"`

	// tls encrypts the connection; {} checks the server against the system's authorities.
	// +optional
	TLS *TLS `json:"tls,omitempty"`

	// jetStreamDomain is the JetStream domain; default: the server's own.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	JetStreamDomain string `json:"jetStreamDomain,omitempty"`
}

// KafkaBroker says how to reach a cluster that speaks Kafka's protocol.
type KafkaBroker struct {
	// bootstrapServers are the addresses to begin with, HOST:PORT, 1 to 32.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	BootstrapServers []BrokerAddress `json:"bootstrapServers"`

	// tls encrypts the connection; {} checks the server against the system's authorities.
	// +optional
	TLS *TLS `json:"tls,omitempty"`

	// sasl says how the credentials of secretRef are shown.
	// +optional
	SASL *SASL `json:"sasl,omitempty"`
}

// SASL is a way to authenticate.
type SASL struct {
	// mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
	// +required
	Mechanism SASLMechanism `json:"mechanism"`
}

// SASLMechanism is a SASL mechanism by its registered name.
// +kubebuilder:validation:Enum=PLAIN;SCRAM-SHA-256;SCRAM-SHA-512
type SASLMechanism string

const (
	// SASLPlain sends the password; use it with tls.
	SASLPlain SASLMechanism = "PLAIN"
	// SASLScramSHA256 proves knowledge of the password.
	SASLScramSHA256 SASLMechanism = "SCRAM-SHA-256"
	// SASLScramSHA512 proves knowledge of the password.
	SASLScramSHA512 SASLMechanism = "SCRAM-SHA-512"
)

// RabbitMQBroker says how to reach a RabbitMQ server or cluster.
type RabbitMQBroker struct {
	// addresses are the nodes to try, HOST:PORT, 1 to 32.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Addresses []BrokerAddress `json:"addresses"`

	// vhost is the virtual host; default '/'.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	VHost string `json:"vhost,omitempty"`

	// tls encrypts the connection; {} checks the server against the system's authorities.
	// +optional
	TLS *TLS `json:"tls,omitempty"`

	// managementUrl is the address of the management plugin, for exact figures of the backlog; default: not asked.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/ ]+')",message="must be an http or https address, such as http://rabbitmq:15672"
	ManagementURL string `json:"managementUrl,omitempty"`
}

// SQSBroker says how to reach Amazon SQS.
type SQSBroker struct {
	// region is the AWS region, such as eu-central-1.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Region string `json:"region"`

	// endpoint replaces the address of the service; default: the region's.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/ ]+')",message="must be an http or https address, such as http://elasticmq:9324"
	Endpoint string `json:"endpoint,omitempty"`

	// sns says whether Topics may use Amazon SNS: Enabled or Disabled; default Disabled. Without it Topics are refused.
	// +optional
	SNS Feature `json:"sns,omitempty"`
}

// Feature is something that is used or not.
// +kubebuilder:validation:Enum=Enabled;Disabled
type Feature string

const (
	// FeatureEnabled is used.
	FeatureEnabled Feature = "Enabled"
	// FeatureDisabled is not used.
	FeatureDisabled Feature = "Disabled"
)

// BrokerAddress is HOST:PORT, with a scheme where the broker has one, and never with credentials: they belong into the Secret.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=260
// +kubebuilder:validation:XValidation:rule="!self.contains('@')",message="must not hold credentials: put them into a Secret and name it in secretRef"
// +kubebuilder:validation:XValidation:rule="self.matches('^([a-z]+://)?[^/ ]+$')",message="must be HOST:PORT, such as kafka-0.kafka:9092"
type BrokerAddress string

// TLS says whom to trust and what to show.
type TLS struct {
	// caSecretRef names the Secret with the authorities that sign the server's certificate; default key: ca.crt. Default: the system's.
	// +optional
	CASecretRef *SecretKeyReference `json:"caSecretRef,omitempty"`

	// clientSecretRef names the Secret with the certificate to show, in the keys tls.crt and tls.key; default none.
	// +optional
	ClientSecretRef *SecretReference `json:"clientSecretRef,omitempty"`

	// serverName is the name that the server's certificate must bear; default: the host of the address.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ServerName string `json:"serverName,omitempty"`
}

// BrokerStatus is what was found.
type BrokerStatus struct {
	ResourceStatus `json:",inline"`

	// version is the server's own, by the last probe that succeeded.
	// +optional
	Version string `json:"version,omitempty"`

	// features are what the broker can do, by the last probe that succeeded; the compiler decides by them.
	// +optional
	Features *BrokerFeatures `json:"features,omitempty"`

	// selector picks the Pods of an Embedded broker.
	// +optional
	Selector string `json:"selector,omitempty"`

	// namespaces is the number of other namespaces that were handed the worker's credentials.
	// +optional
	Namespaces *int32 `json:"namespaces,omitempty"`
}

// BrokerFeatures are the facts of a probe. They are kept while the broker is away.
type BrokerFeatures struct {
	// product is what answered: NATS, Kafka, Redpanda, RabbitMQ, SQS.
	// +optional
	Product string `json:"product,omitempty"`

	// flags are the features found, from a closed set.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=64
	Flags []string `json:"flags,omitempty"`

	// maxMessageBytes is the largest message that the broker takes, headers included, in bytes.
	// +optional
	MaxMessageBytes int64 `json:"maxMessageBytes,omitempty"`
}
