package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
)

// A transfer is a broker on cue: a log that is read, and one that is written together with a position.
type transfer struct {
	mu       sync.Mutex
	log      []message.Message
	position int // of the last that is done
	out      []string
	faults   []string // of the settlements to come, "" for none
	opened   uint64
	conns    []*transferConn
	wrong    []string
}

type transferConn struct {
	driver.Conn
	t    *transfer
	done chan struct{}
	once sync.Once
}

func (t *transfer) open(context.Context, driver.Config) (driver.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &transferConn{t: t, done: make(chan struct{})}
	t.conns = append(t.conns, c)
	return c, nil
}

// cut ends all sessions.
func (t *transfer) cut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.conns {
		c.once.Do(func() { close(c.done) })
	}
	t.conns = nil
}

func (c *transferConn) Features() driver.Features { return driver.Features{Server: "script"} }
func (c *transferConn) Done() <-chan struct{}     { return c.done }
func (c *transferConn) Class(err error) driver.Class {
	if errors.Is(err, driver.ErrStale) {
		return driver.Stale
	}
	return driver.Transient
}

func (c *transferConn) Close(context.Context) error {
	c.once.Do(func() { close(c.done) })
	return nil
}

func (c *transferConn) Source(_ context.Context, spec driver.SourceSpec) (driver.Source, error) {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if spec.Into.Name != "lines" {
		return nil, fmt.Errorf("the source is opened into %q", spec.Into.Name)
	}
	c.t.opened++
	return &transferSource{conn: c, claim: driver.Claim{Epoch: c.t.opened}, next: c.t.position}, nil
}

type transferSource struct {
	conn  *transferConn
	claim driver.Claim
	next  int
}

func (s *transferSource) Settling() driver.Settling { return driver.Positional }

func (s *transferSource) Receive(ctx context.Context, into []driver.Delivery) (int, error) {
	t := s.conn.t
	t.mu.Lock()
	n := min(len(into), len(t.log)-s.next)
	for i := range n {
		s.next++
		into[i] = driver.Delivery{Message: t.log[s.next-1], Claim: s.claim, Position: int64(s.next), Count: 1, Ref: s}
	}
	t.mu.Unlock()
	if n > 0 {
		return n, nil
	}
	select {
	case <-s.conn.done:
		return 0, errors.New("the session is gone")
	case <-ctx.Done():
		return 0, nil
	}
}

var errTooMany = fmt.Errorf("%w: too many", driver.ErrTooLarge)

func (s *transferSource) Fits(out []message.Message) error {
	if len(out) > 9 {
		return errTooMany
	}
	return nil
}

// Settle stores everything in one step, or half of it, or nothing, as the next fault says.
func (s *transferSource) Settle(_ context.Context, list []driver.Settlement) []error {
	t := s.conn.t
	t.mu.Lock()
	defer t.mu.Unlock()
	errs := make([]error, len(list))
	fault := ""
	if len(t.faults) > 0 {
		fault, t.faults = t.faults[0], t.faults[1:]
	}
	stored := len(list)
	var err error
	switch {
	case s.claim.Epoch != t.opened || fault == "stale":
		stored, err = 0, driver.ErrStale
	case fault == "refused":
		stored, err = 0, errors.New("no leader")
	case fault == "half":
		stored, err = len(list)/2, errors.New("no leader")
	case fault == "unanswered":
		err = driver.ErrUnknown
	}
	for i, l := range list {
		if i >= stored || fault == "unanswered" {
			errs[i] = err
		}
		if i >= stored || int(l.D.Position) <= t.position {
			continue
		}
		if l.D.Claim != s.claim || l.D.Ref != any(s) || l.Verb != driver.Done {
			t.wrong = append(t.wrong, fmt.Sprintf("settled %+v", l.D))
		}
		t.position = int(l.D.Position)
		for _, m := range l.Out {
			t.out = append(t.out, m.ID)
		}
	}
	return errs
}

func (s *transferSource) Extend(_ context.Context, ds []*driver.Delivery) []error { return nil }
func (s *transferSource) Drain()                                                  {}
func (s *transferSource) Close(context.Context) error                             { return nil }

// A fate is what a message does on its way, and what it becomes.
type fate struct {
	takes  time.Duration
	fails  int
	poison bool
	outs   int
}

