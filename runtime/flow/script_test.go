package flow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A script is a broker on cue: messages in partitions, what became of each, and whatever fault a test asks for. It outlives the flows that
// read it, so that a test can restart them.
type script struct {
	mu      sync.Mutex
	msgs    []*record
	epochs  map[string]uint64 // of the partitions' claims
	closed  map[string]bool   // partitions that are being taken away
	changed chan struct{}
	out     int // given and not settled
	mostOut int
	faults  []string // what the flow must never do

	lease      time.Duration // deliveries have a deadline
	unfenced   bool          // settlements after the deadline are taken, as NATS does
	fetched    func()        // called between the fetch of deliveries and their return
	taken      func()        // called when claims were given up, before they come again
	openErr    func() error
	receiveErr func() error
	settleErr  func(r *record) error
	settles    []string
	extends    int
	source     *scriptSource // the open one
}

type record struct {
	m        message.Message
	part     string
	state    string // "", out, done
	epoch    uint64
	count    int
	deadline time.Time
	stored   time.Time // zero: this broker does not tell
}

func newScript() *script {
	return &script{epochs: map[string]uint64{}, closed: map[string]bool{}, changed: make(chan struct{})}
}

func (s *script) notify() { close(s.changed); s.changed = make(chan struct{}) }

// add publishes messages; a key is what stands before the digit of an id, "-" for none.
func (s *script) add(ids ...string) {
	var ms []message.Message
	for _, id := range ids {
		ms = append(ms, message.Message{ID: id, Source: "/test", Type: "test", Key: keyOf(id), Data: []byte(id)})
	}
	s.publish(ms...)
}

func keyOf(id string) string { return strings.TrimRight(strings.TrimLeft(id, "-"), "0123456789") }

func (s *script) publish(ms ...message.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range ms {
		s.msgs = append(s.msgs, &record{m: m})
	}
	s.notify()
}

func (s *script) open(ctx context.Context, revoke func(context.Context, []driver.Claim), lost func([]driver.Claim)) (driver.Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.openErr != nil {
		if err := s.openErr(); err != nil {
			return nil, err
		}
	}
	if s.source != nil {
		s.faults = append(s.faults, "a source was opened while another was open")
	}
	s.source = &scriptSource{s: s, revoke: revoke, lost: lost}
	for part := range s.epochs {
		s.epochs[part]++ // whoever had them before settles nothing any more
	}
	return s.source, nil
}

// regain gives partitions again, with higher epochs; what was out comes again, in order.
func (s *script) regain(parts ...string) {
	for _, p := range parts {
		s.epochs[p]++
	}
	for _, r := range s.msgs {
		if r.state == "out" && slices.Contains(parts, r.part) {
			s.back(r)
		}
	}
	s.notify()
}

func (s *script) back(r *record) {
	r.state = ""
	s.out--
}

// lose takes claims away without a warning.
func (s *script) lose(parts ...string) {
	s.mu.Lock()
	src := s.source
	var claims []driver.Claim
	for _, p := range parts {
		claims = append(claims, driver.Claim{Name: p, Epoch: s.epochs[p]})
	}
	s.regain(parts...)
	s.mu.Unlock()
	if src != nil {
		src.lost(claims)
	}
}

// take revokes claims and gives them again.
func (s *script) take(ctx context.Context, parts ...string) {
	s.mu.Lock()
	src := s.source
	var claims []driver.Claim
	for _, p := range parts {
		claims = append(claims, driver.Claim{Name: p, Epoch: s.epochs[p]})
		s.closed[p] = true
	}
	s.mu.Unlock()
	if src != nil {
		src.revoke(ctx, claims)
	}
	if s.taken != nil {
		s.taken()
	}
	s.mu.Lock()
	clear(s.closed)
	s.regain(parts...)
	s.mu.Unlock()
}

// undone is what is not settled yet.
func (s *script) undone() (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.msgs {
		if r.state != "done" {
			ids = append(ids, r.m.ID)
		}
	}
	return ids
}

func (s *script) given() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out
}

func (s *script) settled() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.settles)
}

type scriptSource struct {
	s      *script
	revoke func(context.Context, []driver.Claim)
	lost   func([]driver.Claim)
	over   bool
	drain  bool
}

func (*scriptSource) Settling() driver.Settling { return driver.PerMessage }

