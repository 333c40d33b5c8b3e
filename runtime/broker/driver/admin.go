package driver

import (
	"context"
	"time"
)

// Kind is what sort of thing a Ref names on a broker.
type Kind string

const (
	Topic Kind = "Topic" // read by many independent groups
	Queue Kind = "Queue" // each message is taken once
	Group Kind = "Group" // a position on a Topic
)

// Ref names an object on a broker. Of is the topic of a Group.
type Ref struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	Of   string `json:"of,omitempty"`
}

// Object is a declared object: what Ensure makes and keeps true.
type Object struct {
	Ref
	// Owner is the mark of the resource that declares it, kept where the broker has a place for it.
	Owner string
	// External: the object exists already; it is checked, never made, altered or deleted.
	External bool

	// Of a Topic.
	Partitions int // where the broker has them; 0: the broker's default
	// Of a Topic or Queue. A full Topic deletes its oldest messages; a full Queue refuses new ones (ErrFull).
	MaxAge          time.Duration // 0: no limit
	MaxBytes        int64
	MaxMessages     int64
	MaxMessageBytes int

	// Of a Queue or Group.
	Ordering Ordering
	AckWait  time.Duration
	// Of a Group: where its position begins, used only when Ensure creates it.
	Start Start
}

// Outcome is what Ensure did.
type Outcome string

const (
	Created   Outcome = "Created"
	Updated   Outcome = "Updated"
	Unchanged Outcome = "Unchanged"
)

// State is what Inspect found.
type State struct {
	Ref    Ref
	Exists bool
	Owner  string
	// Messages held; of a Group the backlog (pending and unsettled). -1: the broker cannot say.
	Messages int64
	// Oldest is when the oldest message was stored; zero: unknown or none.
	Oldest time.Time
}

// Admin acts on declared objects; each call is idempotent and needs no open Source. Lists, so that drift and backlog cost one round a broker.
type Admin interface {
	Inspect(ctx context.Context, refs []Ref) ([]State, error)
	// Ensure makes o true. ErrConflict names the field that cannot be changed, or the other owner; ErrMissing an External object.
	// Only Ensure creates positions.
	Ensure(ctx context.Context, o Object) (Outcome, error)
	// Delete: missing is success; another owner's is ErrConflict; with ifEmpty ErrBusy while messages are left.
	Delete(ctx context.Context, r Ref, owner string, ifEmpty bool) error
	// Seek moves a group's position, only while the group has no member: ErrBusy.
	Seek(ctx context.Context, r Ref, s Start) error
}
