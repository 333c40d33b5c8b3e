// Package plan is what a worker executes: the compiler's output for one resource, with every default filled in and every reference
// resolved. A plan is versioned, canonical JSON (the same plan has the same bytes), names secrets but never holds one, and is hashable.
package plan

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Version of the format. A worker refuses a plan of another version.
const Version = 1

// Plan is one resource, compiled. Exactly one of Topic, Mailbox, Endpoint, Poller and Flow is set; a Mailbox with a handler has both
// Mailbox (its gateway) and Flow.
type Plan struct {
	Version  int      `json:"version"`
	Resource Resource `json:"resource"`
	// Effective is what the resource's users can rely on; workers do not read it.
	Effective Effective `json:"effective"`
	Brokers   []Broker  `json:"brokers"` // sorted by Name
	// Objects are the broker objects that must exist before the plan can run, in the order in which they are to be made.
	Objects []Object `json:"objects,omitempty"`
	// Paused: the objects are made and kept, but nothing is delivered. A Mailbox still takes messages and hands out none; a Topic and an
	// Endpoint are never paused.
	Paused bool `json:"paused,omitempty"`

	Topic    *Topic    `json:"topic,omitempty"`
	Mailbox  *Mailbox  `json:"mailbox,omitempty"`
	Endpoint *Endpoint `json:"endpoint,omitempty"`
	Poller   *Poller   `json:"poller,omitempty"`
	Flow     *Flow     `json:"flow,omitempty"`
}

// Resource names the resource that was compiled.
type Resource struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

func (r Resource) String() string { return r.Kind + "/" + r.Namespace + "/" + r.Name }

// Effective is what source, steps and sink on these brokers give together.
type Effective struct {
	Guarantee string   `json:"guarantee,omitempty"` // AtMostOnce, AtLeastOnce, ExactlyOnce
	Ordering  string   `json:"ordering,omitempty"`  // None, Key, Strict
	Mechanism string   `json:"mechanism,omitempty"` // how, in a sentence
	Limits    []string `json:"limits,omitempty"`    // what it does not cover, a sentence each
}

// Broker is a connection. Its secrets are names of keys in Secrets of the resource's own namespace.
type Broker struct {
	Name      string   `json:"name"`     // NAMESPACE/NAME of the Broker
	Protocol  string   `json:"protocol"` // Embedded, NATS, Kafka, RabbitMQ, SQS
	Addresses []string `json:"addresses,omitempty"`
	TLS       *TLS     `json:"tls,omitempty"`
	// Secret holds what the protocol reads of it: username and password, token, or nats.creds; absent keys are not used.
	Secret          string `json:"secret,omitempty"`
	JetStreamDomain string `json:"jetStreamDomain,omitempty"`
}

// CredentialKeys are what a session of a protocol reads of the Broker's Secret: those of them that are there.
func CredentialKeys(protocol string) []string {
	switch protocol {
	case "NATS":
		return []string{"nats.creds", "password", "token", "username"}
	case "SQS":
		return []string{"accessKeyID", "secretAccessKey", "sessionToken"}
	}
	return []string{"password", "username"}
}

// Secrets are the keys that a session reads, by Secret.
func (b *Broker) Secrets() map[string][]string {
	keys := map[string][]string{}
	if b.Secret != "" {
		keys[b.Secret] = CredentialKeys(b.Protocol)
	}
	if t := b.TLS; t != nil {
		for _, ref := range []*SecretRef{t.CA, t.ClientCert, t.ClientKey} {
			if ref != nil {
				keys[ref.Name] = append(keys[ref.Name], ref.Key)
			}
		}
	}
	for name, k := range keys {
		slices.Sort(k)
		keys[name] = slices.Compact(k)
	}
	return keys
}

// TLS names the certificates of a connection. An empty struct means TLS with the system's roots.
type TLS struct {
	CA         *SecretRef `json:"ca,omitempty"`
	ClientCert *SecretRef `json:"clientCert,omitempty"`
	ClientKey  *SecretRef `json:"clientKey,omitempty"`
	// ServerName is the name that the server's certificate must bear; empty: the host of the address.
	ServerName string `json:"serverName,omitempty"`
}

// SecretRef names one key of a Secret.
type SecretRef struct {
	Name string `json:"name"`
	Key  string `json:"key"`
}

// Ref names an object on a broker. Kind is Topic, Queue or Group; Of is the topic of a Group.
type Ref struct {
	Broker string `json:"broker"`
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Of     string `json:"of,omitempty"`
}

// Object is a broker object to be made and kept true.
type Object struct {
	Ref
	Owner           string   `json:"owner"` // KIND/NAMESPACE/NAME, behind the host that made it and a slash where there is one: "Topic/default/orders"
	External        bool     `json:"external,omitempty"`
	Partitions      int      `json:"partitions,omitempty"`
	MaxAge          Duration `json:"maxAge,omitempty"`
	MaxBytes        int64    `json:"maxBytes,omitempty"`
	MaxMessages     int64    `json:"maxMessages,omitempty"`
	MaxMessageBytes int      `json:"maxMessageBytes,omitempty"`
	Ordering        string   `json:"ordering,omitempty"`
	AckWait         Duration `json:"ackWait,omitempty"`
	Start           *Start   `json:"start,omitempty"`
}

// Start is where a Group begins when it is made: Earliest, Latest or Time.
type Start struct {
	Position string    `json:"position"`
	Time     time.Time `json:"time,omitzero"`
}

// Duration is written as Go writes it: "1m30s".
type Duration time.Duration

func (d Duration) String() string               { return time.Duration(d).String() }
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Marshal writes p as canonical JSON: fields in the order of this package, no spaces, no map.
func Marshal(p *Plan) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(p); err != nil {
		return nil, fmt.Errorf("plan of %s: %w", p.Resource, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Unmarshal reads a plan strictly: an unknown field or another version is an error.
func Unmarshal(data []byte) (*Plan, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	p := new(Plan)
	if err := dec.Decode(p); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("plan: there is something behind it; a file has one plan")
	}
	if p.Version != Version {
		return nil, fmt.Errorf("plan of %s has version %d; this worker runs version %d", p.Resource, p.Version, Version)
	}
	return p, nil
}

// Hash is the first ten hexadecimal digits of the SHA-256 of the plan's canonical bytes.
func Hash(canonical []byte) string {
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])[:10]
}
