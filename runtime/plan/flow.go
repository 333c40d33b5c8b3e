package plan

import "encoding/json"

// Flow is source → steps → sink under a policy: what a Subscription, a Pipeline and a Mailbox with a handler become.
type Flow struct {
	Source Source `json:"source"`
	Steps  []Step `json:"steps,omitempty"`
	Sink   Sink   `json:"sink"`
	Policy Policy `json:"policy"`
}

// Source is what a flow reads.
type Source struct {
	Object   Ref      `json:"object"`          // a Topic or a Queue
	Group    string   `json:"group,omitempty"` // of a Topic
	Ordering string   `json:"ordering"`        // None, Key, Strict
	AckWait  Duration `json:"ackWait"`
	// What is held unsettled at the most, waiting retries included.
	WindowMessages int `json:"windowMessages"`
	WindowBytes    int `json:"windowBytes"`
}

// Policy is the terms of delivery.
type Policy struct {
	Guarantee string `json:"guarantee"` // AtMostOnce, AtLeastOnce, ExactlyOnce
	// MaxInFlight is how many messages are handled at once.
	MaxInFlight int `json:"maxInFlight"`
	// BatchSize is how many messages go through the stages together; 1 where each is answered by itself.
	BatchSize   int    `json:"batchSize"`
	Retry       Retry  `json:"retry"`
	OnFailure   string `json:"onFailure"` // Park, Block
	DeadLetter  *Ref   `json:"deadLetter,omitempty"`
	WhenExpired string `json:"whenExpired"` // Drop, Deliver: messages whose expirytime has passed
}

// Retry is how often and how soon a failed message is tried again.
type Retry struct {
	MaxAttempts   int      `json:"maxAttempts"`
	Initial       Duration `json:"initial"`
	Max           Duration `json:"max"`
	Multiplier    float64  `json:"multiplier"`
	JitterPercent int      `json:"jitterPercent"` // 20: between 80 % and 120 % of the backoff
}

// Step is one named step: exactly one member is set.
type Step struct {
	Name      string    `json:"name"`
	Filter    *Expr     `json:"filter,omitempty"`
	Transform *Expr     `json:"transform,omitempty"`
	Split     *Expr     `json:"split,omitempty"`
	Dedupe    *Dedupe   `json:"dedupe,omitempty"`
	HTTP      *HTTPCall `json:"http,omitempty"`
}

// Dedupe drops a message whose key was seen within the window.
type Dedupe struct {
	Key     Expr     `json:"key"`
	Window  Duration `json:"window"`
	MaxKeys int      `json:"maxKeys"`
}

// HTTPCall is a request a message, in CloudEvents' binary mode.
type HTTPCall struct {
	HTTPTarget
	Timeout     Duration `json:"timeout"`
	Concurrency int      `json:"concurrency,omitempty"` // of an http step: requests at once within a batch
	Auth        *Auth    `json:"auth,omitempty"`
}

// Sink ends a flow: exactly one member is set.
type Sink struct {
	Publish  *Publish  `json:"publish,omitempty"`
	Push     *Push     `json:"push,omitempty"`
	Reply    *Reply    `json:"reply,omitempty"`
	Postgres *Postgres `json:"postgres,omitempty"`
}

// Publish writes each message to a Topic or Queue.
type Publish struct {
	Object          Ref             `json:"object"`
	Key             *Expr           `json:"key,omitempty"`
	Schema          json.RawMessage `json:"schema,omitempty"`          // JSON Schema that the Topic asks data to meet
	MaxMessageBytes int             `json:"maxMessageBytes,omitempty"` // of the data; 0: no bound but the broker's
}

// Push sends each message to a subscriber. What becomes of a response body: Drop, Topic (published to ReplyTo when it is a CloudEvent)
// or Requester (it is the reply to a waiting requester).
type Push struct {
	HTTPCall
	Response string   `json:"response"`
	ReplyTo  *Publish `json:"replyTo,omitempty"`
}

// Reply sends each message to the requester that waits for it.
type Reply struct{}
