package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/postgres"
	"github.com/waybill-dev/waybill/runtime/secret"
	"github.com/waybill-dev/waybill/test/servers"
)

// A pgRig is a database, and what a sink needs to reach it.
type pgRig struct {
	server  *servers.Postgres
	secrets *secret.Memory
	conn    *pgconn.PgConn
}

// newPgRig is nil where no server can be had.
func newPgRig(t *testing.T) *pgRig {
	t.Helper()
	server := servers.StartPostgres(t, "fsync = off")
	if server == nil {
		return nil
	}
	r := &pgRig{server: server, secrets: new(secret.Memory)}
	r.login(server.DSN())
	r.connect(t)
	return r
}

func (r *pgRig) login(dsn string) {
	r.secrets.Put("shop", "db", map[string][]byte{"dsn": []byte(dsn + "\n")})
}

func (r *pgRig) connect(t *testing.T) {
	t.Helper()
	var err error
	if r.conn, err = pgconn.Connect(t.Context(), r.server.DSN()); err != nil {
		t.Fatal(err)
	}
	conn := r.conn
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
}

func (r *pgRig) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := r.conn.Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// rows gives a result as lines of values with | between them.
func (r *pgRig) rows(t *testing.T, sql string) []string {
	t.Helper()
	results, err := r.conn.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var lines []string
	for _, row := range results[0].Rows {
		var values []string
		for _, v := range row {
			if v == nil {
				v = []byte("NULL")
			}
			values = append(values, string(v))
		}
		lines = append(lines, strings.Join(values, "|"))
	}
	return lines
}

func (r *pgRig) sink(t *testing.T, p plan.Postgres) *Postgres {
	t.Helper()
	p.DSN, p.Timeout = plan.SecretRef{Name: "db", Key: "dsn"}, plan.Duration(5*time.Second)
	db := postgres.New(postgres.Config{Secrets: r.secrets, Namespace: "shop", DSN: p.DSN})
	t.Cleanup(db.Close)
	s, err := NewPostgres(p, db)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func cols(pairs ...string) []plan.PostgresColumn {
	var out []plan.PostgresColumn
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, plan.PostgresColumn{Name: pairs[i], Expr: plan.Expr{CEL: pairs[i+1]}})
	}
	return out
}

// rowBatch has an input for each piece of data.
func rowBatch(data ...string) *flow.Batch {
	b := new(flow.Batch)
	for i, d := range data {
		m := message.Message{ID: strconv.Itoa(i), Source: "/s", Type: "t", DataContentType: "application/json", Data: []byte(d)}
		b.Inputs = append(b.Inputs, flow.Input{Delivery: &driver.Delivery{Message: m, Identity: "orders/" + strconv.Itoa(i), Stored: time.Unix(1, 0)}})
		b.Events = append(b.Events, flow.Event{Message: m, Input: i})
	}
	return b
}

func faultOf(t *testing.T, err error) *flow.Fault {
	t.Helper()
	f, ok := errors.AsType[*flow.Fault](err)
	if !ok {
		t.Fatalf("%v is no fault", err)
	}
	return f
}

func TestPostgres(t *testing.T) {
	r := newPgRig(t)
	if r == nil {
		return
	}
	t.Run("values become what the column's type is", func(t *testing.T) { typesOfValues(t, r) })
	t.Run("a value that does not fit is its message's fault", func(t *testing.T) { misfits(t, r) })
	t.Run("conflicts", func(t *testing.T) { conflicts(t, r) })
	t.Run("what was declared wrong is told by name", func(t *testing.T) { wrongTables(t, r) })
	t.Run("identities", func(t *testing.T) { identities(t, r) })
	t.Run("pruning", func(t *testing.T) { pruning(t, r) })
	t.Run("logins", func(t *testing.T) { logins(t, r) })
	t.Run("whatever a batch holds, the good rows are there", func(t *testing.T) { goodRows(t, r) })
	t.Run("a server that dies and comes back", func(t *testing.T) { outage(t, r) })
}

