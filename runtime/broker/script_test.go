package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a scripted broker: a log a claim that outlives sessions, and faults on cue.
type server struct {
	mu       sync.Mutex
	dials    int
	refuse   error // of Open
	conns    []*scriptConn
	stored   []message.Message
	publish  func(ms []message.Message) []error // nil: store all
	settling driver.Settling
	log      []driver.Delivery
	next     int // next to be given out
	position int64
	commits  []int64
	commit   func(position int64) error
	settled  []int64
	taking   func([]driver.Settlement) []error // of Settle, instead of what it does; it may block
	receive  func() error                      // an error instead of deliveries
	wake     chan struct{}
	closed   int // publishers
	lost     func([]driver.Claim)
}

func newServer(settling driver.Settling) *server {
	return &server{settling: settling, wake: make(chan struct{}), position: -1}
}

func (s *server) add(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		p := int64(len(s.log))
		s.log = append(s.log, driver.Delivery{Position: p, Ref: p, Message: message.Message{ID: fmt.Sprint(p)}})
	}
	s.changed()
}

func (s *server) changed() { close(s.wake); s.wake = make(chan struct{}) }

func (s *server) open(ctx context.Context, cfg driver.Config) (driver.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials++
	if s.refuse != nil {
		return nil, s.refuse
	}
	c := &scriptConn{s: s, done: make(chan struct{})}
	s.conns = append(s.conns, c)
	return c, nil
}

// cut ends all sessions.
func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.once.Do(func() { close(c.done) })
	}
	s.conns = nil
	s.changed()
}

type scriptConn struct {
	s    *server
	done chan struct{}
	once sync.Once
}

var errCut = errors.New("the session is gone")

func (c *scriptConn) gone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *scriptConn) Features() driver.Features { return driver.Features{Server: "script"} }
func (c *scriptConn) Publisher(context.Context, driver.PublisherSpec) (driver.Publisher, error) {
	return scriptPublisher{c}, nil
}
func (c *scriptConn) Settler() driver.Settler { return nil }
func (c *scriptConn) Inbox(context.Context, string) (driver.Inbox, error) {
	return nil, driver.ErrUnsupported
}
func (c *scriptConn) Reply(context.Context, string, string, message.Message) error { return nil }
func (c *scriptConn) Admin() driver.Admin                                          { return nil }
func (c *scriptConn) Class(err error) driver.Class                                 { return classify(nil, err) }
func (c *scriptConn) Done() <-chan struct{}                                        { return c.done }
func (c *scriptConn) Close(context.Context) error {
	c.once.Do(func() { close(c.done) })
	return nil
}

type scriptPublisher struct{ c *scriptConn }

func (p scriptPublisher) Publish(ctx context.Context, ms []message.Message) []error {
	s := p.c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.c.gone() {
		return all(len(ms), errCut)
	}
	var errs []error
	if s.publish != nil {
		errs = s.publish(ms)
	}
	for i, m := range ms {
		if errs == nil || errs[i] == nil {
			s.stored = append(s.stored, m)
		}
	}
	return errs
}
func (p scriptPublisher) Close(context.Context) error {
	p.c.s.mu.Lock()
	defer p.c.s.mu.Unlock()
	p.c.s.closed++
	return nil
}

func (c *scriptConn) Source(_ context.Context, spec driver.SourceSpec) (driver.Source, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.next = int(c.s.position) + 1
	c.s.lost = spec.Lost
	return &scriptSource{c: c, spec: spec}, nil
}

type scriptSource struct {
	c    *scriptConn
	spec driver.SourceSpec
}

func (r *scriptSource) Settling() driver.Settling { return r.c.s.settling }

func (r *scriptSource) Receive(ctx context.Context, into []driver.Delivery) (int, error) {
	s := r.c.s
	for {
		s.mu.Lock()
		if r.c.gone() {
			s.mu.Unlock()
			return 0, errCut
		}
		if s.receive != nil {
			if err := s.receive(); err != nil {
				s.mu.Unlock()
				return 0, err
			}
		}
		n := copy(into, s.log[s.next:])
		s.next += n
		wake := s.wake
		s.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return 0, nil
		}
	}
}

func (r *scriptSource) Settle(_ context.Context, list []driver.Settlement) []error {
	s := r.c.s
	if s.taking != nil {
		return s.taking(list)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, len(list))
	for i, l := range list {
		switch {
		case r.c.gone():
			errs[i] = errCut
		case l.D.Claim != driver.Claim{}:
			errs[i] = fmt.Errorf("settled under claim %v", l.D.Claim)
		case l.D.Ref != l.D.Position:
			errs[i] = fmt.Errorf("settled position %d with the reference of %v", l.D.Position, l.D.Ref)
		case s.settling == driver.PerMessage:
			s.settled = append(s.settled, l.D.Position)
		default:
			if s.commit != nil {
				if errs[i] = s.commit(l.D.Position); errs[i] != nil {
					continue
				}
			}
			s.commits = append(s.commits, l.D.Position)
			s.position = l.D.Position
		}
	}
	return errs
}
func (r *scriptSource) Extend(_ context.Context, ds []*driver.Delivery) []error { return nil }
func (r *scriptSource) Drain()                                                  {}
func (r *scriptSource) Close(context.Context) error                             { return nil }

func connect(t *testing.T, s *server, cfg driver.Config) *Broker {
	t.Helper()
	b := Connect(Config{Name: "default/main", Open: s.open, Resolve: func(context.Context) (driver.Config, error) { return cfg, nil }})
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}