func (c *scriptSource) Receive(ctx context.Context, into []driver.Delivery) (int, error) {
	s := c.s
	for {
		s.mu.Lock()
		if s.receiveErr != nil {
			if err := s.receiveErr(); err != nil {
				s.mu.Unlock()
				return 0, err
			}
		}
		n := 0
		for _, r := range s.msgs {
			if c.drain || n == len(into) {
				break
			}
			if r.state == "out" && !r.deadline.IsZero() && time.Now().After(r.deadline) {
				s.back(r)
			}
			if r.state != "" || s.closed[r.part] {
				continue
			}
			r.state = "out"
			r.count++
			r.epoch = s.epochs[r.part]
			s.out++
			if len(s.closed) == 0 { // what is being taken away is out here and forgotten there
				s.mostOut = max(s.mostOut, s.out)
			}
			if s.lease > 0 {
				r.deadline = time.Now().Add(s.lease)
			}
			into[n] = driver.Delivery{
				Message: r.m, Claim: driver.Claim{Name: r.part, Epoch: r.epoch}, Count: r.count, Deadline: r.deadline, Stored: r.stored, Ref: [2]any{r, r.count},
			}
			n++
		}
		changed, fetched := s.changed, s.fetched
		s.mu.Unlock()
		if n > 0 {
			if fetched != nil {
				fetched()
			}
			return n, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, nil
		}
	}
}

// ours is the record of a delivery that is still valid.
func (c *scriptSource) ours(d *driver.Delivery) (*record, error) {
	ref := d.Ref.([2]any)
	r := ref[0].(*record)
	if c.over || r.state != "out" || r.count != ref[1] || d.Claim.Epoch != c.s.epochs[r.part] ||
		!c.s.unfenced && !r.deadline.IsZero() && (time.Now().After(r.deadline) || time.Now().After(d.Deadline)) {
		return r, driver.ErrStale // by the delivery's own word too, as the NATS driver goes by it
	}
	return r, nil
}

func (c *scriptSource) Settle(_ context.Context, list []driver.Settlement) []error {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, len(list))
	for i := range list {
		r, err := c.ours(list[i].D)
		if err == nil && s.settleErr != nil {
			if err = s.settleErr(r); errors.Is(err, driver.ErrStale) {
				s.back(r)
				s.notify()
			}
		}
		if errs[i] = err; err != nil {
			continue
		}
		s.out--
		r.state = "done"
		s.settles = append(s.settles, r.m.ID)
	}
	return errs
}

func (c *scriptSource) Extend(_ context.Context, ds []*driver.Delivery) []error {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, len(ds))
	for i, d := range ds {
		r, err := c.ours(d)
		if errs[i] = err; err == nil {
			r.deadline = time.Now().Add(s.lease)
			d.Deadline = r.deadline
			s.extends++
		}
	}
	return errs
}

func (c *scriptSource) Drain() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.drain = true
}

func (c *scriptSource) Close(context.Context) error {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	c.over = true
	s.source = nil
	for _, r := range s.msgs {
		if r.state == "out" {
			s.back(r)
		}
	}
	s.notify()
	return nil
}

// A sink is a stage that ends each message as a test says, and notes order and overlap.
type sink struct {
	handle func(ctx context.Context, id string, attempt int) error // nil: all is well

	mu       sync.Mutex
	tries    []string // every handling, in order
	stored   []string
	busy     map[string]int
	overlaps []string
	strict   bool
	batches  []int
}

func (k *sink) Process(ctx context.Context, b *Batch) {
	k.mu.Lock()
	k.batches = append(k.batches, len(b.Inputs))
	k.mu.Unlock()
	for _, e := range b.Events {
		if b.Held(e.Input) {
			continue
		}
		id := e.Message.ID
		key := e.Message.Key
		if k.strict {
			key = "*"
		}
		if err := k.one(ctx, id, key, b.Inputs[e.Input].Attempt); err != nil {
			b.Fail(e.Input, err)
		}
	}
}

func (k *sink) one(ctx context.Context, id, key string, attempt int) (err error) {
	k.enter(id, key)
	panicked := true
	defer func() { k.leave(id, key, err == nil && !panicked) }()
	if k.handle != nil {
		err = k.handle(ctx, id, attempt)
	}
	panicked = false
	return err
}

