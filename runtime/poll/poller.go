package poll

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/postgres"
	"github.com/waybill-dev/waybill/runtime/schema"
)

const (
	// publishTimeout bounds one attempt to publish, so that a broker that is away shows in the status.
	publishTimeout = 30 * time.Second
	// publishBatch is how many items are published together.
	publishBatch = 500
	// maxPublished bounds what is remembered of a page that is tried again.
	maxPublished = 1 << 16
	// stopTimeout bounds the last write of the checkpoint.
	stopTimeout = 2 * time.Second
	// longestSleep, so that a schedule keeps to the clock when the machine slept or the clock was set.
	longestSleep = time.Minute
)

// Publisher stores messages where the poller's items go, as *broker.Publisher does.
type Publisher interface {
	Publish(ctx context.Context, ms []message.Message) []error
}

// Deps is what a Poller needs beside its plan.
type Deps struct {
	Client     *outbound.Client
	Namespace  string // of the secrets
	Publisher  Publisher
	Checkpoint checkpoint.Store
	Database   *postgres.Database // of a plan with SQL
	Log        *slog.Logger       // nil: none
}

// Poller runs one plan. It is made by New and run once.
type Poller struct {
	plan     plan.Poller
	deps     Deps
	programs programs
	schema   *schema.Schema // of the Topic that it publishes to; nil: none
	http     *httpSource
	get      source
	keep     keeper

	// Of Run alone.
	st *state
	// whole: the round under way began in this process, so that what it does not bring is gone.
	whole bool
	// published are the items of pages that may be read again, so that they are not published again in vain.
	published map[uint64]struct{}
	visited   map[uint64]struct{} // pages that the round was led to
	fresh     bool                // nothing was ever polled, as far as the checkpoint knows

	mu    sync.Mutex
	stats Stats
}

type programs struct{ items, noItems, id, key, cursor, next, hasNext *expr.Program }

// New makes a Poller. Its errors name the field of the plan.
func New(p plan.Poller, d Deps) (*Poller, error) {
	if (p.HTTP == nil) == (p.SQL == nil) {
		return nil, errors.New("the plan has no source that this worker knows")
	}
	if _, err := newSchedule(p.Schedule, time.Now()); err != nil {
		return nil, err
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	out := &Poller{plan: p, deps: d, keep: keeper{store: d.Checkpoint}, published: map[uint64]struct{}{}}
	switch p.Detect {
	case always, etag, changed:
	case cursor:
		if p.HTTP != nil && p.HTTP.Cursor == nil || p.SQL != nil && p.SQL.Cursor == nil {
			return nil, errors.New("detect Cursor: needs http.cursor or sql.cursor")
		}
	default:
		return nil, fmt.Errorf("detect %q is not known", p.Detect)
	}
	if err := out.compile(); err != nil {
		return nil, err
	}
	var err error
	if len(p.Schema) > 0 {
		if out.schema, err = schema.Compile(p.Schema); err != nil {
			return nil, fmt.Errorf("schema: %w", err)
		}
	}
	if p.SQL != nil {
		out.get = (&sqlSource{db: d.Database, plan: *p.SQL}).get
		return out, nil
	}
	if out.http, err = newHTTPSource(d.Client, d.Namespace, *p.HTTP); err != nil {
		return nil, err
	}
	out.get = out.http.get
	return out, nil
}

func (p *Poller) compile() error {
	var pageCursor, itemCursor *plan.Expr
	if pg := p.pagination(); pg != nil {
		if pg.Type != "Link" && pg.Type != "Cursor" && pg.Type != "Page" {
			return fmt.Errorf("pagination: type %q is not known", pg.Type)
		}
		if pageCursor = pg.Cursor; (pg.Type == "Cursor") != (pageCursor != nil) {
			return errors.New("pagination: cursor belongs to type Cursor, and to no other")
		}
	}
	if p.plan.Detect == cursor && p.plan.HTTP != nil {
		itemCursor = &p.plan.HTTP.Cursor.Expr
	}
	for _, e := range []struct {
		field string
		from  *plan.Expr
		scope expr.Scope
		kind  expr.Kind
		to    **expr.Program
	}{
		{"items", p.plan.Items, expr.PageScope, expr.List, &p.programs.items},
		{"id", p.plan.ID, expr.Item, expr.String, &p.programs.id},
		{"key", p.plan.Key, expr.Item, expr.String, &p.programs.key},
		{"http.cursor", itemCursor, expr.Item, expr.JSON, &p.programs.cursor},
		{"http.pagination.cursor", pageCursor, expr.PageScope, expr.JSON, &p.programs.next},
	} {
		if e.from == nil {
			continue
		}
		program, err := expr.Compile(e.from.CEL, e.scope, e.kind)
		if err != nil {
			return fmt.Errorf("%s: %w", e.field, err)
		}
		*e.to = program
	}
	if p.plan.Items != nil {
		// Many servers write null for an empty list. An expression that cannot be compared to it cannot be null.
		if program, err := expr.Compile("("+p.plan.Items.CEL+") == null", expr.PageScope, expr.Bool); err == nil {
			p.programs.noItems = program
		}
	}
	if pageCursor != nil {
		// Many servers leave the member out on the last page. Only where the expression is the selection of a member can that be asked.
		if program, err := expr.CompileHas(pageCursor.CEL, expr.PageScope); err == nil {
			p.programs.hasNext = program
		}
	}
	return nil
}

// pagination is how an HTTP source goes from page to page, nil where there is one page only.
func (p *Poller) pagination() *plan.Pagination {
	if p.plan.HTTP == nil {
		return nil
	}
	return p.plan.HTTP.Pagination
}

// fingerprints name what positions, and the cursor, belong to.
func (p *Poller) fingerprints() (source, cursorOf string) {
	if sql := p.plan.SQL; sql != nil {
		source = fingerprint(struct {
			Query   string
			Params  []int
			ID, Key *plan.Expr
			Items   *plan.Expr
			Detect  string
		}{sql.Query, sql.Params, p.plan.ID, p.plan.Key, p.plan.Items, p.plan.Detect})
		return source, fingerprint(sql.Cursor)
	}
	asked := *p.plan.HTTP
	asked.Timeout, asked.MaxResponseBytes = 0, 0
	source = fingerprint(struct {
		HTTP           plan.PollHTTP
		Items, ID, Key *plan.Expr
		Detect         string
	}{asked, p.plan.Items, p.plan.ID, p.plan.Key, p.plan.Detect})
	if p.plan.Detect == cursor {
		cursorOf = fingerprint(p.plan.HTTP.Cursor)
	}
	return source, cursorOf
}

func fingerprint(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // structs of strings and numbers
	}
	return hex.EncodeToString(digest(raw)[:8])
}

