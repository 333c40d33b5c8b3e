package broker_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
)

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// embedded is a broker over an embedded NATS server, with one topic and one ordered group on it.
func embedded(t testing.TB, ordering driver.Ordering) (*broker.Broker, driver.SourceSpec) {
	t.Helper()
	server, err := nats.StartEmbedded(within(t), nats.EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	b := broker.Connect(broker.Config{Name: "default/main", Open: server.Open,
		Resolve: func(context.Context) (driver.Config, error) { return driver.Config{ClientName: "test"}, nil }})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := errors.Join(b.Close(ctx), server.Shutdown(ctx)); err != nil {
			t.Error(err)
		}
	})
	if err := b.WaitReady(within(t)); err != nil {
		t.Fatal(err)
	}
	topic := driver.Ref{Kind: driver.Topic, Name: "default_orders"}
	admin, err := b.Admin(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []driver.Object{
		{Ref: topic, Owner: "Topic/default/orders"},
		{Ref: driver.Ref{Kind: driver.Group, Name: "billing", Of: topic.Name}, Owner: "Subscription/default/billing", Ordering: ordering,
			AckWait: 30 * time.Second, Start: driver.Start{Position: driver.Earliest}},
	} {
		if _, err := admin.Ensure(within(t), o); err != nil {
			t.Fatal(err)
		}
	}
	return b, driver.SourceSpec{Object: topic, Group: "billing", Ordering: ordering,
		Window: driver.Window{Messages: 256, Bytes: 1 << 20}, AckWait: 30 * time.Second}
}

func orders(from, to, keys int) []message.Message {
	var ms []message.Message
	for i := from; i < to; i++ {
		ms = append(ms, message.Message{ID: strconv.Itoa(i), Source: "/test", Type: "order", Key: "key-" + strconv.Itoa(i%keys), Data: []byte("{}")})
	}
	return ms
}

func get(t *testing.T, src driver.Source, n int) []driver.Delivery {
	t.Helper()
	var got []driver.Delivery
	buf := make([]driver.Delivery, n)
	for len(got) < n {
		k, err := src.Receive(within(t), buf[:n-len(got)])
		if err != nil {
			t.Fatal(err)
		}
		if k == 0 {
			t.Fatalf("received %d of %d", len(got), n)
		}
		got = append(got, buf[:k]...)
	}
	return got
}

