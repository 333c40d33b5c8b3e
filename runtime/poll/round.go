package poll

import (
	"context"
	"errors"
	"fmt"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/message"
)

// poll goes on with the round under way, or begins one, for as many pages as one poll may take. The error is a *failure, ctx's own, or
// wraps checkpoint.ErrConflict.
func (p *Poller) poll(ctx context.Context) error {
	// A checkpoint that could not be written is written before anything else is published.
	owed := p.keep.saved == nil
	if err := p.keep.save(ctx, p.st); err != nil {
		return checkpointFailure(ctx, err)
	}
	if p.st.At == nil {
		if owed {
			return nil // that was all that its round lacked: the next one has its time
		}
		p.begin()
		if err := p.keep.save(ctx, p.st); err != nil {
			return checkpointFailure(ctx, err)
		}
	}
	most := 1
	if sql := p.plan.SQL; sql != nil {
		most = sql.MaxPages
	}
	if pg := p.pagination(); pg != nil {
		if most = pg.MaxPages; most <= 0 {
			most = 1000
		}
	}
	var refused *failure
	for range most {
		more, err := p.page(ctx, &refused)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if refused != nil {
		return refused
	}
	return nil
}

// begin starts a round.
func (p *Poller) begin() {
	p.st.At = &position{Cursor: p.st.Cursor, Ties: p.st.Ties, Recent: p.st.Recent}
	p.whole = true
	clear(p.visited)
	if p.st.Seen != nil {
		p.st.Seen.begin()
	}
}

// page reads, publishes and passes one page. more says that another one follows. Items that cannot be published are noted in refused.
func (p *Poller) page(ctx context.Context, refused **failure) (more bool, err error) {
	at := p.st.At
	var conditional validators
	if at.Number == 0 {
		conditional = p.st.Validators
	}
	a, err := p.get(ctx, at, p.since(), conditional)
	if err != nil {
		if errors.Is(err, errGone) {
			p.st.At = nil
		}
		return false, sourceFailure(ctx, err)
	}
	// Many servers give their answer an ETag and never look at If-None-Match.
	if a.notModified || p.plan.Detect == etag && conditional.match(a.validators) {
		p.count(func(s *Stats) { s.NotModified++; s.Rounds++ })
		p.st.At = nil
		return false, checkpointFailure(ctx, p.keep.save(ctx, p.st))
	}
	next := at.after()
	if at.Number == 0 {
		next.Validators = a.validators
	}
	if a.end {
		return false, p.complete(ctx, next)
	}

	view := expr.ForPage(&a.page)
	raws, err := p.items(ctx, view, a)
	if err != nil {
		return false, unreadable(ctx, "items", err)
	}
	if len(raws) > maxItems {
		return false, &failure{reason: TooManyItems, err: fmt.Errorf("page %d has %d items, and %d are the most of one page: ask for smaller pages, or select fewer with items", at.Number, len(raws), maxItems)}
	}
	p.count(func(s *Stats) { s.Pages++; s.Items += int64(len(raws)) })
	refuse := func(err error) {
		p.count(func(s *Stats) { s.Refused++ })
		next.Faulty = true
		if *refused == nil {
			*refused = &failure{reason: ItemRefused, err: fmt.Errorf("page %d, %w", at.Number, err)}
		}
	}
	fs, err := p.examine(ctx, view, a, raws, refuse)
	if err != nil {
		return false, err
	}
	if err := p.fits(fs); err != nil {
		return false, err
	}
	stored, err := p.publish(ctx, fs, refuse)
	if err == nil && p.plan.Detect == cursor && next.Faulty {
		err = *refused // the cursor cannot pass what was not published
	}
	if err == nil {
		for i := range fs {
			if fs[i].cursor != "" && p.plan.HTTP != nil {
				next.advance(fs[i].cursor, fs[i].tie)
			}
		}
		if p.overlap() > 0 {
			next.recall(fs, p.overlap())
		}
		if p.plan.SQL != nil && p.plan.SQL.Cursor != nil {
			p.pass(next, fs, a.rows)
		}
		more, err = p.follow(ctx, view, a, at, next, len(raws))
		if err == nil && more {
			err = p.circle(next)
		}
	}
	if err != nil {
		// The page is read again. With Changed, what it brought is remembered by the item, and must be: it may look as before by then.
		if stored > 0 {
			err = errors.Join(err, checkpointFailure(ctx, p.keep.save(ctx, p.st)))
		}
		return false, err
	}
	if !more {
		return false, p.complete(ctx, next)
	}
	p.st.At = next
	if p.plan.Detect != etag {
		clear(p.published)
	}
	if stored == 0 {
		return true, nil // a crash costs a few requests and publishes nothing again
	}
	return true, checkpointFailure(ctx, p.keep.save(ctx, p.st))
}

func unreadable(ctx context.Context, field string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &failure{reason: PageUnreadable, err: fmt.Errorf("%s: %w", field, err)}
}

// fits holds the number of items against what Changed can remember. The round begins again when there are too many: the source may shrink.
func (p *Poller) fits(fs []found) error {
	s := p.st.Seen
	if s == nil {
		return nil
	}
	more := map[uint64]struct{}{}
	for i := range fs {
		if s.marks(fs[i].item) {
			more[fs[i].item] = struct{}{}
		}
	}
	switch {
	case s.marked+len(more) > maxSeen:
		p.st.At = nil
		return &failure{reason: TooManyItems, err: fmt.Errorf("the source has more than %d items, which is all that detect Changed remembers; use Cursor or ETag, or select fewer with items", maxSeen)}
	case len(s.items)+len(more) > 2*maxSeen && !p.whole:
		// Nothing is forgotten in a round that another process began, so this one has to be begun anew to make room.
		p.st.At = nil
		return &failure{reason: TooManyItems, err: errors.New("too many items have come and gone while rounds were interrupted; the round begins again")}
	}
	return nil
}

// publish stores what is new of a page, in order, and gives the number of messages that were. What the broker never takes is reported to
// refuse; what it does not take now is the error.
func (p *Poller) publish(ctx context.Context, fs []found, refuse func(error)) (stored int, err error) {
	rest := make([]int, 0, len(fs))
	for i := range fs {
		if fs[i].publish {
			rest = append(rest, i)
		} else {
			p.remember(&fs[i])
		}
	}
	for len(rest) > 0 {
		batch := rest[:min(len(rest), publishBatch)]
		errs := p.send(ctx, fs, batch)
		var again []int
		var first error
		never := false
		for n, i := range batch {
			var e error
			if errs != nil {
				e = errs[n]
			}
			switch {
			case e == nil:
				stored++
				p.remember(&fs[i])
				if len(p.published) < maxPublished {
					p.published[fs[i].attempt] = struct{}{}
				}
			case refusedForGood(e):
				never = true
				refuse(fmt.Errorf("item with id %.128q: %w", fs[i].message.ID, e))
			default:
				if first == nil {
					first = e
				}
				again = append(again, i)
			}
		}
		// What stood behind a refused item of its key goes without it.
		if first != nil && !never {
			err = &failure{reason: BrokerFailed, err: first}
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			break
		}
		rest = append(again, rest[len(batch):]...)
	}
	p.count(func(s *Stats) { s.Published += int64(stored) })
	return stored, err
}

func (p *Poller) send(ctx context.Context, fs []found, batch []int) []error {
	ms := make([]message.Message, len(batch))
	for n, i := range batch {
		ms[n] = fs[i].message
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return p.deps.Publisher.Publish(ctx, ms)
}

// refusedForGood reports whether the broker will never take this message. One that waited for such a message is another matter, though its error
// wraps the other's.
func refusedForGood(err error) bool {
	if errors.Is(err, broker.ErrHeld) || errors.Is(err, driver.ErrHeldBack) {
		return false
	}
	return errors.Is(err, driver.ErrTooLarge) || errors.Is(err, driver.ErrInvalid)
}

// remember takes an item for delivered.
func (p *Poller) remember(f *found) {
	if p.st.Seen != nil {
		p.st.Seen.record(f.item, f.content)
	}
}

// follow says whether another page follows, and writes into next where.
func (p *Poller) follow(ctx context.Context, view *expr.View, a *answer, at, next *position, items int) (bool, error) {
	if sql := p.plan.SQL; sql != nil {
		return a.cut || sql.Limited && next.Token != at.Token && next.Token != "", nil
	}
	pg := p.pagination()
	if pg == nil {
		return false, nil
	}
	switch pg.Type {
	case "Link":
		next.Link = p.http.link(a)
		return next.Link != "", nil
	case "Cursor":
		if p.programs.hasNext != nil {
			if has, err := p.programs.hasNext.EvalBool(ctx, view); err == nil && !has {
				return false, nil
			}
		}
		token, err := scalar(ctx, p.programs.next, view)
		if err != nil {
			if ctx.Err() == nil && blank(a.page.Body) {
				return false, nil // an empty answer leads nowhere
			}
			return false, unreadable(ctx, "pagination.cursor", err)
		}
		next.Token = token
		return token != "" && token != at.Token, nil // some servers repeat the last one at the end
	default:
		return items > 0, nil
	}
}

// complete ends a round whose last page was passed.
func (p *Poller) complete(ctx context.Context, end *position) error {
	st, moved := p.st, false
	switch p.plan.Detect {
	case changed:
		if p.whole && !end.Faulty && st.Seen.forget() {
			st.Round++
		}
	case always:
		st.Round++
	case etag:
		if !end.Faulty {
			st.Round++
		}
	case cursor:
		moved = st.Cursor != end.Cursor || st.Recent.floor != end.Recent.floor
		st.Cursor, st.Ties, st.Recent = end.Cursor, end.Ties, end.Recent
	}
	// An ETag speaks of one address: not of other pages, and not of the one with another cursor in it.
	st.Validators = validators{}
	if !end.Faulty && !moved && p.plan.Detect != always && (end.Number == 1 || p.plan.Detect == etag) {
		st.Validators = end.Validators
	}
	if p.plan.Detect != etag || !end.Faulty {
		clear(p.published)
	}
	st.At = nil
	p.count(func(s *Stats) { s.Rounds++ })
	return checkpointFailure(ctx, p.keep.save(ctx, st))
}
