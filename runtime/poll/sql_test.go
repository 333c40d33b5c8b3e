package poll

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/postgres"
	"github.com/waybill-dev/waybill/test/servers"
)

// sqlRig has a database in the place of the HTTP server.
type sqlRig struct {
	*servers.Postgres
	conn *pgconn.PgConn
}

func (r *sqlRig) connect(t *testing.T) *pgconn.PgConn {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), r.DSN())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func (r *sqlRig) exec(t *testing.T, sql string) { execOn(t, r.conn, sql) }

func execOn(t *testing.T, c *pgconn.PgConn, sql string) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (r *sqlRig) poller(t *testing.T, p plan.Poller) *rig {
	t.Helper()
	out := &rig{t: t, out: &scripted{}, store: &memory{}}
	out.secrets.Put("shop", "db", map[string][]byte{"dsn": []byte(r.DSN())})
	p.SQL.DSN = plan.SecretRef{Name: "db", Key: "dsn"}
	if p.SQL.Timeout == 0 {
		p.SQL.Timeout = plan.Duration(10 * time.Second)
	}
	if p.SQL.MaxResultBytes == 0 {
		p.SQL.MaxResultBytes = 10 << 20
	}
	p.SQL.MaxPages = 100
	p.Source, p.Type = "/shop/pollers/rates", "rate"
	p.Schedule.Every = plan.Duration(time.Second)
	if p.Detect == "" {
		p.Detect = cursor
	}
	out.plan = p
	out.db = postgres.New(postgres.Config{Secrets: &out.secrets, Namespace: "shop", DSN: p.SQL.DSN})
	t.Cleanup(out.db.Close)
	out.restart()
	return out
}

func byID(query string, params ...int) *plan.PollSQL {
	if params == nil {
		params = []int{0}
	}
	return &plan.PollSQL{Query: query, Params: params, Cursor: &plan.SQLCursor{Columns: []string{"id"}, Start: []string{"0"}}}
}

func TestSQL(t *testing.T) {
	r := &sqlRig{Postgres: servers.StartPostgres(t, "fsync = off")}
	if r.Postgres == nil {
		return
	}
	r.conn = r.connect(t)
	t.Run("rows become objects", func(t *testing.T) { rowsBecomeObjects(t, r) })
	t.Run("a cursor reads what is new", func(t *testing.T) { cursorReads(t, r) })
	t.Run("pages end between cursors", func(t *testing.T) { pagesEnd(t, r) })
	t.Run("overlap finds what was committed late", func(t *testing.T) { overlapFinds(t, r) })
	t.Run("without a cursor the whole result is read", func(t *testing.T) { wholeResult(t, r) })
	t.Run("what is wrong is told", func(t *testing.T) { wrongQueries(t, r) })
	t.Run("a server that dies and comes back", func(t *testing.T) { deadServer(t, r) })
}

func rowsBecomeObjects(t *testing.T, r *sqlRig) {
	p := r.poller(t, plan.Poller{Detect: always, SQL: &plan.PollSQL{Query: `select 9007199254740993::int8 as big, 12345678901234567890.10::numeric as exact, 0.1::float8 as f, 'NaN'::float8 as nan, true as yes,
		null::int as nothing, e'a"b\\c\n<ü>' as text, '{"a": 1.10,  "b": [null]}'::json as j, '{"n": 10000000000000000000001}'::jsonb as jb, '\x00ff'::bytea as bytes,
		'2026-01-02 03:04:05.123456+02'::timestamptz as at, '2026-01-02 03:04:05'::timestamp as local, '2026-01-02'::date as day, '90 minutes'::interval as took,
		'{{1,2},{3,null}}'::int[] as ints, array['a,b', 'c"d', '', 'NULL', null, '{}'] as texts, '{}'::int[] as none, '[0:1]={1,2}'::int8[] as bounds, array['{"a":1}'::jsonb] as docs,
		'c0ffee00-0000-4000-8000-000000000001'::uuid as "the id", array['2026-01-02 03:04:05+00'::timestamptz] as times`}})
	p.once("")
	p.want(data, `{"big":9007199254740993,"exact":12345678901234567890.10,"f":0.1,"nan":"NaN","yes":true,"nothing":null,"text":"a\"b\\c\n<ü>","j":{"a": 1.10,  "b": [null]},"jb":{"n": 10000000000000000000001},"bytes":"AP8=",`+
		`"at":"2026-01-02T01:04:05.123456Z","local":"2026-01-02T03:04:05","day":"2026-01-02","took":"PT1H30M","ints":[[1,2],[3,null]],"texts":["a,b","c\"d","","NULL",null,"{}"],"none":[],"bounds":[1,2],"docs":[{"a": 1}],`+
		`"the id":"c0ffee00-0000-4000-8000-000000000001","times":["2026-01-02T03:04:05Z"]}`)
}

