package plan

import "encoding/json"

// Topic is the gateway of a Topic: publish and live events.
type Topic struct {
	Object          Ref             `json:"object"`
	MaxMessageBytes int             `json:"maxMessageBytes"`
	Schema          json.RawMessage `json:"schema,omitempty"` // JSON Schema that data must meet
	Publish         *Auth           `json:"publish,omitempty"`
	Receive         *Auth           `json:"receive,omitempty"` // live events
}

// Mailbox is the gateway of a Mailbox: send, and in mode Leases receive and settle.
type Mailbox struct {
	Object          Ref      `json:"object"`
	Mode            string   `json:"mode"`     // Leases, Handler, Pipeline; receive in another mode than Leases answers 409
	Ordering        string   `json:"ordering"` // Strict hands out one message at a time
	AckWait         Duration `json:"ackWait"`
	MaxMessageBytes int      `json:"maxMessageBytes"`
	// MaxAttempts failed leases send a message to DeadLetter; 0: never.
	MaxAttempts int   `json:"maxAttempts,omitempty"`
	DeadLetter  *Ref  `json:"deadLetter,omitempty"`
	Publish     *Auth `json:"publish,omitempty"`
	Receive     *Auth `json:"receive,omitempty"`
}

// Endpoint is an HTTP front door.
type Endpoint struct {
	Pattern         string          `json:"pattern"` // RequestResponse, RequestAck, RequestForget
	Path            string          `json:"path"`    // begins with "/"
	To              Ref             `json:"to"`
	Schema          json.RawMessage `json:"schema,omitempty"` // JSON Schema that a Topic asks data to meet
	Key             *Expr           `json:"key,omitempty"`
	Timeout         Duration        `json:"timeout"`
	AckWhen         string          `json:"ackWhen,omitempty"` // RequestAck: Stored, Processed
	WhenExpired     string          `json:"whenExpired"`       // Drop, Deliver: a request not started before its requester gave up
	MaxBodyBytes    int             `json:"maxBodyBytes"`
	MaxMessageBytes int             `json:"maxMessageBytes"`
	RatePerSecond   int             `json:"ratePerSecond,omitempty"` // a replica; 0: no limit
	Auth            *Auth           `json:"auth,omitempty"`
}

// Auth is how a caller proves who it is, or how we do: exactly one member.
type Auth struct {
	Bearer *SecretRef  `json:"bearer,omitempty"`
	Basic  *BasicAuth  `json:"basic,omitempty"`  // outgoing only
	Header *HeaderAuth `json:"header,omitempty"` // outgoing only
}

// BasicAuth is HTTP's basic authentication.
type BasicAuth struct {
	Username SecretRef `json:"username"`
	Password SecretRef `json:"password"`
}

// HeaderAuth is a header whose value is secret.
type HeaderAuth struct {
	Name  string    `json:"name"`
	Value SecretRef `json:"value"`
}

// Expr is one CEL expression. It was type-checked by the compiler.
type Expr struct {
	CEL string `json:"cel"`
}

// HTTPTarget is where a request goes: URL, or a Service that the host turns into a URL.
type HTTPTarget struct {
	URL     string   `json:"url,omitempty"`
	Service *Service `json:"service,omitempty"`
}

// Service is a Kubernetes Service and a path on it.
type Service struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Port      int    `json:"port"`
	Path      string `json:"path"`
}
