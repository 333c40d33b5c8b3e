package verify_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/waybill-dev/waybill/test/servers"
	"github.com/waybill-dev/waybill/test/verify"
)

// rowsOnce is a pipeline that drops every seventh message and makes two rows of every fifth.
const rowsOnce = `
kind: Broker
metadata: {name: main}
spec: {type: Embedded, embedded: {}}
---
apiVersion: v1
kind: Secret
metadata: {name: db}
stringData: {dsn: %q}
---
kind: Topic
metadata: {name: orders}
spec: {brokerRef: {name: main}}
---
kind: Pipeline
metadata: {name: once}
spec:
  from: {topicRef: {name: orders}}
  startFrom: {position: Earliest}
  ordering: %s
  guarantee: ExactlyOnce
  ackWait: 5s
  steps:
  - name: some
    filter: {cel: data.seq %% 7 != 0}
  - name: lines
    split: {cel: 'data.seq %% 5 == 0 ? [data, data] : [data]'}
  to: {postgres: {dsnSecretRef: {name: db}, table: lines, columns: {key: {cel: data.key}, seq: {cel: data.seq}}}}
  retry: {maxAttempts: 8, backOff: {initial: 20ms, max: 200ms}}
`

// What a pipeline writes to PostgreSQL under ExactlyOnce is what was answered Stored, each row once, although the process and the database are
// killed. It is counted in the table, which has no unique index to help.
func TestExactlyOnceToPostgres(t *testing.T) {
	for i, ordering := range []string{"None", "Key"} {
		t.Run(ordering, func(t *testing.T) { exactlyOnceToPostgres(t, ordering, uint64(i)) })
	}
}

func exactlyOnceToPostgres(t *testing.T, ordering string, salt uint64) {
	server := servers.StartPostgres(t)
	if server == nil {
		return
	}
	ask(t, server, "create table lines (key text not null, seq int8 not null)")
	r := newRig(t)
	r.start(fmt.Sprintf(rowsOnce, server.DSN(), ordering), "--data", t.TempDir(), "--drain", "2s")
	r.publish(verify.Traffic{Keys: 8, Pause: 5 * time.Millisecond, To: r.address("Topic", "orders", "")})
	by := map[string]injector{
		"kill -9": r.kill,
		"SIGTERM": r.drain,
		"kill -9 of the database": func(f verify.Fault) {
			server.Kill()
			<-time.After(f.For)
			server.Start()
		},
		"kill -9 of both": func(verify.Fault) {
			server.Kill()
			r.laptop.Kill()
			server.Start()
			r.laptop.Up()
		},
	}
	n := 4
	if *faults > 0 {
		n = (*faults + 3) / 4
	}
	for i, f := range verify.Schedule(*seed+salt, n, []verify.Kind{{Name: "kill -9"}, {Name: "SIGTERM"}, {Name: "kill -9 of the database", Most: time.Second}, {Name: "kill -9 of both"}}) {
		<-time.After(f.After) // a fault comes when it comes
		r.record.Note("fault %d of %d: %s", i+1, n, f)
		by[f.Kind](f)
		r.injected[f.Kind]++
	}
	r.stopPublish()
	r.publishers.Wait()

	published := map[verify.Mark]verify.Fate{}
	for _, p := range r.record.History().Publications {
		published[p.Mark] = p.Fate
	}
	wants := func(m verify.Mark) int {
		switch {
		case m.Seq%7 == 0:
			return 0
		case m.Seq%5 == 0:
			return 2
		}
		return 1
	}
	var lost, again, rows int
	for deadline := time.Now().Add(2 * time.Minute); ; {
		found := map[verify.Mark]int{}
		for _, row := range ask(t, server, "select key, seq from lines") {
			seq, err := strconv.Atoi(string(row[1]))
			if err != nil {
				t.Fatal(err)
			}
			found[verify.Mark{Key: string(row[0]), Seq: seq}]++
		}
		lost, again, rows = 0, 0, 0
		for m, fate := range published {
			want := wants(m)
			rows += found[m]
			again += max(0, found[m]-want)
			if fate == verify.Stored || found[m] > 0 { // half a message is lost too
				lost += max(0, want-found[m])
			}
		}
		if lost == 0 || time.Now().After(deadline) {
			break
		}
		<-time.After(100 * time.Millisecond) // it counts a table that grows
	}
	r.row("seed %d, ordering %s: %d faults, %d messages became %d rows: %d lost, %d duplicated", *seed, ordering, n, len(published), rows, lost, again)
	if lost+again > 0 {
		t.Errorf("%d lost, %d duplicated", lost, again)
	}
	if rows < 50 {
		t.Errorf("only %d rows came through", rows)
	}
}

// ask runs one statement on a connection of its own, for the server may have been killed meanwhile.
func ask(t *testing.T, server *servers.Postgres, sql string) [][][]byte {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	results, err := c.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return results[0].Rows
}