func cursorReads(t *testing.T, r *sqlRig) {
	r.exec(t, "create table orders (id int8 primary key, note text); insert into orders values (1, 'a'), (2, 'b'), (9007199254740993, 'c')")
	p := r.poller(t, plan.Poller{ID: cel("string(item.id)"), SQL: byID("select id, note from orders where id > $1 order by id")})
	p.once("")
	p.want(id, "1", "2", "9007199254740993")
	p.once("")
	p.want(id)
	p.restart()
	p.once("")
	p.want(id)
	r.exec(t, "insert into orders values (9007199254740994, 'd')")
	p.restart()
	p.once("")
	p.want(id, "9007199254740994")

	// What the broker does not take is not passed: the same ids come again, and nothing is skipped.
	r.exec(t, "insert into orders select 9007199254740994 + n, 'e' from generate_series(1, 3) n")
	p = r.poller(t, plan.Poller{SQL: byID("select id, note from orders where id > $1 order by id limit 2")})
	p.plan.SQL.Limited = true
	p.restart()
	p.store.err = fmt.Errorf("no disk")
	p.once(CheckpointFailed)
	first := p.out.take(id)
	p.store.err = nil
	p.restart() // a crash between publishing and checkpoint
	p.once("")
	all := p.out.take(id)
	if len(all) != 7 || !slices.Equal(all[:len(first)], first) {
		t.Errorf("published %v, and after the crash %v", first, all)
	}

	// A cursor that is compared with >= reads its own row again, and drops it.
	p = r.poller(t, plan.Poller{ID: cel("string(item.id)"), SQL: byID("select id from orders where id >= $1 and id < 5 order by id")})
	p.once("")
	p.want(id, "1", "2")
	p.once("")
	p.want(id)
}

func pagesEnd(t *testing.T, r *sqlRig) {
	r.exec(t, "create table events (at timestamptz, id int8, pad text); insert into events select '2026-01-01'::timestamptz + (n / 7) * interval '1 second', n, repeat('x', 100) from generate_series(1, 3000) n")
	composite := &plan.PollSQL{Query: "select at, id, pad from events where (at, id) > ($1, $2) order by at, id", Params: []int{0, 1}, MaxResultBytes: 60_000,
		Cursor: &plan.SQLCursor{Columns: []string{"at", "id"}, Start: []string{"2000-01-01T00:00:00Z", "0"}}}
	single := &plan.PollSQL{Query: "select at, id, pad from events where at > $1 order by at", Params: []int{0}, MaxResultBytes: 60_000,
		Cursor: &plan.SQLCursor{Columns: []string{"at"}, Start: []string{"2000-01-01T00:00:00Z"}}}
	for _, sql := range []*plan.PollSQL{composite, single} {
		p := r.poller(t, plan.Poller{ID: cel("string(item.id)"), SQL: sql})
		p.once("")
		got := p.out.take(id)
		slices.Sort(got)
		if pages := p.Stats().Pages; len(slices.Compact(got)) != 3000 || pages < 5 {
			t.Errorf("%d of 3000 rows in %d pages", len(got), pages)
		}
	}
	r.exec(t, "create table same as select '2026-01-01'::timestamptz as at, n as id from generate_series(1, 3000) n")
	p := r.poller(t, plan.Poller{SQL: &plan.PollSQL{Query: "select * from same where at > $1 order by at", Params: []int{0}, MaxResultBytes: 20_000, Cursor: single.Cursor}})
	if f := p.once(SourceRefused); f != nil && !strings.Contains(f.Error(), "have one and the same cursor") {
		t.Error(f)
	}
}

