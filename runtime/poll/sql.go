package poll

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/postgres"
)

const (
	// fetched rows come at a time, so that a result is never held whole.
	fetched = 500
	// maxRows of a page, however small they are.
	maxRows = 10_000
)

// sqlSource asks a database. A page is what fits into one; where the result goes on, the next page begins behind its last row.
type sqlSource struct {
	db   *postgres.Database
	plan plan.PollSQL
}

// A record is one row.
type record struct {
	json   []byte
	cursor string // its cursor columns: a JSON list of their texts
	first  string // the first of them where its order is known here: a number or a time
}

func (s *sqlSource) get(ctx context.Context, at *position, since string, _ validators) (*answer, error) {
	values := s.from(at, since)
	var a *answer
	err := s.db.Do(ctx, func(ctx context.Context, c *pgconn.PgConn) (err error) {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(s.plan.Timeout))
		defer cancel()
		a, err = s.read(ctx, c, values)
		// Nothing was written, so that there is nothing to commit; a connection that is lost is told by err.
		if _, end := c.Exec(ctx, "rollback").ReadAll(); err == nil {
			err = end
		}
		return err
	})
	if err != nil {
		return nil, s.told(err, at.Token == "" && since == "")
	}
	return a, nil
}

// told adds to an error of the server what it means here.
func (s *sqlSource) told(err error, first bool) error {
	hint := ""
	switch code := postgres.Code(err); {
	case code == "42P18" || code == "42P08":
		hint = "; write a cast, as in :cursor::bigint"
	case first && (code == "22P02" || code == "22007" || code == "22008" || code == "22003") && s.plan.Cursor != nil:
		hint = "; is a value of sql.cursor.start none of its column's type?"
	case code == "25006":
		return &flow.Fault{Blame: flow.Address, Err: errors.New("the query would change the database, and is run in a transaction that may only read")}
	}
	if f, ok := errors.AsType[*flow.Fault](err); ok {
		return &flow.Fault{Blame: f.Blame, After: f.After, At: f.At, Err: fmt.Errorf("the query: %w%s", f.Err, hint)}
	}
	return err
}

// from are the values of the cursor's columns behind which a page begins.
func (s *sqlSource) from(at *position, since string) []string {
	c := s.plan.Cursor
	switch {
	case c == nil:
		return nil
	case at.Token != "":
		return values(at.Token)
	case since == "":
		return c.Start
	}
	last := values(since)
	if s.plan.Overlap > 0 {
		if t, ok := instant(last[0]); ok {
			begin := max(t-time.Duration(s.plan.Overlap).Microseconds(), at.Recent.floor)
			if begin <= t {
				return append([]string{time.UnixMicro(begin).UTC().Format("2006-01-02 15:04:05.999999+00")}, c.Start[1:]...)
			}
		}
	}
	return last
}

// values are the texts of a cursor.
func values(cursor string) []string {
	var all []string
	if err := json.Unmarshal([]byte(cursor), &all); err != nil {
		panic("a cursor that this package wrote cannot be read: " + err.Error()) // the checkpoint's fingerprint was checked
	}
	return all
}

// settings of the transaction, so that values are spelt in one way.
const settings = "begin read only; set local timezone = 'UTC'; set local datestyle = 'ISO, YMD'; set local bytea_output = 'hex'; set local intervalstyle = 'iso_8601'; set local statement_timeout = "

func (s *sqlSource) read(ctx context.Context, c *pgconn.PgConn, from []string) (*answer, error) {
	a := &answer{read: time.Now(), page: expr.Page{Status: 200, ContentType: "application/json"}}
	if _, err := c.Exec(ctx, settings+strconv.FormatInt(time.Duration(s.plan.Timeout).Milliseconds(), 10)).ReadAll(); err != nil {
		return nil, err
	}
	params := make([][]byte, len(s.plan.Params))
	for i, which := range s.plan.Params {
		params[i] = []byte(from[which])
	}
	// Types of parameters are found out by the server from what stands around them.
	if _, err := c.ExecParams(ctx, "declare waybill no scroll cursor for "+s.plan.Query, params, nil, nil, nil).Close(); err != nil {
		return nil, err
	}
	var shape *shape
	size := 0
	for {
		r := c.ExecParams(ctx, "fetch forward "+strconv.Itoa(fetched)+" from waybill", nil, nil, nil, nil)
		n := 0
		for r.NextRow() {
			if n++; shape == nil {
				var err error
				if shape, err = s.shape(r.FieldDescriptions()); err != nil {
					_, _ = r.Close()
					return nil, err
				}
			}
			one, err := shape.row(r.Values())
			if err == nil && s.plan.Cursor != nil && len(a.rows) > 0 {
				err = s.ordered(a.rows[len(a.rows)-1].first, one.first)
			}
			if err != nil {
				_, _ = r.Close()
				return nil, err
			}
			a.rows = append(a.rows, one)
			size += len(one.json)
		}
		if _, err := r.Close(); err != nil {
			return nil, err
		}
		if n < fetched {
			return a, nil
		}
		if size > s.plan.MaxResultBytes || len(a.rows) >= maxRows && s.plan.Cursor != nil {
			return a, s.cut(a, size)
		}
	}
}

