// Package driver is what a broker must offer. A driver translates and decides nothing: it has no retry loop, sleep, attempt count, dead
// letter or log line of its own. Errors go up raw; package broker classifies and acts on them, the same for every broker.
//
// The contract is stated by the conformance suite in package brokertest, which every driver runs against the real server.
package driver

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/waybill-dev/waybill/runtime/message"
)

// Open dials, authenticates and probes within ctx. A rotated secret means a new Open, then Close of the old.
type Open func(ctx context.Context, cfg Config) (Conn, error)

// Config says where a broker is and who we are there. It holds resolved secret bytes and is never logged.
type Config struct {
	// ClientName is shown to the broker's operator beside the session.
	ClientName string
	Addresses  []string
	TLS        *tls.Config `json:"-"` // nil: no TLS unless the address asks for it

	Username, Password string
	Token              string
	Credentials        []byte // NATS: contents of a credentials file

	JetStreamDomain string // NATS
}

// A Conn is one authenticated session, safe for concurrent use; package broker holds one to publish and one to consume. A client may heal
// its own session only if each earlier Delivery then still settles or fails with ErrStale; where it cannot promise that, Done closes.
type Conn interface {
	Features() Features // probed facts; constant for this Conn
	Publisher(ctx context.Context, s PublisherSpec) (Publisher, error)
	Source(ctx context.Context, s SourceSpec) (Source, error)
	// Settler is nil unless any connection can settle a Handle (NATS, SQS).
	Settler() Settler
	// Inbox opens an inbox whose address lies under namespace's reply prefix. ErrUnsupported: SQS.
	Inbox(ctx context.Context, namespace string) (Inbox, error)
	// Reply sends m to an inbox's address. ErrInvalid when the address does not lie under namespace's reply prefix (it is forged),
	// ErrGone when the broker knows that nobody listens there any more.
	Reply(ctx context.Context, namespace, address string, m message.Message) error
	Admin() Admin
	Class(err error) Class
	Done() <-chan struct{} // closed when the session is beyond repair; every call fails from then on
	Close(ctx context.Context) error
}

// A Monitor is a Conn whose client heals its own session: Away says why there is none at the moment, nil while there is one.
type Monitor interface{ Away() error }

// Features are facts about the server as probed by Open.
type Features struct {
	Server  string // product, as the server says: "nats"
	Version string
	// MaxMessageBytes is the broker's limit on one message, headers included.
	MaxMessageBytes int
	// DedupWindow is for how long the broker drops a second message with the same source and id; 0: it does not.
	DedupWindow time.Duration
	// AtomicBatch: a batch becomes visible whole or not at all.
	AtomicBatch bool
	// NativeDelay: Release with After > 0 is kept by the broker.
	NativeDelay bool
	// Counts: Inspect knows how many messages and how much backlog there is.
	Counts bool
}

// PublisherSpec names the object to write to.
type PublisherSpec struct{ Object Ref }

// Publisher writes to one object. Safe for concurrent use.
type Publisher interface {
	// Publish returns when each message is confirmed durable or has failed: nil, or one error a message (nil entries are stored).
	// Prefix rule, per key: if ms[i] failed, nothing after it with the same key was stored by this call. ErrUnknown: the fate is not known
	// (a retry may duplicate). ErrFull: the object refuses more until something is taken from it.
	Publish(ctx context.Context, ms []message.Message) []error
	Close(ctx context.Context) error
}

// A Claim is a grant to read one partition (or a whole queue, Name ""). The same partition granted again has a higher Epoch.
type Claim struct {
	Name  string
	Epoch uint64
}

// A Delivery is one received message, valid until settled. Data aliases client memory.
type Delivery struct {
	Message  message.Message
	Claim    Claim
	Position int64     // offset or sequence, ascending within Claim; 0 where Settling is PerMessage
	Identity string    // stable over redeliveries, unique in the source: "orders/3/4711"; "" where the broker has none
	Count    int       // the broker's own delivery count, ≥ 1, 0 unknown. A hint: releases and restarts raise it, a reset lowers it
	Deadline time.Time // then the broker delivers it again; zero: not while the session lives
	Stored   time.Time // when the broker stored it, by the broker's clock; zero: the broker does not say
	Handle   []byte    // settles it through Settler from anywhere; nil where only this source can
	Ref      any       // the driver's own: delivery tag and channel generation, record, receipt
}

// Ordering is what order of handling a source must make possible.
type Ordering string

const (
	None   Ordering = "None"
	Key    Ordering = "Key"
	Strict Ordering = "Strict"
)

// Start is where a new position begins. It is used by Ensure and Seek only: a driver never falls back to a broker's reset policy.
type Start struct {
	Position string    // Earliest, Latest or Time
	Time     time.Time // with Time
}

const (
	Earliest = "Earliest"
	Latest   = "Latest"
	AtTime   = "Time"
)

// Window bounds what a source holds unsettled, prefetch included: the only flow control there is. A Positional source cannot see what is
// done before its position moves, so there it bounds what is fetched ahead of Receive, and the caller bounds the rest by not receiving.
type Window struct{ Messages, Bytes int }

