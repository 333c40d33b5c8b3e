package sink

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/postgres"
)

// A table is what was found of the table, and the statement that writes to it.
type table struct {
	columns    []column // parallel to the plan's
	insert     string
	identities string // the table of them, "" without ExactlyOnce
}

// Ready looks at the table: that it is there, with these columns and a unique index for the conflict, and that it may be written to. What it
// finds wrong is nobody's message's fault.
func (s *Postgres) Ready(ctx context.Context) error {
	_, err := s.look(ctx)
	return err
}

// look gives the table, and looks at it first where that was not done yet.
func (s *Postgres) look(ctx context.Context) (*table, error) {
	s.looking.Lock()
	defer s.looking.Unlock()
	s.mu.Lock()
	t := s.table
	s.mu.Unlock()
	if t != nil {
		return t, nil
	}
	err := s.do(ctx, func(ctx context.Context, c *pgconn.PgConn) (err error) {
		t, err = s.describe(ctx, c)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.table = t
	s.mu.Unlock()
	return t, nil
}

// distrust has the table looked at again after an error that speaks of it.
func (s *Postgres) distrust(err error) {
	if code := postgres.Code(err); len(code) == 5 && (code[:2] == "42" || code[:2] == "3F" || code[:2] == "0A") {
		s.mu.Lock()
		s.table = nil
		s.mu.Unlock()
	}
}

// wrong is a fault of what was declared, or of the database's makers.
func wrong(format string, args ...any) error {
	return &flow.Fault{Blame: flow.Address, Err: fmt.Errorf(format, args...)}
}

// query reads a whole small result as text.
func query(ctx context.Context, c *pgconn.PgConn, sql string, args ...string) ([][]string, error) {
	values := make([][]byte, len(args))
	for i, a := range args {
		values[i] = []byte(a)
	}
	r := c.ExecParams(ctx, sql, values, nil, nil, nil).Read()
	if r.Err != nil {
		return nil, r.Err
	}
	rows := make([][]string, len(r.Rows))
	for i, row := range r.Rows {
		for _, v := range row {
			rows[i] = append(rows[i], string(v))
		}
	}
	return rows, nil
}

// quoted is the table's name as an identifier.
func quoted(name string) string {
	parts := strings.Split(name, ".")
	for i := range parts {
		parts[i] = postgres.Quote(parts[i])
	}
	return strings.Join(parts, ".")
}

const describeTable = `select c.oid, n.nspname, c.relname, c.relkind, c.relhastriggers, current_user
from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass($1)`

const describeColumns = `select a.attname, format_type(a.atttypid, a.atttypmod), tn.nspname, t.typname,
  case when t.typtype = 'd' then (select b.typname from pg_type b where b.oid = t.typbasetype) when tn.nspname = 'pg_catalog' or t.typname = 'citext' then t.typname else '' end,
  coalesce((select e.typname from pg_type e where e.oid = t.typelem and t.typcategory = 'A'), ''),
  case when t.typname in ('varchar', 'bpchar') and a.atttypmod > 4 then a.atttypmod - 4 else 0 end,
  a.attnotnull and not a.atthasdef and a.attidentity = '' , a.attgenerated <> '' or a.attidentity = 'a',
  has_column_privilege(a.attrelid, a.attnum, 'INSERT'), has_column_privilege(a.attrelid, a.attnum, 'UPDATE'), has_column_privilege(a.attrelid, a.attnum, 'SELECT')
from pg_attribute a join pg_type t on t.oid = a.atttypid join pg_namespace tn on tn.oid = t.typnamespace
where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped order by a.attnum`

const findIndex = `select 1 from pg_index i where i.indrelid = $1::oid and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
and (select array_agg(a.attname::text order by a.attname::text collate "C") from unnest(i.indkey::int2[]) with ordinality k(num, n) join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.num where k.n <= i.indnkeyatts) = $2::text[]`

func (s *Postgres) describe(ctx context.Context, c *pgconn.PgConn) (*table, error) {
	p := &s.plan
	found, err := query(ctx, c, describeTable, quoted(p.Table))
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		hint := "create it, or correct spec.to.postgres.table"
		if lower := strings.ToLower(p.Table); lower != p.Table {
			if other, err := query(ctx, c, describeTable, quoted(lower)); err == nil && len(other) > 0 {
				hint = "there is " + lower + ", and upper and lower case differ here"
			}
		}
		return nil, wrong("%s: there is no table %s that this user can see: %s", s.db.Where(), p.Table, hint)
	}
	oid, schema, name, kind, triggers, user := found[0][0], found[0][1], found[0][2], found[0][3], found[0][4] == "t", found[0][5]
	if !slices.Contains([]string{"r", "p", "v", "f"}, kind) { // tables, partitioned ones, views and foreign tables
		return nil, wrong("%s: %s is no table", s.db.Where(), p.Table)
	}
	rows, err := query(ctx, c, describeColumns, oid)
	if err != nil {
		return nil, err
	}
	t := &table{}
	if err := s.matchColumns(t, rows, user, triggers); err != nil {
		return nil, err
	}
	if p.Conflict != nil {
		keys := slices.Sorted(slices.Values(p.Conflict.Columns))
		for i := range keys {
			keys[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(keys[i]) + `"`
		}
		index, err := query(ctx, c, findIndex, oid, "{"+strings.Join(keys, ",")+"}")
		if err != nil {
			return nil, err
		}
		if len(index) == 0 && kind != "v" {
			list := strings.Join(p.Conflict.Columns, ", ")
			return nil, wrong("%s: table %s has no unique index on (%s), which conflict.columns needs: create unique index on %s (%s)", s.db.Where(), p.Table, list, p.Table, list)
		}
	}
	at := postgres.Quote(schema) + "." + postgres.Quote(name)
	if p.Identity != nil {
		t.identities = postgres.Quote(schema) + "." + postgres.Quote(identityTable)
		if err := s.ensureIdentities(ctx, c, schema, t.identities, user); err != nil {
			return nil, err
		}
	}
	t.insert = t.statement(p, at)
	return t, nil
}

// matchColumns finds each column of the plan among those that the table has.
func (s *Postgres) matchColumns(t *table, rows [][]string, user string, triggers bool) error {
	p, where := &s.plan, s.db.Where()
	names := make([]string, len(rows))
	for i, r := range rows {
		names[i] = r[0]
	}
	for _, want := range p.Columns {
		i := slices.Index(names, want.Name)
		if i < 0 {
			return wrong("%s: table %s has no column %s; it has %s", where, p.Table, want.Name, strings.Join(names, ", "))
		}
		r := rows[i]
		c := column{name: r[0], declared: r[1], cast: postgres.Quote(r[2]) + "." + postgres.Quote(r[3]), kind: kinds[r[4]]}
		c.length, _ = strconv.Atoi(r[6])
		if r[5] != "" {
			element := kinds[r[5]]
			c.kind, c.element = array, &element
		}
		if r[8] == "t" {
			return wrong("%s: column %s of table %s is generated by the database and cannot be written: remove it from spec.to.postgres.columns", where, c.name, p.Table)
		}
		if r[9] != "t" {
			return wrong("%s: user %s may not insert into column %s of table %s: grant insert on %s to %s", where, user, c.name, p.Table, p.Table, user)
		}
		if p.Conflict != nil {
			key := slices.Contains(p.Conflict.Columns, c.name)
			if !key && p.Conflict.Do == "Update" && r[10] != "t" {
				return wrong("%s: user %s may not update column %s of table %s, as conflict with do: Update needs: grant update on %s to %s", where, user, c.name, p.Table, p.Table, user)
			}
			if key && r[11] != "t" {
				return wrong("%s: user %s may not read column %s of table %s, as conflict needs: grant select on %s to %s", where, user, c.name, p.Table, p.Table, user)
			}
		}
		t.columns = append(t.columns, c)
	}
	for _, r := range rows {
		given := slices.ContainsFunc(p.Columns, func(c plan.PostgresColumn) bool { return c.Name == r[0] })
		if r[7] == "t" && r[8] != "t" && !given && !triggers {
			return wrong("%s: column %s of table %s must not be null and has no default, and spec.to.postgres.columns does not give it", where, r[0], p.Table)
		}
	}
	return nil
}

// statement writes a batch. Its parameters are arrays of texts, one a column, so that one statement does for any number of rows: see values.
// What may be a row twice under conflict Update is the last one only, for PostgreSQL changes no row twice in one statement.
func (t *table) statement(p *plan.Postgres, at string) string {
	first := 1
	if p.Identity != nil {
		first = 4 // behind the flow, the identities and their positions
	}
	var names, params, casts, results []string
	for i, c := range t.columns {
		v := "c" + strconv.Itoa(i)
		names = append(names, postgres.Quote(c.name))
		params = append(params, "$"+strconv.Itoa(first+i)+"::text[]")
		casts = append(casts, "v."+v+"::"+c.cast+" as "+v)
		results = append(results, v)
	}
	var keys []string
	if p.Conflict != nil {
		for _, k := range p.Conflict.Columns {
			keys = append(keys, "c"+strconv.Itoa(slices.IndexFunc(t.columns, func(c column) bool { return c.name == k })))
		}
	}
	var b strings.Builder
	from := "unnest(" + strings.Join(params, ", ") + ") with ordinality as v(" + strings.Join(results, ", ") + ", n)"
	if p.Identity != nil {
		b.WriteString("with fresh as (insert into " + t.identities + " (flow, message, position) select ($1::text[])[1], i.m, i.p::bigint from unnest($2::text[], $3::text[]) as i(m, p) on conflict do nothing returning message) ")
		m := "$" + strconv.Itoa(first+len(t.columns)) + "::text[]"
		from = "unnest(" + strings.Join(params, ", ") + ", " + m + ") with ordinality as v(" + strings.Join(results, ", ") + ", m, n) join fresh on fresh.message = v.m"
	}
	inner := "select " + strings.Join(casts, ", ") + ", v.n from " + from
	b.WriteString("insert into " + at + " (" + strings.Join(names, ", ") + ") select " + strings.Join(results, ", ") + " from ")
	if p.Conflict != nil && p.Conflict.Do == "Update" {
		b.WriteString("(select r.*, row_number() over (partition by " + strings.Join(keys, ", ") + " order by n desc) as last from (" + inner + ") r) r where last = 1")
		for _, k := range keys {
			b.WriteString(" or " + k + " is null") // NULL is like nothing, itself included
		}
	} else {
		b.WriteString("(" + inner + ") r")
	}
	b.WriteString(" order by n")
	if p.Conflict == nil {
		return b.String()
	}
	var on, set []string
	for _, k := range p.Conflict.Columns {
		on = append(on, postgres.Quote(k))
	}
	for _, c := range t.columns {
		if !slices.Contains(p.Conflict.Columns, c.name) {
			set = append(set, postgres.Quote(c.name)+" = excluded."+postgres.Quote(c.name))
		}
	}
	b.WriteString(" on conflict (" + strings.Join(on, ", ") + ") do ")
	if p.Conflict.Do != "Update" || len(set) == 0 {
		b.WriteString("nothing")
	} else {
		b.WriteString("update set " + strings.Join(set, ", "))
	}
	return b.String()
}

// values are the parameters of the statement for units.
func (t *table) values(id *plan.PostgresIdentity, units []unit) [][]byte {
	rows := 0
	for i := range units {
		rows += len(units[i].rows)
	}
	var values [][]byte
	if id != nil {
		// In one order, so that two replicas that write the same messages do not wait for each other.
		sorted := slices.SortedFunc(slices.Values(units), func(a, b unit) int { return strings.Compare(string(a.identity), string(b.identity)) })
		messages, positions := make([][]byte, len(units)), make([][]byte, len(units))
		for i, u := range sorted {
			messages[i], positions[i] = u.identity, strconv.AppendInt(nil, u.position, 10)
		}
		values = append(values, postgres.AppendTextArray(nil, [][]byte{[]byte(id.Flow)}), postgres.AppendTextArray(nil, messages), postgres.AppendTextArray(nil, positions))
	}
	list := make([][]byte, 0, rows)
	for n := range t.columns {
		list = list[:0]
		for i := range units {
			for _, row := range units[i].rows {
				list = append(list, row[n])
			}
		}
		values = append(values, postgres.AppendTextArray(nil, list))
	}
	if id != nil {
		list = list[:0]
		for i := range units {
			for range units[i].rows {
				list = append(list, units[i].identity)
			}
		}
		values = append(values, postgres.AppendTextArray(nil, list))
	}
	return values
}