func typesOfValues(t *testing.T, r *pgRig) {
	r.exec(t, `create type colour as enum ('red', 'green'); create domain short as varchar(5);
		create table "Types" (id int8, b bool, i2 int2, n numeric(20,3), n2 numeric, f float8, s text, v varchar(4), c char(3), y bytea, j jsonb, k json, at timestamptz, ts timestamp, d date,
		iv interval, u uuid, e colour, dm short, ai int4[], at2 text[], aj jsonb[], "odd "" name" text)`)
	p := plan.Postgres{Table: "Types", Columns: cols(
		"id", "data.id", "b", "data.b", "i2", "data.i2", "n", "data.n", "n2", "data.big", "f", "data.f", "s", "data.s", "v", "data.v", "c", "'ab'", "y", "b'\\x00\\xff'", "j", "data.j", "k", "data.j",
		"at", "timestamp('2026-01-02T03:04:05.123456Z')", "ts", "'2026-01-02T03:04:05+02:00'", "d", "'2026-01-02'", "iv", "duration('90m')", "u", "data.u", "e", "data.e", "dm", "data.v",
		"ai", "data.ai", "at2", "data.at2", "aj", "[data.j, null]", `odd " name`, "data.none")}
	b := rowBatch(`{"id": 9007199254740993, "b": true, "i2": 7.0, "n": 1.5, "big": 123456789012345678901234567890.123456789, "f": 1e300, "s": "a'b\"\\\n{}", "v": "äöüß", "j": {"a": [1.10, null]},
		"u": "c0ffee00-0000-4000-8000-000000000001", "e": "green", "ai": [[1, 2], [3, null]], "at2": ["x", "a\"b\\c", "", "NULL", null], "none": null}`)
	r.sink(t, p).Process(t.Context(), b)
	if err := b.Inputs[0].Err; err != nil {
		t.Fatal(err)
	}
	got := r.rows(t, `set timezone = 'UTC'; `)
	_ = got
	line := r.rows(t, `select id, b, i2, n, n2, f, s, v, c, y, j, k, at at time zone 'UTC', ts, d, iv, u, e, dm, ai, at2, aj, "odd "" name" from "Types"`)[0]
	want := `9007199254740993|t|7|1.500|123456789012345678901234567890.123456789|1e+300|a'b"\` + "\n" + `{}|äöüß|ab |\x00ff|{"a": [1.10, null]}|{"a": [1.10, null]}|2026-01-02 03:04:05.123456|2026-01-02 01:04:05|2026-01-02|01:30:00|c0ffee00-0000-4000-8000-000000000001|green|äöüß|{{1,2},{3,NULL}}|{x,"a\"b\\c","","NULL",NULL}|{"{\"a\": [1.10, null]}",NULL}|NULL`
	if line != want {
		t.Errorf("got\n%s\nwant\n%s", line, want)
	}
}

func misfits(t *testing.T, r *pgRig) {
	r.exec(t, `create table misfit (id int4 primary key check (id < 1000), v varchar(3), n numeric(4,2), at timestamptz, y bytea, j jsonb, t text not null default 'x', u uuid)`)
	p := plan.Postgres{Table: "misfit", Columns: cols("id", "data.id", "v", "data.?v.orValue(null)", "n", "data.?n.orValue(null)", "at", "data.?at.orValue(null)", "y", "data.?y.orValue(null)",
		"j", "data.?j.orValue(null)", "t", "'t' in data ? data.t : 'x'", "u", "data.?u.orValue(null)")}
	cases := []struct{ data, want string }{
		{`{"id": 1}`, ""},
		{`{"id": 99999999999}`, "column id (integer): the number is out of the column's range"},
		{`{"id": 1.5}`, "column id: the number is not whole"},
		{`{"id": true}`, "column id: the expression gave true or false where the column takes a whole number"},
		{`{"id": "secret"}`, "column id (integer): the value is none of the column's type"},
		{`{"id": {"secret": 1}}`, "column id: the expression gave an object, and the column is no json or jsonb"},
		{`{}`, "column id: "},
		{`{"id": null}`, "column id: the column must not be null"},
		{`{"id": 1, "secret": 1}`, "a row with the same values exists"},
		{`{"id": 2000}`, "a check of the table refuses it, constraint misfit_id_check"},
		{`{"id": 2, "v": "secret"}`, "column v: the text has 6 characters and the column takes 3"},
		{`{"id": 2, "n": 123.4}`, "column n (numeric(4,2)): the number is out of the column's range"},
		{`{"id": 2, "at": "secret"}`, "column at (timestamp with time zone): the value is no date or time"},
		{`{"id": 2, "at": 5}`, "column at (timestamp with time zone): the value is no date or time"},
		{`{"id": 2, "y": "secret!"}`, "column y: the expression gave a string that is not base64"},
		{`{"id": 2, "j": {"secret": "\u0000"}}`, "column j (jsonb): the text holds a character that PostgreSQL cannot keep"},
		{`{"id": 2, "t": "secret\u0000"}`, "column t: the text holds the character U+0000"},
		{`{"id": 2, "t": null}`, "column t: the column must not be null"},
		{`{"id": 2, "u": "secret"}`, "column u (uuid): the value is none of the column's type"},
		{`{"id": 2}`, ""},
	}
	data := make([]string, len(cases))
	for i := range cases {
		data[i] = cases[i].data
	}
	b := rowBatch(data...)
	r.sink(t, p).Process(t.Context(), b)
	for i, c := range cases {
		err := b.Inputs[i].Err
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.data, err)
		case c.want == "":
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: got %v, want %s", c.data, err, c.want)
		case faultOf(t, err).Blame != flow.Message:
			t.Errorf("%s: blames %v", c.data, faultOf(t, err).Blame)
		case strings.Contains(err.Error(), "secret"):
			t.Errorf("the error repeats what the message holds: %v", err)
		}
	}
	if got := r.rows(t, "select id from misfit order by 1"); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("the table has %v", got)
	}
}

func conflicts(t *testing.T, r *pgRig) {
	r.exec(t, `create table stock (shop text, sku text, n numeric(6,1), primary key (shop, sku)); create table seen (id int8 unique, n int4)`)
	p := plan.Postgres{Table: "public.stock", Columns: cols("n", "data.n", "shop", "data.shop", "sku", "data.sku"), Conflict: &plan.PostgresConflict{Columns: []string{"sku", "shop"}, Do: "Update"}}
	s := r.sink(t, p)
	for range 2 {
		b := rowBatch(`{"shop":"a","sku":"x","n":1}`, `{"shop":"a","sku":"x","n":2}`, `{"shop":"b","sku":"x","n":3}`, `{"shop":"a","sku":"x","n":4}`)
		s.Process(t.Context(), b)
		for _, in := range b.Inputs {
			if in.Err != nil {
				t.Fatal(in.Err)
			}
		}
	}
	if got := r.rows(t, "select * from stock order by 1"); !slices.Equal(got, []string{"a|x|4.0", "b|x|3.0"}) {
		t.Errorf("the last of a batch does not win: %v", got)
	}
	// NULL is like no other: each is a row. What is the same only once it is rounded is found by the database alone.
	r.exec(t, `create table rounded (n numeric(6,1) unique, i int4)`)
	s = r.sink(t, plan.Postgres{Table: "rounded", Columns: cols("i", "data.i", "n", "data.n"), Conflict: &plan.PostgresConflict{Columns: []string{"n"}, Do: "Update"}})
	b := rowBatch(`{"n": null, "i": 1}`, `{"n": 1.01, "i": 2}`, `{"n": null, "i": 3}`, `{"n": 1.02, "i": 4}`)
	s.Process(t.Context(), b)
	for _, in := range b.Inputs {
		if in.Err != nil {
			t.Fatal(in.Err)
		}
	}
	if got := r.rows(t, "select * from rounded order by i"); !slices.Equal(got, []string{"NULL|1", "NULL|3", "1.0|4"}) {
		t.Errorf("got %v", got)
	}
	s = r.sink(t, plan.Postgres{Table: "seen", Columns: cols("id", "data.id", "n", "data.n"), Conflict: &plan.PostgresConflict{Columns: []string{"id"}, Do: "Nothing"}})
	s.Process(t.Context(), rowBatch(`{"id":1,"n":1}`, `{"id":1,"n":2}`))
	s.Process(t.Context(), rowBatch(`{"id":1,"n":3}`))
	if got := r.rows(t, "select * from seen"); !slices.Equal(got, []string{"1|1"}) {
		t.Errorf("Nothing changed the row: %v", got)
	}
}

func wrongTables(t *testing.T, r *pgRig) {
	r.exec(t, `create table goods (id int8 primary key, name text not null, made int8 generated always as (id * 2) stored); create role clerk login; create schema closed; create table closed.t (id int8);
		create table read_only (id int8 unique, n int4); grant select on read_only to clerk; create table no_read (id int8 unique, n int4); grant insert, update on no_read to clerk;
		create table insert_only (id int8 unique, n int4); grant insert, select on insert_only to clerk`)
	clerk := &pgRig{server: r.server, secrets: new(secret.Memory)}
	clerk.login(strings.Replace(r.server.DSN(), "waybill@", "clerk@", 1))
	update := &plan.PostgresConflict{Columns: []string{"id"}, Do: "Update"}
	id := &plan.PostgresIdentity{Flow: "Pipeline/shop/x", Keep: plan.Duration(time.Hour)}
	for _, c := range []struct {
		name string
		rig  *pgRig
		plan plan.Postgres
		want string
	}{
		{"no table", r, plan.Postgres{Table: "god", Columns: cols("id", "1")}, "there is no table god that this user can see"},
		{"upper case", r, plan.Postgres{Table: "Goods", Columns: cols("id", "1")}, "there is goods, and upper and lower case differ here"},
		{"no schema", r, plan.Postgres{Table: "nowhere.goods", Columns: cols("id", "1")}, "there is no table nowhere.goods"},
		{"no column", r, plan.Postgres{Table: "goods", Columns: cols("id", "1", "title", "'x'")}, "table goods has no column title; it has id, name, made"},
		{"a column left out", r, plan.Postgres{Table: "goods", Columns: cols("id", "1")}, "column name of table goods must not be null and has no default"},
		{"a generated column", r, plan.Postgres{Table: "goods", Columns: cols("id", "1", "made", "1", "name", "'x'")}, "column made of table goods is generated"},
		{"no unique index", r, plan.Postgres{Table: "goods", Columns: cols("id", "1", "name", "'x'"), Conflict: &plan.PostgresConflict{Columns: []string{"name"}, Do: "Nothing"}}, "table goods has no unique index on (name)"},
		{"a closed schema", clerk, plan.Postgres{Table: "closed.t", Columns: cols("id", "1")}, "permission denied for schema closed"},
		{"no right to insert", clerk, plan.Postgres{Table: "read_only", Columns: cols("id", "1")}, "user clerk may not insert into column id of table read_only: grant insert on read_only to clerk"},
		{"no right to update", clerk, plan.Postgres{Table: "insert_only", Columns: cols("id", "1", "n", "1"), Conflict: update}, "user clerk may not update column n of table insert_only"},
		{"no right to read", clerk, plan.Postgres{Table: "no_read", Columns: cols("id", "1", "n", "1"), Conflict: update}, "user clerk may not read column id of table no_read"},
		{"no right to create", clerk, plan.Postgres{Table: "insert_only", Columns: cols("id", "1"), Identity: id}, "ExactlyOnce keeps the messages' identities in the table public.waybill_identity, and user clerk may not create it: run as its owner «create table"},
	} {
		s := c.rig.sink(t, c.plan)
		err := s.Ready(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
			continue
		}
		if f := faultOf(t, err); f.Blame != flow.Address {
			t.Errorf("%s: blames %v: a message would be dead-lettered for it", c.name, f.Blame)
		}
		b := rowBatch(`{}`)
		if s.Process(t.Context(), b); b.Inputs[0].Err == nil {
			t.Errorf("%s: the row was written", c.name)
		}
	}
	// What is mended meanwhile is found.
	s := r.sink(t, plan.Postgres{Table: "later", Columns: cols("id", "data.id")})
	write := func() error {
		b := rowBatch(`{"id": 1}`, `{"id": 2}`)
		s.Process(t.Context(), b)
		return errors.Join(b.Inputs[0].Err, b.Inputs[1].Err)
	}
	if write() == nil {
		t.Error("wrote to a table that is not there")
	}
	r.exec(t, "create table later (id int8)")
	if err := write(); err != nil {
		t.Error(err)
	}
	r.exec(t, "drop table later")
	if err := write(); err == nil || faultOf(t, err).Blame != flow.Address {
		t.Errorf("a table that was dropped: %v", err)
	}
	r.exec(t, "create table later (id text)")
	if err := write(); err != nil {
		t.Error(err)
	}
}

func identities(t *testing.T, r *pgRig) {
	r.exec(t, `create schema shop; create table shop.sales (id int8)`)
	p := plan.Postgres{Table: "shop.sales", Columns: cols("id", "data.id"), Identity: &plan.PostgresIdentity{Flow: "Pipeline/shop/sales", Keep: plan.Duration(time.Hour)}}
	s := r.sink(t, p)
	deliver := func(b *flow.Batch) {
		t.Helper()
		s.Process(t.Context(), b)
		for i, in := range b.Inputs {
			if in.Err != nil {
				t.Fatalf("input %d: %v", i, in.Err)
			}
		}
	}
	count := func(want ...string) {
		t.Helper()
		if got := r.rows(t, "select id, count(*) from shop.sales group by 1 order by 1"); !slices.Equal(got, want) {
			t.Fatalf("the table has %v, want %v", got, want)
		}
	}
	batch := func() *flow.Batch {
		b := rowBatch(`{"id":0}`, `{"id":1}`, `{"id":2}`)
		e := b.Events[1] // a step split the second message in two
		e.Message.Data = []byte(`{"id":11}`)
		b.Events = slices.Insert(b.Events, 2, e)
		return b
	}
	deliver(batch())
	deliver(batch()) // again: after a crash, or to another replica
	count("0|1", "1|1", "2|1", "11|1")

	// One that is delivered twice in one batch, and one new one between.
	b := batch()
	b.Inputs[2].Delivery.Identity = "orders/7"
	b.Inputs[0].Delivery.Identity = "orders/7"
	deliver(b)
	count("0|2", "1|1", "2|1", "11|1")

	// A stream that was made anew counts from 1 again; its messages are new.
	b = batch()
	for i := range b.Inputs {
		b.Inputs[i].Delivery.Stored = time.Unix(2, 0)
	}
	deliver(b)
	count("0|3", "1|2", "2|2", "11|2")

	// Another Pipeline into the same table has identities of its own.
	p.Identity = &plan.PostgresIdentity{Flow: "Pipeline/shop/other", Keep: plan.Duration(time.Hour)}
	s = r.sink(t, p)
	deliver(batch())
	count("0|4", "1|3", "2|3", "11|3")

	// Where the broker has no name for a message its source and id are one; without an id it cannot be told from others.
	b = rowBatch(`{"id":100}`, `{"id":101}`)
	for i := range b.Inputs {
		b.Inputs[i].Delivery.Identity = ""
	}
	b.Inputs[1].Delivery.Message.ID = ""
	s.Process(t.Context(), b)
	if b.Inputs[0].Err != nil || b.Inputs[1].Err == nil || faultOf(t, b.Inputs[1].Err).Blame != flow.Message {
		t.Errorf("got %v and %v", b.Inputs[0].Err, b.Inputs[1].Err)
	}

	// A refused row leaves no identity behind: when the table was mended its message is written.
	r.exec(t, "truncate shop.sales; alter table shop.sales add check (id <> 200)")
	refused := func() *flow.Batch {
		b := rowBatch(`{"id":200}`, `{"id":201}`)
		b.Inputs[0].Delivery.Identity, b.Inputs[1].Delivery.Identity = "orders/200", "orders/201"
		return b
	}
	b = refused()
	if s.Process(t.Context(), b); b.Inputs[0].Err == nil || b.Inputs[1].Err != nil {
		t.Fatalf("got %v and %v", b.Inputs[0].Err, b.Inputs[1].Err)
	}
	r.exec(t, "alter table shop.sales drop constraint sales_id_check")
	deliver(refused())
	count("200|1", "201|1")
}

func pruning(t *testing.T, r *pgRig) {
	r.exec(t, `create schema prune; create table prune.t (id int8)`)
	s := r.sink(t, plan.Postgres{Table: "prune.t", Columns: cols("id", "data.id"), Identity: &plan.PostgresIdentity{Flow: "f", Keep: plan.Duration(time.Hour)}})
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Positions begin at behind+1, so that only those up to 10 are surely acknowledged when the highest is behind+10.
	r.exec(t, fmt.Sprintf(`insert into prune.waybill_identity (flow, message, position, at) values
		('f', 'young', 0, now()), ('f', 'old', 0, now() - interval '2 hours'), ('other', 'old', 0, now() - interval '2 hours'),
		('f', 'done', 5, now() - interval '2 days'), ('f', 'done just now', 5, now()), ('f', 'perhaps', %d, now() - interval '2 days')`, 11))
	s.position = behind + 10
	if err := s.prune(t.Context(), settled); err != nil {
		t.Fatal(err)
	}
	want := []string{"done just now", "old", "perhaps", "young"}
	if got := r.rows(t, "select message from prune.waybill_identity order by 1"); !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
}

func logins(t *testing.T, r *pgRig) {
	r.exec(t, "create table login (id int8)")
	p := plan.Postgres{Table: "login", Columns: cols("id", "data.id")}
	const password = "hunter2"
	for dsn, want := range map[string]string{
		"":       "the value of key \"dsn\" is empty",
		"x":      "is no connection string",
		"mysql:": "is no connection string",
		strings.Replace(r.server.DSN(), "waybill@", "waybill:"+password+"@", 1) + "x": "is no connection string",
		strings.Replace(r.server.DSN(), "waybill@", "nobody:"+password+"@", 1):        `role "nobody" does not exist`,
		strings.Replace(r.server.DSN(), "/waybill?", "/elsewhere?", 1):                `database "elsewhere" does not exist`,
		"postgres://u:" + password + "@127.0.0.1:1/x":                                 "it cannot be reached",
		strings.Replace(r.server.DSN(), "disable", "verify-full", 1):                  "it cannot be reached",
	} {
		rig := &pgRig{server: r.server, secrets: new(secret.Memory)}
		rig.login(dsn)
		err := rig.sink(t, p).Ready(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), password) {
			t.Errorf("%q: got %v, want %s", dsn, err, want)
			continue
		}
		if f := faultOf(t, err); f.Blame != flow.Address && f.Blame != flow.Unreachable {
			t.Errorf("%q blames %v", dsn, f.Blame)
		}
	}
	// A login that is changed while it is in use: a bad one is not used while the old session works, a good one at once.
	rig := &pgRig{server: r.server, secrets: new(secret.Memory)}
	rig.login(r.server.DSN())
	s := rig.sink(t, plan.Postgres{Table: "login", Columns: cols("id", "data.id")})
	write := func() error {
		b := rowBatch(`{"id": 1}`)
		s.Process(t.Context(), b)
		return b.Inputs[0].Err
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	rig.login(strings.Replace(r.server.DSN(), "waybill@", "nobody@", 1))
	if err := write(); err != nil {
		t.Errorf("a login that cannot be used ended the session: %v", err)
	}
	r.exec(t, "create role another login; grant all on login to another")
	rig.login(strings.Replace(r.server.DSN(), "waybill@", "another@", 1))
	if err := write(); err != nil {
		t.Error(err)
	}
	if got := r.rows(t, "select usename from pg_stat_activity where application_name = 'waybill' and usename = 'another'"); len(got) != 1 {
		t.Errorf("the new login is not used: %v", got)
	}
}

// goodRows: of any batch exactly the good rows are in the table, and exactly the bad ones have failed.
func goodRows(t *testing.T, r *pgRig) {
	r.exec(t, "create table good (id int4 primary key check (id >= 0), n int2)")
	s := r.sink(t, plan.Postgres{Table: "good", Columns: cols("id", "data.id", "n", "data.n"), Conflict: &plan.PostgresConflict{Columns: []string{"id"}, Do: "Update"}})
	rapid.Check(t, func(t *rapid.T) {
		if _, err := r.conn.Exec(context.Background(), "truncate good").ReadAll(); err != nil {
			t.Fatal(err)
		}
		type row struct{ ID, N int }
		rows := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) row {
			return row{rapid.IntRange(-2, 12).Draw(t, "id"), rapid.SampledFrom([]int{1, 2, 3, 4, 5, 6, 7, 70000}).Draw(t, "n")}
		}), 1, 40).Draw(t, "rows")
		want := map[int]int{}
		data := make([]string, len(rows))
		for i, row := range rows {
			raw, _ := json.Marshal(map[string]int{"id": row.ID, "n": row.N})
			data[i] = string(raw)
			if row.ID >= 0 && row.N < 32768 {
				want[row.ID] = row.N
			}
		}
		b := rowBatch(data...)
		s.Process(context.Background(), b)
		for i, row := range rows {
			if good := row.ID >= 0 && row.N < 32768; good != (b.Inputs[i].Err == nil) {
				t.Fatalf("%v: %v", row, b.Inputs[i].Err)
			}
		}
		found, err := r.conn.Exec(context.Background(), "select id, n from good").ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range found[0].Rows {
			id, _ := strconv.Atoi(string(row[0]))
			if strconv.Itoa(want[id]) != string(row[1]) {
				t.Fatalf("row %s has %s, want %d", row[0], row[1], want[id])
			}
			delete(want, id)
		}
		if len(want) > 0 {
			t.Fatalf("%v are missing", want)
		}
	})
}

func outage(t *testing.T, r *pgRig) {
	r.exec(t, "create table outage (id int8)")
	s := r.sink(t, plan.Postgres{Table: "outage", Columns: cols("id", "data.id"), Identity: &plan.PostgresIdentity{Flow: "f", Keep: plan.Duration(time.Hour)}})
	write := func() error {
		b := rowBatch(`{"id": 1}`, `{"id": 2}`)
		s.Process(t.Context(), b)
		if (b.Inputs[0].Err == nil) != (b.Inputs[1].Err == nil) {
			t.Fatalf("half a batch: %v, %v", b.Inputs[0].Err, b.Inputs[1].Err)
		}
		return b.Inputs[0].Err
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	r.server.Kill()
	for range 2 {
		if f := faultOf(t, write()); f.Blame != flow.Unreachable {
			t.Errorf("a dead server: %v, blames %v", f, f.Blame)
		}
	}
	r.server.Start()
	r.connect(t)
	if err := write(); err != nil {
		t.Error(err)
	}
	if got := r.rows(t, "select id, count(*) from outage group by 1 order by 1"); !slices.Equal(got, []string{"1|1", "2|1"}) {
		t.Errorf("the table has %v", got)
	}
	// A lock that somebody holds is waited for until the time is over, and no longer.
	s.plan.Timeout = plan.Duration(200 * time.Millisecond)
	r.exec(t, "begin; lock table outage")
	if f := faultOf(t, write()); f.Blame != flow.Destination {
		t.Errorf("a lock: %v, blames %v", f, f.Blame)
	}
	r.exec(t, "rollback")
	if err := write(); err != nil {
		t.Error(err)
	}
}

// A refused unit among others costs a number of statements that grows with the logarithm of theirs.
// The zone of a text in a column that has none is heeded, in all forms of RFC 3339.
func TestMomentsAreWrittenInUTC(t *testing.T) {
	for text, want := range map[string]string{
		"2026-01-02T03:04:05+02:00": "2026-01-02 01:04:05", "2026-01-02t03:04:05.5+02:00": "2026-01-02 01:04:05.5", "2017-01-01T01:59:60+02:00": "2017-01-01 00:00:00", "2026-01-02": "2026-01-02",
	} {
		if got, err := appendString(nil, []byte(`"`+text+`"`), moment); err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v", text, got, err)
		}
	}
}

func TestHalvingFindsWhatIsRefused(t *testing.T) {
	refused := &pgconn.PgError{Code: "22003"}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 512).Draw(t, "n")
		bad := rapid.MapOfN(rapid.IntRange(0, n-1), rapid.Just(true), 0, 4).Draw(t, "bad")
		units := make([]unit, n)
		for i := range units {
			units[i].input = i
		}
		statements, stored, failed := 0, map[int]bool{}, map[int]bool{}
		halve(units, halving{
			free: func(u []unit) []unit { return u },
			store: func(u []unit) error {
				statements++
				for i := range u {
					if bad[u[i].input] {
						return refused
					}
				}
				for i := range u {
					if stored[u[i].input] {
						t.Fatalf("%d was stored twice", u[i].input)
					}
					stored[u[i].input] = true
				}
				return nil
			},
			fail: func(u *unit, _ error) { failed[u.input] = true },
		})
		for i := range n {
			if stored[i] == bad[i] || failed[i] != bad[i] {
				t.Fatalf("%d: stored %v, failed %v, bad %v", i, stored[i], failed[i], bad[i])
			}
		}
		log := 1
		for 1<<log < n {
			log++
		}
		if most := 1 + 2*len(bad)*(log+1); statements > most {
			t.Fatalf("%d statements for %d bad ones among %d", statements, len(bad), n)
		}
	})
}
