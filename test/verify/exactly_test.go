package verify_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/test/laptop"
	"github.com/waybill-dev/waybill/test/servers"
	"github.com/waybill-dev/waybill/test/verify"
)

// exactly is a pipeline that drops every seventh message of a key, makes two of every fifth, asks a server on the way, and stores each result
// once.
const exactly = `
kind: Broker
metadata: {name: main}
spec: {type: NATS, nats: {servers: [%q]}}
---
kind: Topic
metadata: {name: orders}
spec: {brokerRef: {name: main}}
---
kind: Topic
metadata: {name: lines}
spec: {brokerRef: {name: main}}
---
kind: Pipeline
metadata: {name: once}
spec:
  from: {topicRef: {name: orders}}
  startFrom: {position: Earliest}
  ordering: %s
  guarantee: ExactlyOnce
  steps:
  - name: some
    filter: {cel: data.seq %% 7 != 0}
  - name: ask
    http: {uri: %q, timeout: 2s}
  - name: lines
    split: {cel: 'data.seq %% 5 == 0 ? [data, data] : [data]'}
  to: {topicRef: {name: lines}}
  retry: {maxAttempts: 8, backOff: {initial: 20ms, max: 200ms}}
`

// asked is the server on the way: it takes its time, fails now and then, and refuses some messages for good.
func asked(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	m, bad := verify.Read(data)
	switch {
	case err != nil:
	case bad != nil:
		w.WriteHeader(http.StatusTeapot)
	case rejected(m):
		w.WriteHeader(http.StatusUnprocessableEntity)
	case rand.IntN(50) == 0:
		w.WriteHeader(http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(data) // whoever asked may be dead
	}
}

func rejected(m verify.Mark) bool { return m.Seq%50 == 25 }

// linesOf is what becomes of a message.
func linesOf(m verify.Mark) []verify.Mark {
	switch {
	case m.Seq%7 == 0, rejected(m):
		return nil
	case m.Seq%5 == 0:
		return []verify.Mark{m, m}
	}
	return []verify.Mark{m}
}

// What a pipeline stores under ExactlyOnce is what its source holds, each message in its place and once, although the process and the server
// are killed, and although a process that was suspended goes on beside the one that has taken its place. It is counted in the streams
// themselves.
func TestExactlyOnceFromTopicToTopic(t *testing.T) {
	for i, ordering := range []string{"Key", "None"} {
		t.Run(ordering, func(t *testing.T) { exactlyOnce(t, ordering, uint64(i)) })
	}
}

func exactlyOnce(t *testing.T, ordering string, salt uint64) {
	server := servers.StartNATS(t)
	step := httptest.NewServer(http.HandlerFunc(asked))
	t.Cleanup(step.Close)
	r := newRig(t)
	documents := fmt.Sprintf(exactly, server.URL(), ordering, step.URL)
	r.start(documents, "--data", t.TempDir(), "--drain", "2s")
	second := laptop.New(t, "-f", r.manifest, "--data", t.TempDir())
	second.Log = r.laptop.Log
	r.publish(verify.Traffic{Keys: 8, Pause: 5 * time.Millisecond, To: r.address("Topic", "orders", "")})

	kinds := []verify.Kind{
		{Name: "kill -9"}, {Name: "SIGTERM"}, {Name: "kill -9 of the broker", Most: time.Second}, {Name: "kill -9 of both"},
		{Name: "suspended, replaced, and gone on", Least: 200 * time.Millisecond, Most: time.Second},
	}
	by := map[string]injector{
		"kill -9": r.kill,
		"SIGTERM": r.drain,
		"kill -9 of the broker": func(f verify.Fault) {
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
		"suspended, replaced, and gone on": func(f verify.Fault) {
			pid := r.laptop.Pid()
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			second.Up()
			<-time.After(f.For)
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			<-time.After(f.For) // both go on, and only one can
			second.Kill()
		},
	}
	n := 5
	if *faults > 0 {
		n = (*faults + 3) / 4
	}
	for i, f := range verify.Schedule(*seed+salt, n, kinds) {
		<-time.After(f.After) // a fault comes when it comes
		r.record.Note("fault %d of %d: %s", i+1, n, f)
		by[f.Kind](f)
		r.injected[f.Kind]++
	}
	r.stopPublish()
	r.publishers.Wait()

	var in, want, got []verify.Mark
	for deadline := time.Now().Add(2 * time.Minute); ; {
		got = stored(t, server, "default_lines")
		in, want = stored(t, server, "default_orders"), nil // after it: what was asked for last may be stored still
		for _, m := range in {
			want = append(want, linesOf(m)...)
		}
		if len(got) >= len(want) || time.Now().After(deadline) {
			break
		}
		<-time.After(100 * time.Millisecond) // it counts a stream that grows
	}
	got, unkept := kept(r.record.History(), want, got)
	lost, again, moved := compare(want, got)
	r.row("seed %d, ordering %s: %d faults, %d messages became %d: %d lost, %d duplicated, %d out of place; %d of messages that the server lost when it was killed",
		*seed, ordering, n, len(in), len(got), lost, again, moved, unkept)
	if lost+again+moved > 0 {
		t.Errorf("%d lost, %d duplicated, %d out of place", lost, again, moved)
	}
	for _, p := range r.record.History().Publications {
		if p.Fate == verify.Stored && !slices.Contains(in, p.Mark) {
			t.Errorf("%s was answered Stored and is not in the stream", p.Mark)
		}
	}
	if len(want) < 50 {
		t.Errorf("only %d messages went through", len(want))
	}
}

// kept leaves out what was made of messages that the server had given out and had not written when it was killed. Their publisher was not
// told that they are stored, and has sent them again.
func kept(h *verify.History, want, got []verify.Mark) (_ []verify.Mark, unkept int) {
	sentAgain := map[verify.Mark]bool{}
	for _, p := range h.Publications {
		sentAgain[p.Mark] = p.Tries > 1 || p.Fate != verify.Stored
	}
	left := map[verify.Mark]int{}
	for _, m := range want {
		left[m]++
	}
	var out []verify.Mark
	for _, m := range slices.Backward(got) {
		left[m]--
		if left[m] < 0 && sentAgain[m] {
			unkept++
			continue
		}
		out = append(out, m)
	}
	slices.Reverse(out)
	return out, unkept
}

// compare counts how two streams differ.
func compare(want, got []verify.Mark) (lost, again, moved int) {
	left := map[verify.Mark]int{}
	for _, m := range want {
		left[m]++
	}
	for _, m := range got {
		left[m]--
	}
	for _, n := range left {
		lost += max(n, 0)
		again += max(-n, 0)
	}
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			moved++
		}
	}
	return lost, again, moved
}

// stored is what a Topic's stream holds, in its order.
func stored(t *testing.T, server *servers.NATS, stream string) []verify.Mark {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy, FilterSubject: stream, MemoryStorage: true})
	if err != nil {
		t.Fatal(err)
	}
	var all []verify.Mark
	for left := reader.CachedInfo().NumPending; left > 0; {
		batch, err := reader.Fetch(int(min(left, 1000)))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			if strings.HasPrefix(m.Subject(), "waybill.") {
				t.Errorf("a position is among the messages: %s", m.Subject())
			}
			mark, err := verify.Read(m.Data())
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, mark)
			left--
		}
		if err := batch.Error(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
