// Package brokertest states what package driver promises, as cases that every driver runs against its real server.
//
// A case is named for what it shows. Nothing in it sleeps: it waits for what must come, under a deadline, and lets a short context end
// where nothing may come.
package brokertest

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// Harness is one driver with one server.
type Harness struct {
	// Open and Config reach the server. Config must reach it again after Restart.
	Open   driver.Open
	Config driver.Config
	// Stop takes the server away as a crash would; Start brings it back with its data. Both nil: the cases that need them are left out.
	Stop, Start func(t *testing.T)
	// Reader runs Child in another process with spec as its input, and gives its output; nil: the cases that need one are left out. It is
	// killed with signal 9 by the function it returns.
	Reader func(t *testing.T, spec []byte) (lines <-chan string, kill func())
	// AckWait is the shortest that the broker takes for a queue and keeps precisely.
	AckWait time.Duration
	// Can says what the broker is able to do; cases that need more are left out.
	Can Abilities
}

// Abilities are what brokers differ in.
type Abilities struct {
	Inbox   bool // request and reply
	Settler bool // any connection settles a handle
	Dedup   bool // a second message with the same source and id is dropped
	Full    bool // a queue can be bounded
	Replay  bool // positions Earliest and Time
	Expire  bool // a topic can be bounded, and deletes its oldest messages
	Live    bool // a topic can be read without a group
	// Fenced: two readers of one position cannot both go on.
	Fenced bool
	// Transfer: messages and a position can be stored in one step.
	Transfer bool
	// Settling of a group or queue with this ordering.
	Settling func(k driver.Kind, o driver.Ordering) driver.Settling
}

type testCase struct {
	name  string
	needs func(h *Harness) bool
	run   func(t *testing.T, e *env)
}

// Run runs the whole suite.
func Run(t *testing.T, h Harness) {
	var cases []testCase
	for _, group := range [][]testCase{publishCases, roundTripCases, receiveCases, settleCases, leaseCases, liveCases, orderCases, positionCases, adminCases, inboxCases, outageCases, crashCases, transferCases} {
		cases = append(cases, group...)
	}
	for _, c := range cases {
		if c.needs != nil && !c.needs(&h) {
			continue
		}
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			c.run(t, &env{Harness: &h, name: unique("t")})
		})
	}
}

var counter atomic.Int64

// unique makes names that no other case of this process has, nor of an earlier one on the same server.
func unique(start string) string {
	return fmt.Sprintf("%s-%d-%d", start, time.Now().UnixNano()%1e9, counter.Add(1))
}

// env is what a case works with.
type env struct {
	*Harness
	name string
}

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// quiet is for how long nothing is watched not to happen.
const quiet = 150 * time.Millisecond

const owner = "cluster/default/object"

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func (e *env) conn(t *testing.T) driver.Conn {
	t.Helper()
	c, err := e.Open(within(t), e.Config)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(within(t)); err != nil {
			t.Errorf("Close of the connection: %v", err)
		}
	})
	return c
}

// ensure makes an object and deletes it when the test ends.
func (e *env) ensure(t *testing.T, c driver.Conn, o driver.Object) driver.Ref {
	t.Helper()
	if o.Owner == "" {
		o.Owner = owner
	}
	if o.Name == "" {
		o.Name = unique(strings.ToLower(string(o.Kind)))
	}
	if o.AckWait == 0 {
		o.AckWait = time.Minute
	}
	if _, err := c.Admin().Ensure(within(t), o); err != nil {
		t.Fatalf("Ensure %s %s: %v", o.Kind, o.Name, err)
	}
	t.Cleanup(func() { e.remove(t, o.Ref, o.Owner) })
	return o.Ref
}

func (e *env) remove(t *testing.T, r driver.Ref, owner string) {
	c, err := e.Open(within(t), e.Config)
	if err != nil {
		t.Errorf("Open: %v", err)
		return
	}
	defer c.Close(within(t))
	if err := c.Admin().Delete(within(t), r, owner, false); err != nil {
		t.Errorf("Delete %s %s: %v", r.Kind, r.Name, err)
	}
}

func (e *env) topic(t *testing.T, c driver.Conn) driver.Ref {
	t.Helper()
	return e.ensure(t, c, driver.Object{Ref: driver.Ref{Kind: driver.Topic}})
}

func (e *env) queue(t *testing.T, c driver.Conn, o driver.Ordering) driver.Ref {
	t.Helper()
	return e.ensure(t, c, driver.Object{Ref: driver.Ref{Kind: driver.Queue}, Ordering: o})
}

// group makes a position at the beginning of a topic.
func (e *env) group(t *testing.T, c driver.Conn, topic driver.Ref, o driver.Ordering) driver.Ref {
	t.Helper()
	start := driver.Earliest
	if !e.Can.Replay {
		start = driver.Latest
	}
	return e.ensure(t, c, driver.Object{Ref: driver.Ref{Kind: driver.Group, Of: topic.Name}, Ordering: o, Start: driver.Start{Position: start}})
}