// cut ends a page before the result ends, between rows with different cursors: behind the last of a kind the next page begins.
func (s *sqlSource) cut(a *answer, size int) error {
	if s.plan.Cursor == nil {
		return &flow.Fault{Blame: flow.Address, Err: fmt.Errorf("the result has more than %d bytes, which is all that one poll reads without a cursor: set sql.cursor, or select less", s.plan.MaxResultBytes)}
	}
	a.cut = true
	last := a.rows[len(a.rows)-1].cursor
	for len(a.rows) > 0 && a.rows[len(a.rows)-1].cursor == last {
		a.rows = a.rows[:len(a.rows)-1]
	}
	if len(a.rows) == 0 {
		return &flow.Fault{Blame: flow.Address, Err: fmt.Errorf("more than %d bytes of rows have one and the same cursor, so that no page could end between them: add a column to sql.cursor.columns that tells them apart, such as the primary key", size)}
	}
	return nil
}

// ordered holds two neighbours against each other, where their order can be told.
func (s *sqlSource) ordered(before, after string) error {
	if order, known := compare(before, after); known && order > 0 {
		return &flow.Fault{Blame: flow.Address, Err: fmt.Errorf("the query's rows are not in the order of the cursor: add order by %s", strings.Join(s.plan.Cursor.Columns, ", "))}
	}
	return nil
}

// shape is what the columns of a result become.
type shape struct {
	names  [][]byte // as members of an object: "id":
	types  []uint32
	cursor []int // which columns make it up
	which  []string
}

func (s *sqlSource) shape(fields []pgconn.FieldDescription) (*shape, error) {
	out := &shape{}
	at := map[string]int{}
	var names []string
	for i, f := range fields {
		if _, twice := at[f.Name]; twice {
			return nil, wrongQuery("the result has two columns named %s: give one of them another name with as", f.Name)
		}
		at[f.Name] = i
		names = append(names, f.Name)
		out.names = append(out.names, append(appendText(nil, f.Name), ':'))
		out.types = append(out.types, f.DataTypeOID)
	}
	if s.plan.Cursor != nil {
		for _, name := range s.plan.Cursor.Columns {
			i, ok := at[name]
			if !ok {
				return nil, wrongQuery("the result has no column %s, which sql.cursor.columns names; it has %s", name, strings.Join(names, ", "))
			}
			out.cursor = append(out.cursor, i)
		}
		out.which = s.plan.Cursor.Columns
	}
	return out, nil
}

func wrongQuery(format string, args ...any) error {
	return &flow.Fault{Blame: flow.Address, Err: fmt.Errorf(format, args...)}
}

func (s *shape) row(values [][]byte) (record, error) {
	var r record
	b := make([]byte, 0, 256)
	b = append(b, '{')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, s.names[i]...)
		b = appendValue(b, v, s.types[i])
	}
	b = append(b, '}')
	r.json = b
	if len(s.cursor) == 0 {
		return r, nil
	}
	texts := make([]string, len(s.cursor))
	for n, i := range s.cursor {
		if values[i] == nil {
			return r, wrongQuery("column %s of the cursor is null in a row, so that it cannot be told what lies behind it: leave such rows out (where %s is not null), or use another column", s.which[n], s.which[n])
		}
		texts[n] = string(values[i])
	}
	raw, err := json.Marshal(texts)
	if err != nil {
		return r, err
	}
	r.cursor = string(raw)
	switch oid := s.types[s.cursor[0]]; oid {
	case oidInt2, oidInt4, oidInt8, oidNumeric, oidTimestampTZ:
		r.first = string(bytes.Trim(appendValue(nil, values[s.cursor[0]], oid), `"`))
	}
	return r, nil
}