// ways is the step that does it.
type ways struct {
	mu    sync.Mutex
	fates []fate
}

func (w *ways) Process(ctx context.Context, b *flow.Batch) {
	var events []flow.Event
	for _, e := range b.Events {
		n, _ := strconv.Atoi(e.Message.ID)
		w.mu.Lock()
		f := &w.fates[n]
		takes, fails, poison, outs := f.takes, f.fails > 0, f.poison, f.outs
		f.fails--
		w.mu.Unlock()
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			b.Fail(e.Input, ctx.Err())
		}
		switch {
		case b.Held(e.Input): // its turn comes
			events = append(events, e)
			continue
		case fails:
			b.Fail(e.Input, &flow.Fault{Blame: flow.Destination, Err: errors.New("500")})
		case poison:
			b.Fail(e.Input, &flow.Fault{Blame: flow.Message, Err: errors.New("422")})
		}
		if outs == 0 && b.Inputs[e.Input].Err == nil {
			b.Inputs[e.Input].Dropped = "Filtered"
		}
		for i := range outs {
			m := e.Message
			m.ID += "-" + strconv.Itoa(i)
			events = append(events, flow.Event{Message: m, Input: e.Input})
		}
	}
	b.Events = events
}

type grave struct {
	mu  sync.Mutex
	ids map[string]int
}

func (g *grave) Publish(_ context.Context, ms []message.Message) []error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range ms {
		g.ids[m.ID]++
	}
	return nil
}

// Whatever fails on the way, is cut off, answered by nobody, or begun anew: what becomes of each message is stored once, in the order of the
// messages.
func TestWhateverHappensATransferStoresEverythingOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := carryStory{
			ordering: rapid.SampledFrom([]driver.Ordering{driver.None, driver.Key, driver.Strict}).Draw(rt, "ordering"),
			inFlight: rapid.IntRange(1, 16).Draw(rt, "in flight"),
			batch:    rapid.IntRange(1, 8).Draw(rt, "batch"),
			faults:   rapid.SliceOfN(rapid.SampledFrom([]string{"", "", "stale", "refused", "half", "unanswered"}), 0, 12).Draw(rt, "faults"),
			cuts:     rapid.SliceOfN(rapid.SampledFrom([]string{"cut", "restart", "restart at once"}), 0, 5).Draw(rt, "cuts"),
		}
		for range rapid.IntRange(1, 60).Draw(rt, "messages") {
			f := fate{outs: rapid.SampledFrom([]int{0, 1, 1, 1, 2, 3, 12}).Draw(rt, "outs"), takes: time.Duration(rapid.IntRange(0, 200).Draw(rt, "takes")) * time.Millisecond}
			if rapid.IntRange(0, 5).Draw(rt, "faulty") == 0 {
				f.fails, f.poison = rapid.IntRange(0, 3).Draw(rt, "fails"), rapid.Bool().Draw(rt, "poison")
			}
			s.fates = append(s.fates, f)
			s.keys = append(s.keys, rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(rt, "key"))
		}
		var wrong []string
		synctest.Test(t, func(t *testing.T) { wrong = s.tell(t) })
		for _, w := range wrong {
			rt.Error(w)
		}
	})
}

type carryStory struct {
	ordering        driver.Ordering
	inFlight, batch int
	faults, cuts    []string
	fates           []fate
	keys            []string
}

