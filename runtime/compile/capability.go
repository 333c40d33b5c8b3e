package compile

import (
	"slices"
	"time"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// Features that a probe of a broker may find, the closed set of BrokerFeatures.flags. What the table below marks with Needs holds only where
// the flag was found.
const (
	// FeatureAtomicBatch: a batch of messages becomes visible whole or not at all (NATS 2.12 and later).
	FeatureAtomicBatch = "AtomicBatch"
	// FeatureTransactions: messages and positions are committed together (Kafka's transactions).
	FeatureTransactions = "Transactions"
	// FeatureSNS: topics can fan out through Amazon SNS.
	FeatureSNS = "SNS"
)

// An Ability is one thing that a broker can or cannot do.
type Ability struct {
	Can bool
	// How it is done, a sentence without its full stop; where the broker cannot, why not.
	How string
	// Limits say where it ends, a sentence each.
	Limits []string
	// Instead is what to do where the broker cannot.
	Instead string
	// Needs names the feature without which Can does not hold.
	Needs string
}

// A Protocol is what brokers of one protocol can do. The guarantees that the compiler grants, its refusals and docs/guarantees.md all come from
// this table.
type Protocol struct {
	Name  string // as in plan.Broker
	Title string // for people
	Types []v1alpha1.BrokerType
	// Built: this build has a driver for it.
	Built bool

	Topics   Ability
	Earliest Ability
	Latest   Ability
	Time     Ability

	Key    Ability // messages of one key are handled in order
	Strict Ability // all messages are handled in order, one at a time
	// OrderedReplicas: several replicas may share a flow ordered by key or strictly, for the broker fences by key or partition.
	OrderedReplicas Ability

	Leases        Ability
	LeaseReplicas Ability // several replicas of a gateway may hand out leases
	KeyLeases     Ability // leases of different keys at once, in order within a key
	Inbox         Ability // replies and receipts find the process that waits for them
	Counts        Ability // a queue can be bounded by messages or bytes and refuses more
	Dedup         Ability // a message published twice with the same source and id is stored once

	ExactlyOnceTopic    Ability // from a Topic to a Topic on the same broker
	ExactlyOncePostgres Ability

	// Floor is what every supported version has; it holds where no probe has said more.
	Floor v1alpha1.BrokerFeatures
	// Encoding is how much larger than itself a message is on the broker, as a fraction: base64 takes 4/3.
	EncodingNumerator, EncodingDenominator int64
	// Partitions: topics have a number of them.
	Partitions bool
	// MaxHold is for how long a message can stay unsettled, extensions included; 0: for ever.
	MaxHold time.Duration
	// MaxWindow bounds the messages that a source holds unsettled; 0: only the default does.
	MaxWindow int

	names nameRules
}

var yes = Ability{Can: true}

func can(how string, limits ...string) Ability { return Ability{Can: true, How: how, Limits: limits} }
func cannot(why, instead string) Ability       { return Ability{How: why, Instead: instead} }

// Protocols is the table, in the order in which documentation shows it.
func Protocols() []Protocol {
	return []Protocol{natsLike("Embedded", "embedded NATS", v1alpha1.BrokerEmbedded), natsLike("NATS", "NATS JetStream", v1alpha1.BrokerNATS), kafka(), rabbitmq(), sqs()}
}

func natsLike(name, title string, t v1alpha1.BrokerType) Protocol {
	p := Protocol{
		Name: name, Title: title, Types: []v1alpha1.BrokerType{t}, Built: true,
		Topics:   can("a stream; each subscription has its own consumer or cursor"),
		Earliest: yes, Latest: yes, Time: yes,
		Key:             can("one active replica reads the stream in order behind its own stored cursor and handles each key in a lane of its own"),
		Strict:          can("one active replica reads in order and handles one message at a time"),
		OrderedReplicas: cannot("NATS does not fence consumers by key", "set replicas to 1: one replica handles many keys at once; or use a Kafka broker, which scales by partition"),
		Leases:          can("any replica can settle a lease"),
		LeaseReplicas:   yes,
		KeyLeases:       cannot("NATS cannot lend out messages in order by key", "use ordering Strict or None, or let a handler (deliverTo) or a Pipeline take the messages"),
		Inbox:           can("an inbox on the broker for each process"),
		Counts:          yes,
		Dedup:           can("the broker drops a message whose source and id it stored within the last 2 minutes"),
		ExactlyOnceTopic: Ability{Can: true, Needs: FeatureAtomicBatch, How: "messages and the position are stored in one atomic batch, and a replica that was replaced is fenced",
			Limits: []string{
				"one message may become 999, of 8 MiB together, and more than that is dead-lettered",
				"while a message is tried again, those behind it go through the steps and are stored after it",
				"a crash may store a dead letter a second time, for it is stored before the batch and not in it",
				"a replica that is killed, and away until the Topic it writes to has deleted all that it stored there, finds its position lost and stops; one that was stopped goes on",
			},
			Instead: "use a NATS server of version 2.12 or later"},
		ExactlyOncePostgres: can("the rows and the message's identity are committed in one transaction"),
		Floor:               v1alpha1.BrokerFeatures{Product: "NATS", Flags: []string{FeatureAtomicBatch}, MaxMessageBytes: 1 << 20},
		EncodingNumerator:   1, EncodingDenominator: 1,
		names: nameRules{separator: "_", maxLength: 255, allowed: isNATSName, alphabet: "letters, digits, '-' and '_'"},
	}
	return p
}

func kafka() Protocol {
	return Protocol{
		Name: "Kafka", Title: "Kafka and Redpanda", Types: []v1alpha1.BrokerType{v1alpha1.BrokerKafka, v1alpha1.BrokerRedpanda},
		Topics:   can("a topic; each subscription is a consumer group", "positions of a group without members are kept for as long as the broker's offsets.retention says once the resource is gone"),
		Earliest: yes, Latest: yes, Time: yes,
		Key:             can("partitions keep the order of their keys, and each key is handled in a lane of its own"),
		Strict:          can("the topic has one partition, handled one message at a time"),
		OrderedReplicas: can("partitions are shared out between the replicas"),
		Leases:          can("leases belong to the one replica that receives", "a lease ends with its replica"),
		LeaseReplicas:   cannot("Kafka cannot settle single messages from several replicas", "set replicas to 1, or use a NATS or SQS broker"),
		KeyLeases:       cannot("Kafka cannot lend out messages in order by key", "use ordering Strict or None, or let a handler (deliverTo) or a Pipeline take the messages"),
		Inbox:           can("a reply topic for each namespace, of which each replica reads one partition"),
		Counts:          cannot("Kafka cannot refuse a message because too many are waiting", "bound the mailbox by maxAge, or use a NATS or RabbitMQ broker"),
		Dedup:           cannot("Kafka drops repeated messages only within one producer's session", "let the consumer drop what it has seen, by source and id"),
		ExactlyOnceTopic: Ability{Can: true, Needs: FeatureTransactions, How: "messages and the group's offsets are committed in one transaction, and consumers read committed messages only",
			Instead: "use a broker with transactions"},
		ExactlyOncePostgres: can("the rows and the message's identity are committed in one transaction"),
		Floor:               v1alpha1.BrokerFeatures{Flags: []string{FeatureTransactions}, MaxMessageBytes: 1048588},
		EncodingNumerator:   1, EncodingDenominator: 1, Partitions: true,
		names: nameRules{separator: ".", maxLength: 249, allowed: isKafkaName, alphabet: "letters, digits, '.', '-' and '_'"},
	}
}

func rabbitmq() Protocol {
	return Protocol{
		Name: "RabbitMQ", Title: "RabbitMQ", Types: []v1alpha1.BrokerType{v1alpha1.BrokerRabbitMQ},
		Topics: can("an exchange; each subscription has a quorum queue", "a topic without a subscription keeps nothing, so publishing to it is refused",
			"a subscription's queue is bounded by the topic's retention and then drops its oldest messages"),
		Earliest:            cannot("RabbitMQ keeps no message that was published before the subscription was made", "use startFrom position Latest"),
		Latest:              yes,
		Time:                cannot("RabbitMQ keeps no message that was published before the subscription was made", "use startFrom position Latest"),
		Key:                 can("a single active consumer handles each key in a lane of its own"),
		Strict:              can("a single active consumer handles one message at a time"),
		OrderedReplicas:     cannot("RabbitMQ gives an ordered queue to one consumer at a time", "set replicas to 1: one replica handles many keys at once; or use a Kafka broker, which scales by partition"),
		Leases:              can("leases belong to the one replica that receives", "a lease ends with its replica", "a lease can be extended to 25 minutes in all"),
		LeaseReplicas:       cannot("RabbitMQ settles a message only on the connection that received it", "set replicas to 1, or use a NATS or SQS broker"),
		KeyLeases:           cannot("RabbitMQ cannot lend out messages in order by key", "use ordering Strict or None, or let a handler (deliverTo) or a Pipeline take the messages"),
		Inbox:               can("an exclusive queue for each process"),
		Counts:              yes,
		Dedup:               cannot("RabbitMQ does not drop repeated messages", "let the consumer drop what it has seen, by source and id"),
		ExactlyOnceTopic:    cannot("RabbitMQ cannot store messages and acknowledge others in one step", "use AtLeastOnce and let the consumer drop what it has seen, by source and id"),
		ExactlyOncePostgres: can("the rows and the message's source and id are committed in one transaction", "a message without an id is dead-lettered"),
		Floor:               v1alpha1.BrokerFeatures{Product: "RabbitMQ", MaxMessageBytes: 16 << 20},
		EncodingNumerator:   1, EncodingDenominator: 1, MaxWindow: 512,
		names: nameRules{separator: ".", maxLength: 255, allowed: isRabbitName, alphabet: "letters, digits and '-', '_', '.', ':', '/'"},
	}
}

func sqs() Protocol {
	return Protocol{
		Name: "SQS", Title: "Amazon SQS", Types: []v1alpha1.BrokerType{v1alpha1.BrokerSQS},
		Topics: Ability{Can: true, Needs: FeatureSNS, How: "an SNS topic; each subscription has a queue",
			Instead: "set sqs.sns: Enabled on the Broker, or use a Mailbox"},
		Earliest:            cannot("SQS keeps no message that was published before the subscription was made", "use startFrom position Latest"),
		Latest:              yes,
		Time:                cannot("SQS keeps no message that was published before the subscription was made", "use startFrom position Latest"),
		Key:                 can("a FIFO queue with a message group for each key"),
		Strict:              can("a FIFO queue with one message group"),
		OrderedReplicas:     can("message groups are shared out between the replicas"),
		Leases:              can("any replica can settle a lease", "a lease can be extended to 12 hours in all"),
		LeaseReplicas:       yes,
		KeyLeases:           can("a FIFO queue with a message group for each key"),
		Inbox:               cannot("SQS has no inbox in which a reply could find the process that waits", "use pattern RequestAck with ackWhen: Stored, or put the mailbox on another broker"),
		Counts:              cannot("SQS cannot refuse a message because too many are waiting", "remove the bound, or use a NATS or RabbitMQ broker"),
		Dedup:               can("a FIFO queue drops a message whose source and id it stored within the last 5 minutes", "with ordering None the broker drops no repeated message"),
		ExactlyOnceTopic:    cannot("SQS cannot store messages and delete others in one step", "use AtLeastOnce and let the consumer drop what it has seen, by source and id"),
		ExactlyOncePostgres: can("the rows and the message's identity are committed in one transaction"),
		Floor:               v1alpha1.BrokerFeatures{Product: "SQS", MaxMessageBytes: 1 << 20},
		EncodingNumerator:   4, EncodingDenominator: 3, MaxHold: 12 * time.Hour,
		names: nameRules{separator: "_", maxLength: 75, allowed: isNATSName, alphabet: "letters, digits, '-' and '_'"},
	}
}

// protocolOf returns the protocol that brokers of type t speak.
func protocolOf(t v1alpha1.BrokerType) (Protocol, bool) {
	for _, p := range Protocols() {
		if slices.Contains(p.Types, t) {
			return p, true
		}
	}
	return Protocol{}, false
}
