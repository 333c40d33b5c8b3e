package flow

import (
	"context"
	"errors"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// An intake is one source from its opening to its end. What it gave dies with it.
type intake struct {
	src       driver.Source
	gone      map[string]uint64 // claims given up or lost: name to highest epoch
	over      bool
	extending bool
}

// isGone reports whether deliveries of a claim are no longer ours.
func (in *intake) isGone(c driver.Claim) bool {
	if in.over {
		return true
	}
	if len(in.gone) == 0 {
		return false
	}
	epoch, ok := in.gone[c.Name]
	return ok && c.Epoch <= epoch
}

func (in *intake) giveUp(claims []driver.Claim) {
	if in.gone == nil {
		in.gone = map[string]uint64{}
	}
	for _, c := range claims {
		in.gone[c.Name] = max(in.gone[c.Name], c.Epoch)
	}
}

// lost forgets what was received under claims that are gone: it comes again, to whoever has them now.
func (f *Flow) lost(in *intake, claims []driver.Claim) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in.giveUp(claims)
	f.forget(in, true)
}

// revoke ends what is under way under claims that are to be given up: what is in hands is finished until ctx ends, the rest forgotten.
func (f *Flow) revoke(ctx context.Context, in *intake, claims []driver.Claim) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in.giveUp(claims)
	f.forget(in, false)
	if f.await(ctx, func() bool { return !f.handles(in) }) {
		return
	}
	f.forget(in, true)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelGrace)
	defer cancel()
	f.await(grace, func() bool { return !f.handles(in) })
}

// handles reports whether a worker has an item of a claim that is gone.
func (f *Flow) handles(in *intake) bool {
	for it := f.oldest; it != nil; it = it.after {
		if it.in == in && it.worker != nil && !it.settled && in.isGone(it.d.Claim) {
			return true
		}
	}
	return false
}

// forget drops all items of claims that are gone. Of those in hands the result is ignored, and an attempt that has no others cancelled;
// or, if hard is false, they may be finished.
func (f *Flow) forget(in *intake, hard bool) {
	now := time.Now()
	var next *item
	for it := f.oldest; it != nil; it = next {
		next = it.after
		if it.in != in || it.settled || !in.isGone(it.d.Claim) {
			continue
		}
		if it.worker == nil {
			f.discard(it, now)
			continue
		}
		it.revoked = true
		if hard {
			it.gone.Store(true)
			if it.worker.allGone() {
				it.worker.cancel()
			}
		}
	}
	f.space.Signal()
	if f.runnable(now) {
		f.wake()
	}
}

func (w *worker) allGone() bool {
	for _, it := range w.items {
		if !it.gone.Load() {
			return false
		}
	}
	return true
}

// discard takes a waiting item out of its lane and the window.
func (f *Flow) discard(it *item, now time.Time) {
	l := it.lane
	if l.place != nowhere {
		f.pull(l)
	}
	f.detach(l, it)
	f.stats.Forgotten++
	solo := l == &it.solo
	f.free(it)
	if !solo && !l.busy {
		f.put(l, now)
	}
}

// abandon ends an intake whose source broke.
func (f *Flow) abandon(in *intake) {
	f.mu.Lock()
	in.over = true
	f.forget(in, true)
	if f.in == in {
		f.in = nil
	}
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(f.stop), closeTimeout)
	defer cancel()
	if err := in.src.Close(ctx); err != nil {
		f.log.Warn("Closing a source that broke", "error", err)
	}
}

// extendFrom starts the extension of an intake's deliveries with the first one that has a deadline.
func (f *Flow) extendFrom(in *intake) {
	if !in.extending {
		in.extending = true
		f.helpers.Go(func() { f.extend(in) })
	}
}

// extend renews, every third of AckWait, the deliveries that are held: in hands or waiting.
func (f *Flow) extend(in *intake) {
	var held []*item
	var serials []uint64
	var copies []driver.Delivery
	var list []*driver.Delivery
	warned := false
	for sleep(f.settling, f.p.AckWait/3) {
		held, serials, copies, list = held[:0], serials[:0], copies[:0], list[:0]
		soon := time.Now().Add(f.p.AckWait * 7 / 10).UnixNano()
		f.mu.Lock()
		if in.over {
			f.mu.Unlock()
			return
		}
		for it := f.oldest; it != nil; it = it.after {
			if d := it.deadline.Load(); it.in == in && d != 0 && d < soon && !it.gone.Load() {
				held, serials, copies = append(held, it), append(serials, it.serial), append(copies, it.d)
				copies[len(copies)-1].Deadline = time.Unix(0, d)
			}
		}
		f.mu.Unlock()
		if len(held) == 0 {
			continue
		}
		for i := range copies {
			list = append(list, &copies[i])
		}
		errs := in.src.Extend(f.settling, list)
		now := time.Now()
		var failed error
		f.mu.Lock()
		for i, it := range held {
			if it.serial != serials[i] || it.in != in {
				continue // settled meanwhile
			}
			switch {
			case errs == nil || errs[i] == nil:
				it.deadline.Store(copies[i].Deadline.UnixNano())
			case errors.Is(errs[i], driver.ErrStale):
				if it.worker == nil {
					f.discard(it, now)
				}
			default:
				failed = errs[i]
			}
		}
		f.space.Signal()
		f.mu.Unlock()
		clear(copies)
		clear(held)
		if failed != nil && !warned {
			f.log.Warn("Deliveries could not be extended; those whose time ends will come again", "error", failed)
		}
		warned = failed != nil
	}
}
