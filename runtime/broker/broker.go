package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

var (
	// ErrAway is in every error that is returned because no session was there in time.
	ErrAway = errors.New("the broker is away")
	// ErrNotYet is in the same error while no dial has ended yet: it may well be there.
	ErrNotYet = errors.New("not connected yet")
	// ErrHeld is in the error of a message that was not published because an earlier one of its key, in the same call, failed for good. It
	// wraps driver.ErrHeldBack.
	ErrHeld = fmt.Errorf("not published: %w", driver.ErrHeldBack)
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the broker connection was closed")
)

// Config says how to reach one broker.
type Config struct {
	// Name of the Broker, for logs and errors.
	Name string
	Open driver.Open
	// Resolve gives addresses and secrets. It is asked before each dial, so that a rotated secret is used by the next session.
	Resolve func(context.Context) (driver.Config, error)
	Log     *slog.Logger
}

// A Broker is a connection that is always being kept: one session to publish and one to consume, each dialled again for ever. It is safe
// for concurrent use.
type Broker struct {
	cfg     Config
	log     *slog.Logger
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup
	publish *session
	consume *session

	mu         sync.Mutex
	publishers map[driver.Ref]*Publisher
	closed     bool
}

// Connect dials in the background and returns at once.
func Connect(cfg Config) *Broker {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{cfg: cfg, log: log.With("broker", cfg.Name), publishers: map[driver.Ref]*Publisher{}}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.publish = newSession(b, "publish")
	b.consume = newSession(b, "consume")
	b.work.Go(b.publish.run)
	b.work.Go(b.consume.run)
	return b
}

// Stored counts the messages that were stored on an object through this Broker.
func (b *Broker) Stored(ref driver.Ref) uint64 {
	b.mu.Lock()
	p := b.publishers[ref]
	b.mu.Unlock()
	if p == nil {
		return 0
	}
	return p.stored.Load()
}

// Publisher writes to one object. It is cheap: the driver's publisher is opened by the first Publish, again after a lost session, and
// shared by all callers that name the same object.
func (b *Broker) Publisher(ref driver.Ref) *Publisher {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.publishers[ref]
	if p == nil {
		p = &Publisher{b: b, ref: ref, opening: make(chan struct{}, 1)}
		b.publishers[ref] = p
	}
	return p
}

// Settler settles leases from anywhere; nil where the broker cannot, and while no session is there.
func (b *Broker) Settler() driver.Settler {
	if conn := b.consume.current(); conn != nil {
		return conn.Settler()
	}
	return nil
}

// Inbox opens an inbox under namespace's reply prefix. It lives as long as the session: when its Receive fails, open another.
func (b *Broker) Inbox(ctx context.Context, namespace string) (driver.Inbox, error) {
	conn, _, err := b.consume.get(ctx)
	if err != nil {
		return nil, err
	}
	return conn.Inbox(ctx, namespace)
}

// Reply sends m to an inbox and tries again while ctx lives, but for an address that is forged (driver.ErrInvalid) or that nobody listens
// at any more (driver.ErrGone).
func (b *Broker) Reply(ctx context.Context, namespace, address string, m message.Message) error {
	wait := backoff{first: firstRetry, last: lastRetry}
	for {
		conn, _, err := b.publish.get(ctx)
		if err != nil {
			return err
		}
		if err = conn.Reply(ctx, namespace, address, m); err == nil || errors.Is(err, driver.ErrGone) {
			return err
		}
		again, after := passing(conn, err)
		if !again || !sleep(ctx, wait.pause(after)) {
			return err
		}
	}
}

// Admin acts on the broker's objects. What it returns lives as long as the session: ask for it before each use.
func (b *Broker) Admin(ctx context.Context) (driver.Admin, error) {
	conn, _, err := b.publish.get(ctx)
	if err != nil {
		return nil, err
	}
	return conn.Admin(), nil
}

// Features are what the last session's probe found; false before the first session.
func (b *Broker) Features() (driver.Features, bool) {
	if conn := b.publish.last(); conn != nil {
		return conn.Features(), true
	}
	return driver.Features{}, false
}

// Away is nil while both sessions are there, else why one is not: it names the addresses, never a secret.
func (b *Broker) Away() error { return errors.Join(b.publish.why(), b.consume.why()) }

// WaitReady returns when both sessions are there, or an error that says why they are not when ctx ends.
func (b *Broker) WaitReady(ctx context.Context) error {
	if _, _, err := b.publish.get(ctx); err != nil {
		return err
	}
	_, _, err := b.consume.get(ctx)
	return err
}

// Class says what kind of failure err is.
func (b *Broker) Class(err error) driver.Class {
	if errors.Is(err, ErrAway) || errors.Is(err, ErrHeld) {
		return driver.Transient
	}
	return classify(b.publish.last(), err)
}

// Refresh opens new sessions with what Resolve gives now and, once they are there, closes the old ones: for a rotated secret. Where that
// fails the old sessions stay and the error says why.
func (b *Broker) Refresh(ctx context.Context) error {
	return errors.Join(b.publish.refresh(ctx), b.consume.refresh(ctx))
}

// Close closes publishers, then the sessions. Sources are closed by whoever opened them, before.
func (b *Broker) Close(ctx context.Context) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	var errs []error
	for _, p := range b.publishers {
		errs = append(errs, p.close(ctx))
	}
	b.mu.Unlock()
	b.cancel()
	b.work.Wait()
	errs = append(errs, b.consume.close(ctx), b.publish.close(ctx))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing broker %s: %w", b.cfg.Name, err)
	}
	return nil
}

// later does f in its own time, but before Close returns.
func (b *Broker) later(f func()) {
	b.mu.Lock()
	closed := b.closed
	if !closed {
		b.work.Go(f)
	}
	b.mu.Unlock()
	if closed {
		f()
	}
}

// classify asks the driver, and judges by the portable errors where there was no session yet.
func classify(conn driver.Conn, err error) driver.Class {
	if conn != nil {
		return conn.Class(err)
	}
	for _, c := range []struct {
		err   error
		class driver.Class
	}{
		{driver.ErrStale, driver.Stale}, {driver.ErrDrained, driver.Drained}, {driver.ErrTooLarge, driver.TooLarge},
		{driver.ErrMissing, driver.Missing}, {driver.ErrConflict, driver.Conflict}, {driver.ErrInvalid, driver.Invalid},
		{driver.ErrFull, driver.Full}, {driver.ErrUnsupported, driver.Invalid},
	} {
		if errors.Is(err, c.err) {
			return c.class
		}
	}
	return driver.Transient
}

// passing reports whether err may pass by itself, and how long the broker asked us to wait.
func passing(conn driver.Conn, err error) (bool, time.Duration) {
	if errors.Is(err, driver.ErrUnknown) {
		return true, 0
	}
	switch conn.Class(err) {
	case driver.Transient, driver.Throttled:
		return true, pauseOf(err)
	}
	return false, 0
}

func pauseOf(err error) time.Duration {
	if t, ok := errors.AsType[*driver.ThrottledError](err); ok {
		return t.After
	}
	return 0
}