// overlapFinds has one transaction take its time before the other, and be committed after it.
func overlapFinds(t *testing.T, r *sqlRig) {
	r.exec(t, "create table changes (id int8 generated always as identity, at timestamptz)")
	late, soon := r.connect(t), r.connect(t)
	at := &plan.PollSQL{Query: "select id, at from changes where at > $1 order by at", Params: []int{0}, Overlap: plan.Duration(10 * time.Second),
		Cursor: &plan.SQLCursor{Columns: []string{"at"}, Start: []string{"2000-01-01T00:00:00Z"}}}
	p := r.poller(t, plan.Poller{ID: cel("string(item.id)"), SQL: at})
	blind := *at
	blind.Overlap = 0
	without := r.poller(t, plan.Poller{ID: cel("string(item.id)"), SQL: &blind})

	execOn(t, late, "begin; insert into changes (at) values (clock_timestamp())")
	execOn(t, soon, "insert into changes (at) values (clock_timestamp())")
	for _, one := range []*rig{p, without} {
		one.once("")
		one.want(id, "2")
	}
	execOn(t, late, "commit")
	p.restart()
	p.once("")
	p.want(id, "1")
	without.once("")
	without.want(id) // which is why there is an overlap
	for range 2 {
		p.restart()
		p.once("")
		p.want(id)
	}
	writes := p.store.writes
	p.once("")
	if p.store.writes != writes {
		t.Error("a poll that found nothing wrote the checkpoint")
	}

	// More rows than are remembered: none is published twice, and none that is newer than they are is missed.
	r.exec(t, "insert into changes (at) select clock_timestamp() from generate_series(1, 6000)")
	p.once("")
	if n := len(p.out.take(id)); n != 6000 {
		t.Errorf("%d of 6000 rows", n)
	}
	if n := len(p.st.Recent.rows); n > maxSeen || n == 0 {
		t.Errorf("%d rows are remembered", n)
	}
	p.restart()
	p.once("")
	p.want(id)
	r.exec(t, "insert into changes (at) values (clock_timestamp())")
	p.once("")
	p.want(id, "6003")
	// Rows of one transaction have one time: more of them than are remembered leave no overlap at all, and nothing comes twice.
	r.exec(t, "insert into changes (at) select now() from generate_series(1, 5000)")
	p.once("")
	if n := len(p.out.take(id)); n != 5000 {
		t.Errorf("%d of 5000 rows", n)
	}
	p.restart()
	p.once("")
	p.want(id)
}

func wholeResult(t *testing.T, r *sqlRig) {
	r.exec(t, "create table prices (sku text, price numeric(8,2)); insert into prices values ('pen', 2), ('ink', 9.90)")
	p := r.poller(t, plan.Poller{Detect: changed, ID: cel("item.sku"), Items: cel("body.filter(r, r.price > 1)"), SQL: &plan.PollSQL{Query: "select sku, price from prices order by sku"}})
	p.once("")
	p.want(data, `{"sku":"ink","price":9.90}`, `{"sku":"pen","price":2.00}`)
	r.exec(t, "update prices set price = 3 where sku = 'pen'")
	p.restart()
	p.once("")
	p.want(data, `{"sku":"pen","price":3.00}`)
	p = r.poller(t, plan.Poller{Detect: changed, SQL: &plan.PollSQL{Query: "select n, repeat('x', 1000) from generate_series(1, 20000) n", MaxResultBytes: 1 << 20}})
	if f := p.once(SourceRefused); f != nil && !strings.Contains(f.Error(), "the result has more than 1048576 bytes") {
		t.Error(f)
	}
}

