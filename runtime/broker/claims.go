package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// watch commits what is done and notices when the session is lost.
func (s *Source) watch(o *openSource) {
	timer := time.NewTimer(commitEvery)
	timer.Stop()
	defer timer.Stop()
	armed, failed := false, false
	save := func() {
		armed = false
		ctx, cancel := context.WithTimeout(o.ctx, closeTimeout)
		defer cancel()
		err := s.save(ctx, o)
		if err == nil {
			failed = false
			return
		}
		if o.ctx.Err() != nil {
			return
		}
		if again, _ := passing(o.conn, err); s.carries() && !again && !errors.Is(err, driver.ErrStale) {
			s.b.log.Warn("What became of messages cannot be stored; the source is opened anew", "object", s.spec.Object.Name, "group", s.spec.Group, "error", err)
			s.drop(o)
			return
		}
		if errors.Is(err, driver.ErrStale) {
			s.b.log.Warn("Another consumer has taken over; the source is opened anew", "object", s.spec.Object.Name, "group", s.spec.Group, "error", err)
			s.drop(o)
			return
		}
		if !failed {
			failed = true
			s.b.log.Warn("A position could not be committed; trying again", "object", s.spec.Object.Name, "group", s.spec.Group, "error", err)
		}
		timer.Reset(commitEvery)
		armed = true
	}
	for {
		select {
		case <-o.ctx.Done():
			return
		case <-o.conn.Done():
			s.drop(o)
			return
		case <-o.dirty:
			if !armed {
				timer.Reset(commitEvery)
				armed = true
			}
		case <-timer.C:
			save()
		case <-o.full:
			if !armed || !s.carries() { // what failed waits for its timer
				save()
			}
		}
	}
}

// Flush commits what is done now, for a caller that must not be given it again. ErrStale: some of it was not taken and will come again,
// for the source was replaced or a claim is gone.
func (s *Source) Flush(ctx context.Context) error {
	s.mu.Lock()
	o := s.cur
	s.mu.Unlock()
	var err error
	if o != nil {
		err = s.save(ctx, o)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && (o == nil || s.unkept > 0) {
		err = driver.ErrStale
	}
	if errors.Is(err, driver.ErrStale) {
		s.unkept = 0 // it was told
	}
	return err
}

// save commits the floors that rose since the last time.
func (s *Source) save(ctx context.Context, o *openSource) error {
	o.saving.Lock()
	defer o.saving.Unlock()
	if s.carries() {
		return s.store(ctx, o)
	}
	var ds []driver.Delivery
	var marks []*watermark
	s.mu.Lock()
	if !o.positional {
		s.mu.Unlock()
		return nil
	}
	if s.cur != o {
		s.mu.Unlock()
		return driver.ErrStale
	}
	o.unsaved = 0
	for c, w := range o.claims {
		if d, ok := w.commit(c); ok {
			ds, marks = append(ds, d), append(marks, w)
		}
	}
	s.mu.Unlock()
	if len(ds) == 0 {
		return nil
	}
	list := make([]driver.Settlement, len(ds))
	for i := range ds {
		list[i] = driver.Settlement{D: &ds[i], Verb: driver.Done}
	}
	errs := o.Settle(ctx, list)
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed []error
	for i := range ds {
		if errs != nil && errs[i] != nil {
			failed = append(failed, fmt.Errorf("committing position %d: %w", ds[i].Position, s.settleError(o, errs[i])))
			continue
		}
		w := marks[i]
		w.committed(ds[i].Position)
		if w.gone && !w.advanced { // it was lost meanwhile, with nothing left to commit
			w.gone = false
			s.unkept = max(0, s.unkept-1)
		}
	}
	return errors.Join(failed...)
}

// store is save for what is carried: all that is done without a gap goes to the broker, with what became of it.
func (s *Source) store(ctx context.Context, o *openSource) error {
	type part struct {
		w     *watermark
		first int
	}
	var parts []part
	var ds []driver.Delivery
	s.mu.Lock()
	if s.cur != o {
		s.mu.Unlock()
		return driver.ErrStale
	}
	o.unsaved = 0
	var marks []mark
	for c, w := range o.claims {
		ready := w.take()
		if len(ready) == 0 {
			continue
		}
		parts = append(parts, part{w, len(ds)})
		for i := range ready {
			ds = append(ds, driver.Delivery{Claim: c, Position: ready[i].position, Stored: ready[i].stored, Ref: ready[i].ref})
			marks = append(marks, ready[i])
		}
	}
	s.mu.Unlock()
	if len(ds) == 0 {
		return nil
	}
	list := make([]driver.Settlement, len(ds))
	for i := range ds {
		list[i] = driver.Settlement{D: &ds[i], Verb: driver.Done, Out: marks[i].out}
	}
	errs := o.Settle(ctx, list)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer signal(s.room)
	var failed []error
	for i, p := range parts {
		end := len(ds)
		if i+1 < len(parts) {
			end = parts[i+1].first
		}
		n := p.first
		for n < end && (errs == nil || errs[n] == nil) {
			n++
		}
		p.w.stored(n - p.first)
		if n < end {
			failed = append(failed, fmt.Errorf("storing what became of position %d: %w", ds[n].Position, s.settleError(o, errs[n])))
		} else if p.w.gone && !p.w.advanced {
			p.w.gone = false
			s.unkept = max(0, s.unkept-1)
		}
	}
	return errors.Join(failed...)
}

// revoke lets the caller finish what it has of the claims, commits it and gives them up.
func (s *Source) revoke(ctx context.Context, o *openSource, claims []driver.Claim) {
	if s.spec.Revoke != nil {
		s.spec.Revoke(ctx, outers(o, claims))
	}
	if err := s.save(ctx, o); err != nil && o.ctx.Err() == nil {
		s.b.log.Warn("Positions could not be committed before claims were given up; their last messages will come again",
			"object", s.spec.Object.Name, "group", s.spec.Group, "error", err)
	}
	s.forget(o, claims)
}

// lose gives claims up that are gone already.
func (s *Source) lose(o *openSource, claims []driver.Claim) {
	s.forget(o, claims)
	if s.spec.Lost != nil && len(claims) > 0 {
		s.spec.Lost(outers(o, claims))
	}
}

func (s *Source) forget(o *openSource, claims []driver.Claim) {
	s.mu.Lock()
	for _, c := range claims {
		if w := o.claims[c]; w != nil && w.advanced {
			w.gone = true
			s.unkept++
		}
		delete(o.claims, c)
	}
	o.lastMark, o.lastClaim = nil, driver.Claim{}
	s.mu.Unlock()
	signal(s.room)
}

// drop gives a whole source up: all its claims are lost, and Receive opens another.
func (s *Source) drop(o *openSource) {
	s.mu.Lock()
	if s.cur != o {
		s.mu.Unlock()
		return
	}
	s.cur = nil
	s.blocked = time.Time{}
	claims := make([]driver.Claim, 0, len(o.claims))
	for c := range o.claims {
		claims = append(claims, c)
	}
	s.mu.Unlock()
	o.cancel()
	s.lose(o, claims)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := o.Close(ctx); err != nil {
		s.b.log.Debug("Closing a source that was given up", "object", s.spec.Object.Name, "error", err)
	}
}

func outers(o *openSource, claims []driver.Claim) []driver.Claim {
	out := make([]driver.Claim, len(claims))
	for i, c := range claims {
		out[i] = o.outer(c)
	}
	return out
}
