package sink

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/postgres"
)

const (
	// statementBytes of values go into one statement at the most.
	statementBytes = 4 << 20
	// collisions with other transactions are tried again at once this often; then the flow does.
	collisions = 3
	// searched values of a refused row are tried one by one to find the column that is to blame.
	searched = 256
)

// Postgres is the stage that writes each event as a row. A batch is one statement, and so one transaction: rows, and with ExactlyOnce the
// identities of the messages that they come from. A batch that the database refuses for what one of its rows holds is halved until the row is
// found.
type Postgres struct {
	plan     plan.Postgres
	db       *postgres.Database
	programs []*expr.Program // parallel to plan.Columns

	looking sync.Mutex // of one at a time

	mu       sync.Mutex
	table    *table // nil: it must be looked at first
	position int64  // the highest that was written, where the source has positions
}

// NewPostgres makes it. Nothing is connected yet.
func NewPostgres(p plan.Postgres, db *postgres.Database) (*Postgres, error) {
	s := &Postgres{plan: p, db: db}
	for _, c := range p.Columns {
		program, err := expr.Compile(c.CEL, expr.Message, expr.JSON)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
		s.programs = append(s.programs, program)
	}
	return s, nil
}

// A unit is one input: its rows are written together or not at all.
type unit struct {
	input    int
	rows     [][][]byte // values as PostgreSQL's text, nil: NULL
	bytes    int
	identity []byte
	position int64
}

// Process implements flow.Stage.
func (s *Postgres) Process(ctx context.Context, b *flow.Batch) {
	if len(b.Events) == 0 {
		return
	}
	t, err := s.look(ctx)
	if err != nil {
		b.FailAll(err)
		return
	}
	units := s.units(ctx, t, b)
	if ctx.Err() != nil {
		b.FailAll(ctx.Err())
		return
	}
	leaders := map[string]int{} // the input that an identity was met in first
	followers := map[int]int{}
	if s.plan.Identity != nil {
		units = firstOf(units, leaders, followers)
	}
	for len(units) > 0 {
		n, size := 0, 0
		for n < len(units) && (n == 0 || size+units[n].bytes <= statementBytes) {
			size += units[n].bytes
			n++
		}
		if !s.write(ctx, t, b, units[:n]) {
			failRest(b, units)
			break
		}
		units = units[n:]
	}
	for input, leader := range followers {
		if err := b.Inputs[leader].Err; err != nil {
			b.Fail(input, err)
		}
	}
}

// firstOf keeps one unit of each identity: what a broker delivered twice is written once.
func firstOf(units []unit, leaders map[string]int, followers map[int]int) []unit {
	kept := units[:0]
	for _, u := range units {
		if leader, again := leaders[string(u.identity)]; again {
			followers[u.input] = leader
			continue
		}
		leaders[string(u.identity)] = u.input
		kept = append(kept, u)
	}
	return kept
}

// failRest fails what was not tried with the error that ended the batch.
func failRest(b *flow.Batch, units []unit) {
	var why error
	for _, u := range units {
		if err := b.Inputs[u.input].Err; err != nil {
			why = err
		}
	}
	for _, u := range units {
		b.Fail(u.input, why)
	}
}

