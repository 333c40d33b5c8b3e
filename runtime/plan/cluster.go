package plan

import "strconv"

// What operator and workers have agreed upon in a cluster. Names not here are the operator's own affair.
const (
	// BrokerPort is where an Embedded broker takes connections.
	BrokerPort = 4222
	// LeaseKeySecret holds the keys that the mailboxes of a namespace seal lease tokens with: current seals; next and previous, one of them
	// at a time and only while keys are being changed, open tokens too.
	LeaseKeySecret = "waybill-lease-key"
	// CheckpointKey is the key under which a poller's ConfigMap holds its checkpoint.
	CheckpointKey = "checkpoint.json"
	// PreviousPasswordKey is a key of an Embedded broker's Secret: a password that is still taken while workers change to a new one.
	PreviousPasswordKey = "previousPassword"
)

// Checkpoint is the name of the ConfigMap that a poller keeps its checkpoint in.
func (r Resource) Checkpoint() string { return r.Child() + "-checkpoint" }

// EmbeddedAddress is where the server of an Embedded Broker is reached. Its Secret bears the name of its Service, r.Child(). A laptop runs
// such a broker within its own process and uses neither.
func (r Resource) EmbeddedAddress() string {
	return "nats://" + r.Child() + "." + r.Namespace + ".svc:" + strconv.Itoa(BrokerPort)
}
