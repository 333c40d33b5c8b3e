package broker

import (
	"slices"
	"sort"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// A watermark makes arbitrary-order Done into a position: it remembers what one claim gave out, in order, and which of it is done; its
// floor is the last delivery before which everything is done. A ring, so that nothing is allocated a message.
//
// Of a transfer it also keeps what became of each message until that is stored: behind the floor in ready, above it in the ring.
type watermark struct {
	ring    []mark // a power of two
	head, n int

	floor    mark
	risen    bool // floor is set
	advanced bool // and not committed as it is now
	gone     bool // its claim was lost before it was

	carries bool
	ready   []mark // done and not stored, in order; those that came to nothing are left to the one before them
	taken   int    // of ready, given to the broker at least once: it may have them, so they stay as they are
	bytes   int    // of all that is kept
}

type mark struct {
	position int64
	stored   time.Time // by the broker; with the position it names the message
	ref      any       // the driver's own, to settle with
	done     bool
	out      []message.Message
}

func (m *mark) size() int {
	n := 0
	for i := range m.out {
		n += m.out[i].Size()
	}
	return n
}

func (w *watermark) at(i int) *mark { return &w.ring[(w.head+i)&(len(w.ring)-1)] }

// add notes a delivery. Positions ascend within a claim; one that does not is known already.
func (w *watermark) add(position int64, stored time.Time, ref any) {
	if w.n > 0 && position <= w.at(w.n-1).position || w.n == 0 && w.risen && position <= w.floor.position {
		return
	}
	if w.n == len(w.ring) {
		bigger := make([]mark, max(64, 2*len(w.ring)))
		for i := range w.n {
			bigger[i] = *w.at(i)
		}
		w.ring, w.head = bigger, 0
	}
	w.n++
	*w.at(w.n - 1) = mark{position: position, stored: stored, ref: ref}
}

// done marks a position and reports whether the floor rose. out is what became of the message.
func (w *watermark) done(position int64, out []message.Message) bool {
	if w.n == 0 || position < w.at(0).position {
		return false
	}
	// Most logs have no gaps, so that the place follows from the position.
	i := position - w.at(0).position
	if i >= int64(w.n) || w.at(int(i)).position != position {
		i = int64(sort.Search(w.n, func(i int) bool { return w.at(i).position >= position }))
		if i == int64(w.n) || w.at(int(i)).position != position {
			return false
		}
	}
	m := w.at(int(i))
	if m.done {
		return false
	}
	m.done, m.out = true, out
	if w.carries {
		w.bytes += m.size()
	}
	if i != 0 {
		return false
	}
	for w.n > 0 && w.at(0).done {
		w.floor = *w.at(0)
		if w.carries {
			w.carry(w.floor)
		}
		*w.at(0) = mark{}
		w.head = (w.head + 1) & (len(w.ring) - 1)
		w.n--
	}
	w.risen, w.advanced = true, true
	return true
}

// carry makes a mark ready to be stored.
func (w *watermark) carry(m mark) {
	if last := len(w.ready) - 1; len(m.out) == 0 && last >= w.taken {
		w.ready[last].position, w.ready[last].stored, w.ready[last].ref = m.position, m.stored, m.ref
		return
	}
	w.ready = append(w.ready, m)
}

// take gives what is to be stored now.
func (w *watermark) take() []mark {
	w.taken = len(w.ready)
	return w.ready[:w.taken:w.taken]
}

// stored notes that the broker has the first n of what was taken.
func (w *watermark) stored(n int) {
	for i := range n {
		w.bytes -= w.ready[i].size()
	}
	w.ready = slices.Delete(w.ready, 0, n)
	w.taken -= n
	if len(w.ready) == 0 {
		w.advanced = false
	}
}

// gap is how many deliveries have been given out since the floor: how many would come again after a crash.
func (w *watermark) gap() int { return w.n + len(w.ready) }

// commit is the settlement that makes the floor durable; ok is false when there is nothing new.
func (w *watermark) commit(c driver.Claim) (d driver.Delivery, ok bool) {
	if !w.advanced {
		return driver.Delivery{}, false
	}
	return driver.Delivery{Claim: c, Position: w.floor.position, Stored: w.floor.stored, Ref: w.floor.ref}, true
}

// committed notes that the floor as it was at position is durable.
func (w *watermark) committed(position int64) {
	if w.floor.position == position {
		w.advanced = false
	}
}
