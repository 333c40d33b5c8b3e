package flow

import (
	"context"
	"log/slog"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// Config is what a flow is made of.
type Config struct {
	// Name is the origin that dead letters carry: KIND/NAMESPACE/NAME.
	Name string
	// Open opens the source. It is called again, with backoff, when a source breaks. The flow's revoke and lost go into the SourceSpec.
	Open func(ctx context.Context, revoke func(context.Context, []driver.Claim), lost func([]driver.Claim)) (driver.Source, error)
	// Stages in the order in which a batch goes through them; the last one is the sink.
	Stages []Stage
	Policy Policy
	// DeadLetter takes what cannot be delivered. It may be nil with AtMostOnce only.
	DeadLetter Publisher
	// Settled, where set, is told what became of messages, after the broker has taken the acknowledgement: for receipts. It is called
	// from several batches at once.
	Settled func(context.Context, []Settled)
	Log     *slog.Logger
}

// Publisher writes to one object, as *broker.Publisher does: nil, or one error a message.
type Publisher interface {
	Publish(ctx context.Context, ms []message.Message) []error
}

// Policy is the terms of delivery.
type Policy struct {
	Ordering driver.Ordering
	// AtMostOnce settles before handling: one attempt, no retry, no dead letter, no breaker.
	AtMostOnce bool
	// Carries: the source is a driver.Carrier, which stores what leaves the last stage together with the position of what it came from. The
	// last stage then stores nothing itself.
	Carries bool
	// MaxInFlight messages are handled at once, BatchSize of them together. Strict ordering handles one at a time whatever they say.
	MaxInFlight int
	BatchSize   int
	// Window bounds what is held unsettled, waiting retries included. Bytes may be exceeded by the messages of one receive when they are
	// larger than any seen before.
	Window driver.Window
	// AckWait is how long the broker waits for a settlement: deliveries with a deadline are extended at a third of it.
	AckWait     time.Duration
	Retry       Retry
	OnFailure   OnFailure
	WhenExpired WhenExpired
}

// Retry is how often and how soon a failed message is tried again.
type Retry struct {
	MaxAttempts   int // counted failures
	Initial, Max  time.Duration
	Multiplier    float64
	JitterPercent int
}

// OnFailure is what becomes of a message that cannot be delivered.
type OnFailure string

const (
	// Park dead-letters it; the order of its key goes on.
	Park OnFailure = "Park"
	// Block keeps it: its key waits, and it is tried again at Retry.Max so that a mended destination frees it.
	Block OnFailure = "Block"
)

// WhenExpired is what becomes of a request whose expirytime has passed before its handling began. An event that nobody waits for an answer
// to never expires.
type WhenExpired string

const (
	Drop    WhenExpired = "Drop"
	Deliver WhenExpired = "Deliver"
)

// Outcome is how a message ended.
type Outcome string

const (
	Done         Outcome = "Done"         // the last stage has confirmed it
	Dropped      Outcome = "Dropped"      // a stage dropped it on purpose, or it had expired
	DeadLettered Outcome = "DeadLettered" // the dead letter has it
	Failed       Outcome = "Failed"       // AtMostOnce: its one attempt failed
)

// Expired is the reason of a message that was dropped because its expirytime had passed.
const Expired = "Expired"

// Settled says how one message ended.
type Settled struct {
	Delivery *driver.Delivery // valid during the call
	Outcome  Outcome
	// Reason of a dead letter or a drop; Err is the last error of what failed.
	Reason, Err string
}

// Of messages not yet started at most this many times MaxInFlight are held, so that one replica does not hoard.
const hoard = 2

// maxPause bounds what a Retry-After may ask for.
const maxPause = 15 * time.Minute

// normal fills in what makes no sense when absent. Defaults for users are the compiler's; these only keep a flow from standing still.
func (p Policy) normal() Policy {
	p.MaxInFlight = max(p.MaxInFlight, 1)
	p.BatchSize = min(max(p.BatchSize, 1), p.MaxInFlight)
	if p.Ordering == driver.Strict {
		p.BatchSize = 1
	}
	if p.Window.Messages <= 0 {
		p.Window.Messages = 4096
	}
	if p.Window.Bytes <= 0 {
		p.Window.Bytes = 64 << 20
	}
	if p.AckWait <= 0 {
		p.AckWait = 30 * time.Second
	}
	r := &p.Retry
	r.MaxAttempts = max(r.MaxAttempts, 1)
	if r.Initial <= 0 {
		r.Initial = time.Second
	}
	r.Max = max(r.Max, r.Initial)
	r.Multiplier = max(r.Multiplier, 1)
	return p
}

// workers is how many batches are handled at once.
func (p Policy) workers() int {
	if p.Ordering == driver.Strict {
		return 1
	}
	return p.MaxInFlight / p.BatchSize
}

// wait is the backoff after the nth failure in a row, without jitter.
func (r Retry) wait(n int) time.Duration {
	d := float64(r.Initial)
	for range n - 1 {
		if d *= r.Multiplier; d >= float64(r.Max) {
			return r.Max
		}
	}
	return min(time.Duration(d), r.Max)
}
