package gateway

import (
	"sync"
	"time"

	"github.com/waybill-dev/waybill/runtime/message"
)

const (
	// maxNoted bounds how many leases a replica remembers; beyond it the oldest are forgotten, and their tokens alone decide.
	maxNoted = 100_000
	// maxNotedBytes bounds the messages that are kept for a dead letter; of the others the broker is asked again.
	maxNotedBytes = 32 << 20
)

// verb is how a lease was ended.
type verb string

const (
	open    verb = ""
	acked   verb = "ack"
	nacked  verb = "nack"
	dead    verb = "reject" // or out of attempts
	replied verb = "reply"
)

// note is what this replica knows of a lease beyond its token: that it was extended, how it ended, and its message.
type note struct {
	mu      sync.Mutex // held while the lease is being settled
	key     [8]byte
	ended   verb
	expires time.Time
	message *message.Message // nil: not kept
	last    *time.Timer      // of the last attempt: fires when the lease has ended
}

// leasebook remembers the leases that this replica gave out or settled until they end. A lease works without it (tokens hold all that is
// needed); it makes repeated calls right.
type leasebook struct {
	mu    sync.Mutex
	notes map[[8]byte]*note
	order []*note // as they were made; may hold some that were removed
	bytes int
}

// note gives the note of a lease, making it where there is none.
func (b *leasebook) note(l *lease, now time.Time) *note {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.notes[l.key]
	if n == nil {
		b.sweep(now)
		n = &note{key: l.key, expires: l.expires}
		b.notes[l.key] = n
		b.order = append(b.order, n)
	}
	return n
}

// keep keeps a message with its note as long as there is room.
func (b *leasebook) keep(n *note, m *message.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if size := m.Size(); b.bytes+size <= maxNotedBytes {
		n.message = m
		b.bytes += size
	}
}

// settled drops the message of an ended lease. The caller holds n.mu.
func (b *leasebook) settled(n *note, v verb) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n.ended = v
	b.drop(n)
}

func (b *leasebook) drop(n *note) {
	if n.message != nil {
		b.bytes -= n.message.Size()
		n.message = nil
	}
	if n.last != nil {
		n.last.Stop()
		n.last = nil
	}
}

// message is what was kept of the lease's message, nil where it was not.
func (b *leasebook) message(n *note) *message.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return n.message
}

// expiry is when the lease ends as this replica knows it.
func (b *leasebook) expiry(n *note) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return n.expires
}

func (b *leasebook) extend(n *note, to time.Time, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n.expires = to
	if n.last != nil {
		n.last.Reset(to.Sub(now) + afterEnd)
	}
}

// afterEnd is how long after the end of a lease the broker has the message again.
const afterEnd = leaseMargin + 250*time.Millisecond

// watch has f called when the broker delivers the message of the lease again, unless it is settled before.
func (b *leasebook) watch(n *note, now time.Time, f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n.last = time.AfterFunc(n.expires.Sub(now)+afterEnd, f)
}

// sweep forgets leases that ended a while ago. The caller holds the lock.
func (b *leasebook) sweep(now time.Time) {
	for len(b.order) > 0 {
		n := b.order[0]
		over := now.After(n.expires.Add(2 * leaseMargin))
		if !over && len(b.order) < maxNoted {
			return
		}
		b.order[0] = nil
		b.order = b.order[1:]
		if !over && n.last != nil { // its timer still needs it
			b.order = append(b.order, n)
			return
		}
		b.drop(n)
		delete(b.notes, n.key)
	}
}

// stopTimers leaves the last attempts that end from now on to other replicas.
func (b *leasebook) stopTimers() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.notes {
		if n.last != nil {
			n.last.Stop()
			n.last = nil
		}
	}
}