func TestOrderedNATSSettlesInAnyOrder(t *testing.T) {
	b, spec := embedded(t, driver.Key)
	if errs := b.Publisher(spec.Object).Publish(within(t), orders(0, 10, 3)); errs != nil {
		t.Fatal(errs)
	}
	src, err := b.Source(within(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	ds := get(t, src, 10)
	var list []driver.Settlement
	for _, i := range []int{5, 1, 0, 2, 9} {
		list = append(list, driver.Settlement{D: &ds[i], Verb: driver.Done})
	}
	if errs := src.Settle(within(t), list); errs != nil {
		t.Fatal(errs)
	}
	if err := src.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	again, err := b.Source(within(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	if first := get(t, again, 1)[0]; first.Message.ID != "3" {
		t.Errorf("after 0, 1, 2, 5 and 9 were done it goes on at %s, want 3", first.Message.ID)
	}
	if errs := src.Settle(within(t), []driver.Settlement{{D: &ds[3]}}); len(errs) != 1 || !errors.Is(errs[0], driver.ErrStale) {
		t.Errorf("settling after Close: %v", errs)
	}
	if err := again.Close(within(t)); err != nil {
		t.Fatal(err)
	}
}

// Whoever handles only what the broker has taken must hear that another reader will get it too.
func TestFlushOfAFencedReaderIsStale(t *testing.T) {
	b, spec := embedded(t, driver.Key)
	if errs := b.Publisher(spec.Object).Publish(within(t), orders(0, 10, 3)); errs != nil {
		t.Fatal(errs)
	}
	fenced, err := b.Source(within(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	ds := get(t, fenced, 10)
	next, err := b.Source(within(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]driver.Settlement, len(ds))
	for i := range ds {
		list[i] = driver.Settlement{D: &ds[i], Verb: driver.Done}
	}
	if errs := fenced.Settle(within(t), list); errs != nil {
		t.Fatal(errs)
	}
	if err := fenced.(*broker.Source).Flush(within(t)); !errors.Is(err, driver.ErrStale) {
		t.Errorf("Flush of a reader that was replaced: %v", err)
	}
	get(t, next, 10)
	if err := errors.Join(fenced.Close(within(t)), next.Close(within(t))); err != nil {
		t.Fatal(err)
	}
}

// A flow over a real server, restarted again and again with little time to drain: nothing is lost, and each key's first deliveries are in order.
func TestFlowOverNATSAcrossRestarts(t *testing.T) {
	const total, keys = 3000, 50
	b, spec := embedded(t, driver.Key)
	published := make(chan []error, 1)
	go func() {
		var failed []error
		for i := 0; i < total; i += 100 {
			failed = append(failed, b.Publisher(spec.Object).Publish(t.Context(), orders(i, i+100, keys))...)
		}
		published <- failed
	}()
	seen := &ledger{next: map[string]int{}, first: map[int]bool{}, all: make(chan struct{}), want: total, mark: make(chan struct{}, 1)}
	for life := 0; ; life++ {
		f := flow.New(flow.Config{
			Name: "Subscription/default/billing",
			Open: func(ctx context.Context, revoke func(context.Context, []driver.Claim), lost func([]driver.Claim)) (driver.Source, error) {
				s := spec
				s.Revoke, s.Lost = revoke, lost
				return b.Source(ctx, s)
			},
			Stages: []flow.Stage{seen},
			Policy: flow.Policy{Ordering: driver.Key, MaxInFlight: 64, BatchSize: 16, Window: spec.Window, AckWait: spec.AckWait,
				Retry: flow.Retry{MaxAttempts: 5, Initial: time.Millisecond, Max: 10 * time.Millisecond, Multiplier: 2}, OnFailure: flow.Park},
		})
		ran := make(chan error, 1)
		go func() { ran <- f.Run(t.Context()) }()
		last := false
		select {
		case <-seen.mark: // some hundreds more were handled
		case <-seen.all:
			last = true
		case <-within(t).Done():
			t.Fatalf("%d of %d arrived: %+v", len(seen.first), total, f.Stats())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(life%3)*10*time.Millisecond)
		f.Drain(ctx)
		cancel()
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
		if last {
			t.Logf("%d lives, %d handlings of %d messages", life+1, seen.handled, total)
			break
		}
	}
	for _, err := range <-published {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, fault := range seen.faults {
		t.Error(fault)
	}
}

// A ledger is a sink that checks each key's order and fails now and then.
type ledger struct {
	mu      sync.Mutex
	next    map[string]int // of each key, the highest id that was stored
	first   map[int]bool
	handled int
	want    int
	all     chan struct{}
	mark    chan struct{}
	faults  []string
}

func (l *ledger) Process(_ context.Context, b *flow.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range b.Events {
		if b.Held(e.Input) {
			continue
		}
		l.handled++
		n, _ := strconv.Atoi(e.Message.ID)
		if l.handled%97 == 0 {
			b.Fail(e.Input, &flow.Fault{Blame: flow.Unreachable, Err: errors.New("connection refused")})
			continue
		}
		if l.first[n] {
			continue // a duplicate after a restart
		}
		if before, ok := l.next[e.Message.Key]; ok && n < before {
			l.faults = append(l.faults, fmt.Sprintf("%d of %s came first after %d", n, e.Message.Key, before))
		}
		l.next[e.Message.Key] = n
		l.first[n] = true
		if len(l.first)%300 == 0 {
			select {
			case l.mark <- struct{}{}:
			default:
			}
		}
		if len(l.first) == l.want {
			close(l.all)
		}
	}
}