func (s *carryStory) tell(t *testing.T) []string {
	server := &transfer{faults: slices.Clone(s.faults)}
	var want []string
	dead := map[string]bool{}
	for i, f := range s.fates {
		id := strconv.Itoa(i)
		server.log = append(server.log, message.Message{ID: id, Source: "/test", Type: "test", Key: s.keys[i]})
		switch {
		case f.poison || f.outs > 9:
			dead[id] = true
		default:
			for n := range f.outs {
				want = append(want, id+"-"+strconv.Itoa(n))
			}
		}
	}
	b := broker.Connect(broker.Config{Name: "default/main", Open: server.open, Resolve: func(context.Context) (driver.Config, error) { return driver.Config{}, nil }})
	defer b.Close(context.Background())
	buried := &grave{ids: map[string]int{}}
	step := &ways{fates: slices.Clone(s.fates)}
	var f *flow.Flow
	ran := make(chan error, 1)
	start := func() {
		f = flow.New(flow.Config{
			Name: "Pipeline/default/once",
			Open: func(ctx context.Context, revoke func(context.Context, []driver.Claim), lost func([]driver.Claim)) (driver.Source, error) {
				return b.Source(ctx, driver.SourceSpec{
					Object: driver.Ref{Kind: driver.Topic, Name: "orders"}, Group: "once", Into: driver.Ref{Kind: driver.Topic, Name: "lines"}, Revoke: revoke, Lost: lost,
				})
			},
			Stages: []flow.Stage{step},
			Policy: flow.Policy{
				Ordering: s.ordering, Carries: true, MaxInFlight: s.inFlight, BatchSize: s.batch, OnFailure: flow.Park,
				Retry: flow.Retry{MaxAttempts: 20, Initial: time.Second, Max: 20 * time.Second, Multiplier: 2},
			},
			DeadLetter: buried,
		})
		go func() { ran <- f.Run(context.Background()) }()
	}
	stop := func(within time.Duration) {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		f.Drain(ctx)
		if err := <-ran; err != nil {
			server.wrong = append(server.wrong, err.Error())
		}
	}
	start()
	for i, c := range s.cuts {
		time.Sleep(time.Duration(i*i) * 300 * time.Millisecond)
		switch c {
		case "cut":
			server.cut()
		case "restart":
			stop(time.Minute)
			start()
		case "restart at once":
			stop(0)
			start()
		}
	}
	time.Sleep(time.Hour)
	stop(time.Minute)

	server.mu.Lock()
	defer server.mu.Unlock()
	wrong := server.wrong
	if server.position != len(s.fates) {
		wrong = append(wrong, fmt.Sprintf("%d of %d are done: %+v", server.position, len(s.fates), f.Stats()))
	}
	if !slices.Equal(server.out, want) {
		wrong = append(wrong, fmt.Sprintf("stored %v, want %v", server.out, want))
	}
	for id := range dead {
		if buried.ids[id] == 0 {
			wrong = append(wrong, id+" is not dead")
		}
	}
	for id := range buried.ids {
		if !dead[id] {
			wrong = append(wrong, id+" is dead")
		}
	}
	return wrong
}

// One message that waits holds back what is behind it, not what is before it, and no more is kept than the window allows.
func TestATransferKeepsNoMoreThanItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 1 << 20
		server := &transfer{}
		for i := range 200 {
			server.log = append(server.log, message.Message{ID: strconv.Itoa(i), Source: "/test", Type: "test"})
		}
		b := broker.Connect(broker.Config{Name: "default/main", Open: server.open, Resolve: func(context.Context) (driver.Config, error) { return driver.Config{}, nil }})
		defer b.Close(context.Background())
		src, err := b.Source(t.Context(), driver.SourceSpec{
			Object: driver.Ref{Kind: driver.Topic, Name: "orders"}, Group: "once", Into: driver.Ref{Kind: driver.Topic, Name: "lines"},
			Window: driver.Window{Messages: 8, Bytes: 20 * size},
		})
		if err != nil {
			t.Fatal(err)
		}
		var waits driver.Delivery
		received := 0
		receive := func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var one [1]driver.Delivery
			n, err := src.Receive(ctx, one[:])
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				return false
			}
			received++
			if received == 3 {
				waits = one[0]
				return true
			}
			out := []message.Message{{ID: "out-" + one[0].Message.ID, Data: make([]byte, size)}}
			for _, err := range src.Settle(ctx, []driver.Settlement{{D: &one[0], Verb: driver.Done, Out: out}}) {
				if err != nil {
					t.Fatal(err)
				}
			}
			return true
		}
		for receive() {
		}
		synctest.Wait()
		if received < 20 || received > 25 || server.position != 2 || len(server.out) != 2 {
			t.Errorf("with one that waits %d were received, %d are done, %v stored", received, server.position, server.out)
		}
		if _, at, _, ok := src.(*broker.Source).Blocked(); !ok || at != 3 {
			t.Errorf("Blocked says %d, %t", at, ok)
		}
		src.Settle(t.Context(), []driver.Settlement{{D: &waits, Verb: driver.Done}})
		for receive() {
		}
		synctest.Wait()
		if received != 200 || server.position != 200 || len(server.out) != 199 {
			t.Errorf("in the end %d were received, %d are done, %d stored", received, server.position, len(server.out))
		}
		if err := src.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