func (k *sink) enter(id, key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tries = append(k.tries, id)
	if key == "" {
		return
	}
	if k.busy == nil {
		k.busy = map[string]int{}
	}
	if k.busy[key]++; k.busy[key] > 1 {
		k.overlaps = append(k.overlaps, id)
	}
}

func (k *sink) leave(id, key string, well bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key != "" {
		k.busy[key]--
	}
	if well {
		k.stored = append(k.stored, id)
	}
}

func (k *sink) count(id string) (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.tries {
		if t == id {
			n++
		}
	}
	return n
}

func (k *sink) total() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.tries)
}

func (k *sink) got() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.stored, " ")
}

// A grave is the dead letter.
type grave struct {
	mu   sync.Mutex
	ms   []message.Message
	fail func() error
}

func (g *grave) Publish(_ context.Context, ms []message.Message) []error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fail != nil {
		if err := g.fail(); err != nil {
			errs := make([]error, len(ms))
			for i := range errs {
				errs[i] = err
			}
			return errs
		}
	}
	g.ms = append(g.ms, ms...)
	return nil
}

func (g *grave) ids() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for _, m := range g.ms {
		out = append(out, m.ID)
	}
	return strings.Join(out, " ")
}

// A rig is one flow over a script.
type rig struct {
	t      *testing.T
	script *script
	sink   *sink
	grave  *grave
	log    bytes.Buffer // read it when all is quiet
	cfg    Config
	flow   *Flow
	ended  chan error
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, script: newScript(), sink: &sink{}, grave: &grave{}}
	r.cfg = Config{
		Name: "Subscription/default/billing", Open: r.script.open, Stages: []Stage{r.sink}, DeadLetter: r.grave,
		Policy: Policy{
			Ordering: driver.Key, MaxInFlight: 8, BatchSize: 1, Window: driver.Window{Messages: 100, Bytes: 1 << 20}, AckWait: 30 * time.Second,
			Retry: Retry{MaxAttempts: 3, Initial: time.Second, Max: time.Minute, Multiplier: 2}, OnFailure: Park, WhenExpired: Drop,
		},
	}
	r.cfg.Log = slog.New(slog.NewTextHandler(&r.log, nil))
	return r
}

func (r *rig) start() {
	r.flow = New(r.cfg)
	r.ended = make(chan error, 1)
	flow, ended := r.flow, r.ended
	go func() { ended <- flow.Run(context.Background()) }()
}

func (r *rig) drain(d time.Duration) Drained {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	got := r.flow.Drain(ctx)
	if err := <-r.ended; err != nil {
		r.t.Errorf("Run: %v", err)
	}
	return got
}

type ending struct {
	id string
	Settled
}

// listen notes what the flow tells of.
func (r *rig) listen() func() []ending {
	var mu sync.Mutex
	var told []ending
	r.cfg.Settled = func(_ context.Context, list []Settled) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range list {
			told = append(told, ending{s.Delivery.Message.ID, s})
		}
	}
	return func() []ending {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(told)
	}
}

// after lets d pass and everything settle.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// check asserts what holds in every test.
func (r *rig) check() {
	r.t.Helper()
	if len(r.sink.overlaps) > 0 {
		r.t.Errorf("two of one key were in handling at once: %v", r.sink.overlaps)
	}
	if r.script.mostOut > r.cfg.Policy.Window.Messages {
		r.t.Errorf("%d messages were held; the window is %d", r.script.mostOut, r.cfg.Policy.Window.Messages)
	}
	for _, f := range r.script.faults {
		r.t.Error(f)
	}
}

// bubble runs a test in fake time on a rig that is drained at the end.
func bubble(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		test(t, r)
		if r.flow != nil && len(r.ended) == 0 && !r.flow.Stats().over() {
			r.drain(time.Minute)
		}
		r.check()
	})
}

func (s Stats) over() bool { return s.State == Stopped || s.State == PositionLost }

var (
	errDown    = errors.New("HTTP 500")
	poison     = &Fault{Blame: Message, Err: errors.New("HTTP 422: total is missing")}
	refused    = &Fault{Blame: Unreachable, Err: errors.New("connection refused")}
	nowhere404 = &Fault{Blame: Address, Err: errors.New("HTTP 404")}
)

func numbered(key string, n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("%s%d", key, i))
	}
	return ids
}