func (e *env) publisher(t *testing.T, c driver.Conn, r driver.Ref) driver.Publisher {
	t.Helper()
	p, err := c.Publisher(within(t), driver.PublisherSpec{Object: r})
	if err != nil {
		t.Fatalf("Publisher of %s: %v", r.Name, err)
	}
	t.Cleanup(func() {
		if err := p.Close(within(t)); err != nil {
			t.Errorf("Close of the publisher: %v", err)
		}
	})
	return p
}

// publish publishes all of ms.
func publish(t *testing.T, p driver.Publisher, ms ...message.Message) {
	t.Helper()
	for i, err := range p.Publish(within(t), ms) {
		if err != nil {
			t.Fatalf("Publish of message %d (%s): %v", i, ms[i].ID, err)
		}
	}
}

// source opens a source and closes it when the test ends.
func (e *env) source(t *testing.T, c driver.Conn, s driver.SourceSpec) driver.Source {
	t.Helper()
	if s.Window.Messages == 0 {
		s.Window = driver.Window{Messages: 1000, Bytes: 16 << 20}
	}
	if s.AckWait == 0 {
		s.AckWait = time.Minute
	}
	src, err := c.Source(within(t), s)
	if err != nil {
		t.Fatalf("Source of %s: %v", s.Object.Name, err)
	}
	t.Cleanup(func() {
		if err := src.Close(within(t)); err != nil {
			t.Errorf("Close of the source: %v", err)
		}
	})
	return src
}

// of is the spec that reads a group.
func of(group driver.Ref, o driver.Ordering) driver.SourceSpec {
	return driver.SourceSpec{Object: driver.Ref{Kind: driver.Topic, Name: group.Of}, Group: group.Name, Ordering: o}
}

// receive waits until exactly n deliveries have come.
func receive(t *testing.T, s driver.Source, n int) []driver.Delivery {
	t.Helper()
	ctx := within(t)
	got := make([]driver.Delivery, n)
	have := 0
	for have < n {
		k, err := s.Receive(ctx, got[have:])
		if err != nil {
			t.Fatalf("Receive: %v (after %d of %d)", err, have, n)
		}
		if k == 0 {
			t.Fatalf("Receive: only %d of %d came: %v", have, n, ids(got[:have]))
		}
		have += k
	}
	return got
}

// nothing checks that no delivery comes for a while.
func nothing(t *testing.T, s driver.Source) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), quiet)
	defer cancel()
	var into [8]driver.Delivery
	if n, err := s.Receive(ctx, into[:]); err != nil || n != 0 {
		t.Fatalf("Receive: %v, %v; want nothing", ids(into[:n]), err)
	}
}

func settle(t *testing.T, s driver.Source, verb driver.Verb, ds ...driver.Delivery) {
	t.Helper()
	for i, err := range s.Settle(within(t), settlements(verb, ds...)) {
		if err != nil {
			t.Fatalf("Settle of %s: %v", ds[i].Message.ID, err)
		}
	}
}

func settlements(verb driver.Verb, ds ...driver.Delivery) []driver.Settlement {
	out := make([]driver.Settlement, len(ds))
	for i := range ds {
		out[i] = driver.Settlement{D: &ds[i], Verb: verb}
	}
	return out
}

// msg is a small valid message.
func msg(id, key string) message.Message {
	return message.Message{ID: id, Source: "/test", Type: "test.message", Key: key, DataContentType: "text/plain", Data: []byte("data of " + id)}
}

// series makes n messages with ids from start on, all of one key.
func series(key string, start, n int) []message.Message {
	ms := make([]message.Message, n)
	for i := range ms {
		ms[i] = msg(fmt.Sprintf("%s%04d", key, start+i), key)
	}
	return ms
}

func ids(ds []driver.Delivery) []string {
	out := make([]string, len(ds))
	for i := range ds {
		out[i] = ds[i].Message.ID
	}
	return out
}

func want(t *testing.T, what string, got []driver.Delivery, ids ...string) {
	t.Helper()
	if len(got) != len(ids) {
		t.Fatalf("%s: got %d messages, want %d", what, len(got), len(ids))
	}
	for i := range got {
		if got[i].Message.ID != ids[i] {
			t.Fatalf("%s: message %d is %s, want %s", what, i, got[i].Message.ID, ids[i])
		}
	}
}

func idsOf(ms []message.Message) []string {
	out := make([]string, len(ms))
	for i := range ms {
		out[i] = ms[i].ID
	}
	return out
}

// eventually waits until ok; it looks again whenever a tick has passed.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s did not happen within %v", what, patience)
		}
	}
}

func state(t *testing.T, c driver.Conn, r driver.Ref) driver.State {
	t.Helper()
	s, err := c.Admin().Inspect(within(t), []driver.Ref{r})
	if err != nil || len(s) != 1 {
		t.Fatalf("Inspect %s: %v, %v", r.Name, s, err)
	}
	return s[0]
}