func wrongQueries(t *testing.T, r *sqlRig) {
	r.exec(t, "create table wrong (id int8, at timestamptz); insert into wrong values (2, null), (1, now())")
	at := func(query string) *plan.PollSQL {
		s := byID(query)
		s.Cursor.Columns = []string{"at"}
		s.Cursor.Start = []string{"2000-01-01T00:00:00Z"}
		return s
	}
	start := byID("select id from wrong where id > $1 order by id")
	start.Cursor.Start = []string{"the beginning"}
	slow := byID("select id, pg_sleep(5) from wrong where id > $1")
	slow.Timeout = plan.Duration(100 * time.Millisecond)
	for _, c := range []struct {
		sql    *plan.PollSQL
		reason Reason
		want   string
	}{
		{byID("select id from wrongs where id > $1"), SourceRefused, `relation "wrongs" does not exist`},
		{byID("select idd from wrong where id > $1"), SourceRefused, `column "idd" does not exist`},
		{byID("select at from wrong where id > $1"), SourceRefused, "the result has no column id, which sql.cursor.columns names; it has at"},
		{byID("select id, id from wrong where id > $1"), SourceRefused, "two columns named id"},
		{byID("select id from wrong where id > $1 order by id desc"), SourceRefused, "not in the order of the cursor: add order by id"},
		{at("select at, id from wrong where at > $1 or at is null order by at"), SourceRefused, "column at of the cursor is null"},
		{start, SourceRefused, "is a value of sql.cursor.start none of its column's type?"},
		{byID("select $1 as id"), "", ""},
		{byID("select id from wrong where id > $1 for update"), SourceRefused, ""},
		{byID("select nextval('seq') as id where $1 = ''"), SourceRefused, "transaction that may only read"},
		{slow, SourceFailed, "the statement was ended"},
	} {
		r.exec(t, "create sequence if not exists seq")
		if strings.Contains(c.sql.Query, "nextval") {
			c.sql.Cursor.Start = []string{""}
		}
		p := r.poller(t, plan.Poller{SQL: c.sql})
		if f := p.once(c.reason); f != nil && !strings.Contains(f.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.sql.Query, f, c.want)
		}
	}
}

func deadServer(t *testing.T, r *sqlRig) {
	r.exec(t, "create table dead as select n as id from generate_series(1, 3) n")
	p := r.poller(t, plan.Poller{ID: cel("string(item.id)"), SQL: byID("select id from dead where id > $1 order by id")})
	p.once("")
	p.want(id, "1", "2", "3")
	r.Kill()
	p.once(SourceUnreachable)
	p.once(SourceUnreachable)
	r.Start()
	execOn(t, r.connect(t), "insert into dead values (4)")
	p.once("")
	p.want(id, "4")
}

// Whatever texts an array holds, its list is JSON that holds the same ones.
func TestArraysOfTexts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOf(rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"NULL", "", `"`, `\`, "{", "}", ","}))).Draw(t, "texts")
		spelt := make([]string, len(texts))
		for i, s := range texts {
			spelt[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
		}
		raw := appendValue(nil, []byte("{"+strings.Join(spelt, ",")+"}"), 1009)
		var got []string
		if err := json.Unmarshal(raw, &got); err != nil || !slices.Equal(got, texts) {
			t.Fatalf("%s: %v, want %q", raw, err, texts)
		}
	})
}

func FuzzArray(f *testing.F) {
	for _, seed := range []string{"{}", "{1,NULL}", `{"a","b\"c"}`, "{{1},{2}}", "[0:1]={1,2}", "{", "}", `{"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		if len(v) > 0 && !json.Valid(appendValue(nil, v, 1009)) {
			t.Fatalf("%q became %q", v, appendValue(nil, v, 1009))
		}
	})
}

func TestRecentForgetsWholeMoments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r recent
		all := map[recentRow]bool{}
		newest := int64(math.MinInt64)
		for range rapid.IntRange(1, 2).Draw(t, "pages") {
			n, from, spread := rapid.OneOf(rapid.IntRange(0, 50), rapid.IntRange(4000, 4500)).Draw(t, "n"), rapid.Int64Range(0, 20).Draw(t, "from"), rapid.Int64Range(1, 2000).Draw(t, "spread")
			rows := make([]recentRow, n)
			for i := range rows {
				rows[i] = recentRow{uint64(len(all) + i), from + int64(i)%spread}
				newest = max(newest, rows[i].at)
			}
			for _, o := range rows {
				all[o] = true
			}
			r.add(rows, newest-1000)
			raw, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			r = recent{}
			if err := json.Unmarshal(raw, &r); err != nil {
				t.Fatal(err)
			}
		}
		if len(r.rows) > maxSeen {
			t.Fatalf("%d are remembered", len(r.rows))
		}
		held := map[uint64]bool{}
		for _, o := range r.rows {
			held[o.hash] = true
		}
		begin := max(newest-1000, r.floor)
		for o := range all {
			if o.at >= begin && !held[o.hash] {
				t.Fatalf("%v is read again from %d and not remembered", o, begin)
			}
		}
	})
}
