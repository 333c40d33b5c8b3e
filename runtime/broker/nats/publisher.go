package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// Publisher opens one for a Topic or Queue, which must exist.
func (c *conn) Publisher(ctx context.Context, s driver.PublisherSpec) (driver.Publisher, error) {
	if s.Object.Kind == driver.Group {
		return nil, fmt.Errorf("publisher of %s: %w: a group cannot be published to", s.Object.Name, driver.ErrInvalid)
	}
	info, err := c.streamInfo(ctx, s.Object.Name)
	if err != nil {
		return nil, err
	}
	subject, err := publishSubject(&info.Config)
	if err != nil {
		return nil, err
	}
	answers, err := c.newAnswers()
	if err != nil {
		return nil, fmt.Errorf("publisher of %s: %w", s.Object.Name, err)
	}
	p := &publisher{
		conn:    c,
		stream:  s.Object.Name,
		subject: subject,
		atomic:  c.features.AtomicBatch && info.Config.AllowAtomicPublish,
		answers: answers,
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
	}
	go p.run()
	return p, nil
}

// publishSubject is the first subject of a stream that a message can be published to.
func publishSubject(cfg *jetstream.StreamConfig) (string, error) {
	for _, s := range cfg.Subjects {
		if !strings.ContainsAny(s, "*>") {
			return s, nil
		}
	}
	return "", fmt.Errorf("stream %s: %w: none of its subjects %q is free of wildcards, so there is none to publish to", cfg.Name, driver.ErrConflict, cfg.Subjects)
}

// publisher gathers what its callers give it and sends it together. While one batch is on its way the next gathers, so that callers share
// the server's disk syncs and round trips without anyone waiting for a timer.
type publisher struct {
	conn    *conn
	stream  string
	subject string
	atomic  bool
	answers *answers

	mu     sync.Mutex
	queue  []*call
	closed bool

	wake    chan struct{}
	stop    chan struct{}
	stopped chan struct{}
}

// A call is one Publish. It belongs to the caller until it is taken from the queue, to the collector until done is closed.
type call struct {
	ms    []message.Message // our own slice: the caller may use its own again when its context has ended, while the collector still sends
	sizes []int             // of headers and data
	errs  []error
	taken bool // under publisher.mu
	done  chan struct{}
	// abandoned is set when nobody waits for the answer any more: what has not been sent by then is not sent.
	abandoned atomic.Bool
}

func (p *publisher) Publish(ctx context.Context, ms []message.Message) []error {
	if len(ms) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return all(len(ms), err)
	}
	if _, err := p.conn.online(); err != nil {
		return all(len(ms), err)
	}
	c := &call{ms: slices.Clone(ms), sizes: make([]int, len(ms)), errs: make([]error, len(ms)), done: make(chan struct{})}
	for i := range ms {
		size, err := check(&ms[i])
		if size += len(ms[i].Data); err == nil && size > p.conn.features.MaxMessageBytes {
			err = fmt.Errorf("%w: %d bytes with headers, the server takes %d", driver.ErrTooLarge, size, p.conn.features.MaxMessageBytes)
		}
		c.sizes[i], c.errs[i] = size, err
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return all(len(ms), errPublisherClosed)
	}
	p.queue = append(p.queue, c)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	select {
	case <-c.done:
		return c.errs
	case <-ctx.Done():
	}
	p.mu.Lock()
	taken := c.taken
	if !taken {
		for i := range p.queue {
			if p.queue[i] == c {
				p.queue = append(p.queue[:i], p.queue[i+1:]...)
				break
			}
		}
	}
	p.mu.Unlock()
	if !taken {
		return all(len(ms), ctx.Err())
	}
	select {
	case <-c.done: // it finished meanwhile
		return c.errs
	default:
		c.abandoned.Store(true)
		return all(len(ms), fmt.Errorf("%w: %w", driver.ErrUnknown, ctx.Err()))
	}
}

var errPublisherClosed = errors.New("the publisher is closed")

// Close lets what was given finish, and ends with ctx at the latest.
func (p *publisher) Close(ctx context.Context) error {
	p.shut()
	select {
	case <-p.stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// shut takes no more calls.
func (p *publisher) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(p.stop)
	}
}

// run is the collector. It ends with its connection, if nobody closes it before.
func (p *publisher) run() {
	defer close(p.stopped)
	defer p.answers.close()
	s := &sender{p: p, enc: newEncoder()}
	for {
		p.mu.Lock()
		calls := p.queue
		p.queue = nil
		for _, c := range calls {
			c.taken = true
		}
		closed := p.closed
		p.mu.Unlock()
		if len(calls) > 0 {
			s.send(calls)
			for _, c := range calls {
				close(c.done)
			}
			continue
		}
		if closed {
			return
		}
		select {
		case <-p.wake:
		case <-p.stop:
		case <-p.conn.done:
			p.shut()
		}
	}
}

func all(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// streamInfo is what the server says of a stream; ErrMissing when there is none.
func (c *conn) streamInfo(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	if err := validStream(name); err != nil {
		return nil, err
	}
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, missing("stream "+name, err)
	}
	return s.CachedInfo(), nil
}

// validStream refuses names that would become another API subject.
func validStream(name string) error {
	if name == "" || strings.ContainsAny(name, " \t\r\n.*>/\\") {
		return fmt.Errorf("name %q: %w: NATS takes no empty name and none with spaces, dots, wildcards or slashes", name, driver.ErrInvalid)
	}
	return nil
}

// replied reads what a stream answered a publish with. That a message was there already is as good as that it is there now.
func replied(m *natsgo.Msg) (pubAck, error) {
	ack, err := parseAck(m.Data)
	if err != nil {
		return ack, fmt.Errorf("%w: the server's answer cannot be read: %w", driver.ErrUnknown, err)
	}
	if ack.Error != nil {
		return ack, ack.Error
	}
	return ack, nil
}