// units evaluates the columns. An input whose values do not fit is failed.
func (s *Postgres) units(ctx context.Context, t *table, b *flow.Batch) []unit {
	units := make([]unit, 0, len(b.Inputs))
	var scratch, arena []byte
	for i := range b.Events {
		e := &b.Events[i]
		if b.Inputs[e.Input].Err != nil {
			continue
		}
		view := expr.For(e.View, &e.Message)
		e.View = view
		row := make([][]byte, len(s.programs))
		var err error
		size := 0
		for n, program := range s.programs {
			if scratch, err = program.EvalJSON(ctx, view, scratch[:0]); err == nil {
				if cap(arena)-len(arena) < 256 {
					arena = make([]byte, 0, 16<<10)
				}
				var null bool
				start := len(arena)
				if arena, null, err = t.columns[n].text(arena, scratch); err == nil && !null {
					row[n] = arena[start:len(arena):len(arena)]
					size += len(row[n])
				}
			}
			if err != nil {
				err = fmt.Errorf("column %s: %w", s.plan.Columns[n].Name, err)
				break
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			b.Fail(e.Input, &flow.Fault{Blame: flow.Message, Err: err})
			if n := len(units); n > 0 && units[n-1].input == e.Input {
				units = units[:n-1]
			}
			continue
		}
		if n := len(units); n > 0 && units[n-1].input == e.Input {
			units[n-1].rows = append(units[n-1].rows, row)
			units[n-1].bytes += size
			continue
		}
		u := unit{input: e.Input, rows: [][][]byte{row}, bytes: size}
		if s.plan.Identity != nil {
			if u.identity, u.position, err = identityOf(&b.Inputs[e.Input]); err != nil {
				b.Fail(e.Input, &flow.Fault{Blame: flow.Message, Err: err})
				continue
			}
		}
		units = append(units, u)
	}
	return units
}

// identityOf names a delivery's message: what the broker calls it and when the broker stored it, for a stream that was made anew counts from 1
// again; or its source and id where the broker has no name for it.
func identityOf(in *flow.Input) ([]byte, int64, error) {
	d := in.Delivery
	if d.Identity != "" {
		id := []byte(d.Identity)
		if !d.Stored.IsZero() {
			id = strconv.AppendInt(append(id, '@'), d.Stored.UnixNano(), 36)
		}
		return id, d.Position, nil
	}
	if d.Message.ID == "" {
		return nil, 0, errors.New("the message has no id, and its broker gives it none: it cannot be told from another one, as ExactlyOnce needs")
	}
	return []byte(d.Message.Source + " " + d.Message.ID), 0, nil
}

// write stores units, or halves of them. False: the database takes nothing at the moment, so that it is no use to go on.
func (s *Postgres) write(ctx context.Context, t *table, b *flow.Batch, units []unit) bool {
	return halve(units, halving{
		free:  func(units []unit) []unit { return free(b, units) },
		store: func(units []unit) error { return s.store(ctx, t, units) },
		fail: func(u *unit, err error) {
			if postgres.OneRow(err) {
				err = s.explain(ctx, t, u, err)
			} else {
				s.distrust(err)
			}
			b.Fail(u.input, err)
		},
	})
}

// halving is how to find the units that a database refuses among those that it takes.
type halving struct {
	free  func([]unit) []unit // without those that must not be stored now
	store func([]unit) error  // all or none of them
	fail  func(*unit, error)
}

// halve stores what can be stored. One refused unit among n costs some 2·log n statements more.
func halve(units []unit, h halving) bool {
	units = h.free(units)
	if len(units) == 0 {
		return true
	}
	err := h.store(units)
	switch {
	case err == nil:
		return true
	case len(units) > 1 && postgres.OneRow(err):
		half := len(units) / 2
		return halve(units[:half], h) && halve(units[half:], h)
	}
	for i := range units {
		h.fail(&units[i], err)
	}
	return postgres.OneRow(err)
}

// free leaves out what must not overtake a failed one of its lane; the flow hands it in again.
func free(b *flow.Batch, units []unit) []unit {
	kept := make([]unit, 0, len(units))
	for _, u := range units {
		if !b.Held(u.input) {
			kept = append(kept, u)
		}
	}
	return kept
}

// store writes units in one transaction.
func (s *Postgres) store(ctx context.Context, t *table, units []unit) error {
	values := t.values(s.plan.Identity, units)
	formats := []int16{1}
	oids := make([]uint32, len(values))
	for i := range oids {
		oids[i] = postgres.TextArray
	}
	for try := 1; ; try++ {
		err := s.do(ctx, func(ctx context.Context, c *pgconn.PgConn) error {
			_, err := c.ExecParams(ctx, t.insert, values, oids, formats, nil).Close()
			return err
		})
		if err == nil {
			s.written(units)
			return nil
		}
		if code := postgres.Code(err); try > collisions || code != "40001" && code != "40P01" {
			return err
		}
	}
}

// do bounds one conversation with the database.
func (s *Postgres) do(ctx context.Context, f func(context.Context, *pgconn.PgConn) error) error {
	return s.db.Do(ctx, func(ctx context.Context, c *pgconn.PgConn) error {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(s.plan.Timeout))
		defer cancel()
		return f(ctx, c)
	})
}

func (s *Postgres) written(units []unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range units {
		s.position = max(s.position, units[i].position)
	}
}

// explain finds the column that a refused row is refused for, where the server does not say.
func (s *Postgres) explain(ctx context.Context, t *table, u *unit, err error) error {
	f, ok := errors.AsType[*flow.Fault](err)
	if !ok || f.Blame != flow.Message || postgres.Column(err) != "" || postgres.Code(err)[:2] != "22" {
		return err
	}
	tried := 0
	for _, row := range u.rows {
		for n, v := range row {
			if tried++; v == nil || tried > searched {
				continue
			}
			c := &t.columns[n]
			alone := s.do(ctx, func(ctx context.Context, conn *pgconn.PgConn) error {
				_, err := conn.ExecParams(ctx, "select $1::text::"+c.declared, [][]byte{v}, nil, nil, nil).Close()
				return err
			})
			if code := postgres.Code(alone); len(code) == 5 && code[:2] == "22" {
				inner, _ := errors.AsType[*flow.Fault](alone)
				return &flow.Fault{Blame: flow.Message, Err: fmt.Errorf("column %s (%s): %w", c.name, c.declared, inner.Err)}
			}
		}
	}
	return err
}
