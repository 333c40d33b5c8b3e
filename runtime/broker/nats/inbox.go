package nats

import (
	"context"
	"fmt"
	"strings"
	"sync"

	natsgo "github.com/nats-io/nats.go"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// inboxBuffer is how many replies wait to be received; more are dropped, as all that nobody waits for.
const inboxBuffer = 4096

// replyPrefix is what the addresses of a namespace's inboxes begin with.
func replyPrefix(namespace string) (string, error) {
	if namespace == "" || strings.ContainsAny(namespace, " \t\r\n.*>") {
		return "", fmt.Errorf("namespace %q: %w: it cannot be part of an inbox's address", namespace, driver.ErrInvalid)
	}
	return "_WB." + namespace + ".", nil
}

type inbox struct {
	conn *conn
	sub  *natsgo.Subscription
	ch   chan *natsgo.Msg
	stop chan struct{}
	once sync.Once
}

// Inbox subscribes to an address of its own and returns when the server knows of it.
func (c *conn) Inbox(ctx context.Context, namespace string) (driver.Inbox, error) {
	start, err := replyPrefix(namespace)
	if err != nil {
		return nil, err
	}
	if _, err := c.online(); err != nil {
		return nil, err
	}
	in := &inbox{conn: c, ch: make(chan *natsgo.Msg, inboxBuffer), stop: make(chan struct{})}
	address := start + strings.TrimPrefix(natsgo.NewInbox(), natsgo.InboxPrefix)
	if in.sub, err = c.nc.ChanSubscribe(address, in.ch); err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	if err := c.flush(ctx); err != nil {
		_ = in.sub.Unsubscribe()
		return nil, fmt.Errorf("inbox: %w", err)
	}
	return in, nil
}

// flush returns when the server has worked off all that was sent before.
func (c *conn) flush(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, apiTimeout)
		defer cancel()
	}
	return c.nc.FlushWithContext(ctx)
}

func (in *inbox) Address() string { return in.sub.Subject }

func (in *inbox) Receive(ctx context.Context, into []message.Message) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	var m *natsgo.Msg
	select {
	case m = <-in.ch:
	case <-ctx.Done():
		return 0, nil
	case <-in.stop:
		return 0, driver.ErrDrained
	case <-in.conn.done:
		return 0, fmt.Errorf("inbox: %w", natsgo.ErrConnectionClosed)
	}
	var dec decoder
	for n := 0; ; {
		into[n] = message.Message{}
		dec.decode(&into[n], m, "reply", 0)
		if n++; n == len(into) {
			return n, nil
		}
		select {
		case m = <-in.ch:
		default:
			return n, nil
		}
	}
}

func (in *inbox) Close(context.Context) error {
	in.once.Do(func() {
		close(in.stop)
		_ = in.sub.Unsubscribe() // fails only when the connection is closed, which ends it too
	})
	return nil
}

// Reply publishes m to an inbox. The server says at once when nobody listens there.
func (c *conn) Reply(ctx context.Context, namespace, address string, m message.Message) error {
	start, err := replyPrefix(namespace)
	if err != nil {
		return err
	}
	rest, ok := strings.CutPrefix(address, start)
	if !ok || rest == "" || strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r == '*' || r == '>' || r == '.' || r > '~' }) {
		return fmt.Errorf("reply address: %w: it is no inbox of namespace %s", driver.ErrInvalid, namespace)
	}
	size, err := check(&m)
	if err != nil {
		return err
	}
	if room := c.features.MaxMessageBytes - size; len(m.Data) > room {
		return &driver.TooLargeError{Data: len(m.Data), Limit: max(room, 0)}
	}
	if _, err := c.online(); err != nil {
		return err
	}
	w, err := c.watch()
	if err != nil {
		return err
	}
	token := w.next()
	enc := newEncoder()
	enc.event(&m, false)
	s, err := c.gate.send(func() error {
		return c.nc.PublishMsg(&natsgo.Msg{Subject: address, Reply: token, Header: enc.header, Data: m.Data})
	})
	if err != nil {
		return err
	}
	return c.replied(ctx, s, w, token)
}

// replied says what became of a reply that was sent in s. The server works a connection off in order: if nobody listened, it said so before
// it answers the flush. An answer that came by another connection says nothing.
func (c *conn) replied(ctx context.Context, s *session, w *goneWatch, token string) error {
	err := c.flush(ctx)
	if err == nil && s.ctx.Err() != nil {
		err = errAway
	}
	switch {
	case w.gone(token):
		return driver.ErrGone
	case err != nil:
		return fmt.Errorf("%w: %w", driver.ErrUnknown, err)
	}
	return nil
}

// A goneWatch hears from the server that nobody listens at an address that was published to.
type goneWatch struct {
	prefix string
	ch     chan *natsgo.Msg

	mu     sync.Mutex
	count  uint64
	absent map[string]struct{}
}

func (c *conn) watch() (*goneWatch, error) {
	c.watchMu.Lock()
	defer c.watchMu.Unlock()
	if c.goneWatch != nil {
		return c.goneWatch, nil
	}
	w := &goneWatch{prefix: natsgo.NewInbox() + ".", ch: make(chan *natsgo.Msg, inboxBuffer), absent: make(map[string]struct{})}
	if _, err := c.nc.ChanSubscribe(w.prefix+"*", w.ch); err != nil {
		return nil, err
	}
	c.goneWatch = w
	return w, nil
}

func (w *goneWatch) next() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count++
	return w.prefix + fmt.Sprint(w.count)
}

// gone reports whether nobody listened, and forgets the token.
func (w *goneWatch) gone(token string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		select {
		case m := <-w.ch:
			if m.Header.Get("Status") == "503" {
				w.absent[m.Subject] = struct{}{}
			}
			continue
		default:
		}
		break
	}
	_, ok := w.absent[token]
	delete(w.absent, token)
	return ok
}