// SourceSpec says what to read and how.
type SourceSpec struct {
	Object   Ref    // a Topic or a Queue
	Group    string // of a Topic; "" for a Queue
	Ordering Ordering
	Window   Window
	AckWait  time.Duration
	// OnDemand: nothing is fetched ahead. Each Receive asks for at most len(into) messages and takes back what of that has not come when it
	// returns; the Window is the caller's affair. For leases, which begin to run when the broker hands a message out. Queues, ordering None
	// and Strict only.
	OnDemand bool
	// Revoke is called before claims are given up and blocks that: on return nothing of them is in flight and what can be settled has been.
	// ctx ends when the broker waits no longer. Lost says that they are gone already: settle nothing. Both may be nil.
	Revoke func(ctx context.Context, c []Claim)
	Lost   func(c []Claim)

	// Lease: what a Receive gave out is settled by its Handle through Settler only, and outlives the source: Close leaves it alone. Nothing is
	// fetched ahead, as with OnDemand. Only where Settler is not nil.
	Lease bool
	// Into makes the settlements of a group carry messages to this Topic of the same broker: what a settlement has in Out becomes visible in one
	// step with the position. The source is Positional whatever Ordering says, and a Carrier. What its position depends on is fenced: of two
	// sources of one group one at most goes on. Zero: nothing is carried. ErrUnsupported where the broker has no such step, ErrConflict where
	// the Topic is not fit for it.
	Into Ref

	// Live reads a Topic without a group (Group ""): no position is kept, nothing need be settled, and each reader gets everything.
	// Where Settling is Positional each Delivery has its Claim and Position.
	Live *Live
}

// Live is where a reader without a group begins.
type Live struct {
	// Start is used when After is empty: Latest means what is stored after Source returned.
	Start Start
	// After resumes behind the positions that were seen last, one a claim. Receive answers ErrPositionLost when the message after one of
	// them is gone from the broker (retention), or when one of them is another now; the reader then starts again at Earliest.
	After []Mark
}

// Mark is a position in a claim, and when the broker stored the message that is there: zero where that is not known. It tells the message from
// another one that has its position now, after a crash or because the object was made anew.
type Mark struct {
	Claim    string
	Position int64
	Stored   time.Time
}

// Settling is how a source takes settlements.
type Settling int

const (
	PerMessage Settling = iota
	// Positional: Done(d) means d and everything before it in its claim.
	Positional
)

// Source is one consumer of one group.
type Source interface {
	Settling() Settling
	// Receive waits for the first delivery, then returns those at hand, up to len(into); 0, nil when ctx ends. One caller at a time.
	// Deliveries of one claim come in order; one of a lost claim never comes. ErrDrained after Drain when everything fetched was given
	// out; ErrPositionLost when the position is gone from the broker.
	Receive(ctx context.Context, into []Delivery) (int, error)
	// Settle is safe beside Receive and returns when the broker has taken each: nil, or one error an entry. ErrStale: lease or claim is
	// gone, it will come again. Never all or nothing.
	Settle(ctx context.Context, s []Settlement) []error
	// Extend asks for another AckWait from now and moves each Deadline; it does nothing where Deadline is zero.
	Extend(ctx context.Context, d []*Delivery) []error
	// Drain fetches no more; Receive gives what was fetched, then ErrDrained; claims are kept so that late settles count.
	Drain()
	// Close hands unsettled deliveries back, in order.
	Close(ctx context.Context) error
}

// A Carrier is a source that was opened with Into. Its Settle takes settlements of a claim in the order of their positions: if one of them
// failed, none after it has taken effect. A failed one may have taken effect when the error says so (ErrUnknown); it is settled again, with the
// same or more after it, and then the source finds out.
type Carrier interface {
	Source
	// Fits says why out, which is all that became of one message, can never be stored in one step with its position (ErrTooLarge, ErrInvalid);
	// nil where it can.
	Fits(out []message.Message) error
}

// Verb is what a settlement says.
type Verb int

const (
	Done Verb = iota
	// Release hands a delivery back to be delivered again, here or elsewhere. Only where Settling is PerMessage.
	Release
)

// Settlement settles one delivery, of which Claim, Position, Stored, Handle and Ref are as they were received. After > 0 only with Release
// and where Features has NativeDelay.
type Settlement struct {
	D     *Delivery
	Verb  Verb
	After time.Duration
	Out   []message.Message // what became of the message; with Done, of a Carrier only
}

// Settler settles from any connection, for leases that outlive a request. It does not fence: the caller refuses expired leases first. Where
// there is one, Features has NativeDelay: nobody holds a lease that was handed back with a delay.
type Settler interface {
	// Restore makes a delivery from a Handle; it does no I/O. ErrInvalid when the handle is none of object's.
	Restore(object Ref, handle []byte) (Delivery, error)
	Settle(ctx context.Context, s []Settlement) []error
	Extend(ctx context.Context, d []*Delivery) []error
}

// Loader is a Settler that can also read again the message of a delivery that Restore made: a lease that is rejected on another replica
// than the one that handed it out is dead-lettered from there. ErrMissing when the message was settled meanwhile.
type Loader interface {
	Load(ctx context.Context, d *Delivery) (message.Message, error)
}

// Inbox receives replies of this process only, from before Inbox returned; nothing is stored for it and nothing survives it.
type Inbox interface {
	Address() string
	// Receive waits for the first reply, then returns those at hand; 0, nil when ctx ends.
	Receive(ctx context.Context, into []message.Message) (int, error)
	Close(ctx context.Context) error
}