func (p *Poller) load(ctx context.Context) (err error) {
	source, cursorOf := p.fingerprints()
	if p.st, err = p.keep.load(ctx, source, cursorOf); err != nil {
		return err
	}
	p.st.timed = p.plan.Schedule.Cron != ""
	if p.plan.Detect != changed {
		p.st.Seen = nil
	} else if p.st.Seen == nil {
		p.st.Seen = newSeen()
	}
	if p.fresh = p.keep.saved == nil; p.fresh {
		// Nothing is stored and nothing has happened: that is not worth a write.
		p.keep.saved, err = encode(p.st)
	}
	return err
}

// Run polls until ctx ends: at once, and then on schedule; a restart is none of the times of a cron. It returns nil then. The checkpoint that cannot be read, or that somebody else
// writes too (checkpoint.ErrConflict), ends it with an error: two pollers at one source would each publish everything.
func (p *Poller) Run(ctx context.Context) error {
	if err := p.load(ctx); err != nil {
		return err
	}
	times, err := newSchedule(p.plan.Schedule, time.Now())
	if err != nil {
		return err
	}
	due := time.Now()
	if p.st.timed && !p.fresh && p.st.At == nil {
		if due, err = times.next(due); err != nil {
			return err
		}
	}
	p.count(func(s *Stats) { s.Due = due })
	sleepUntil(ctx, due)
	failures := 0
	for ctx.Err() == nil {
		err := p.poll(ctx)
		if errors.Is(err, checkpoint.ErrConflict) {
			return err
		}
		if ctx.Err() != nil {
			break
		}
		var next time.Time
		f := asFailure(err)
		if f != nil && f.reason != ItemRefused {
			failures++
			next = time.Now().Add(max(backoff(p.plan.Retry, failures), f.after))
		} else {
			failures = 0
			if next, err = times.next(time.Now()); err != nil {
				return err
			}
		}
		p.settle(f, next)
		if !sleepUntil(ctx, next) {
			break
		}
	}
	// What was published is remembered also when the end came in the middle of a page.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := p.keep.save(stop, p.st); err != nil {
		p.deps.Log.Warn("the checkpoint could not be written at the end; items may be published again with the same ids", "error", err)
	}
	return nil
}

func sleepUntil(ctx context.Context, at time.Time) bool {
	for {
		left := time.Until(at)
		if left <= 0 {
			return ctx.Err() == nil
		}
		t := time.NewTimer(min(left, longestSleep))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false
		}
	}
}
