// Package nats is the driver for NATS JetStream, on a server elsewhere (Open) or inside this process (StartEmbedded).
//
// How the driver's words map onto the server:
//
//	Topic                a stream with retention limits; its one subject is its name
//	Queue, None          a work-queue stream that refuses what does not fit, read by a durable consumer
//	Queue, Strict        the same with one message out at a time, so that a released message is still the first
//	Queue, Key           a stream read by a cursor of our own; what lies before the cursor is purged
//	Group, None          a durable consumer of the topic's stream
//	Group, Key, Strict   a cursor of our own
//
// A cursor (cursor.go) is a record in a stream of its own, written with the sequence that the last write got: two readers of one position
// cannot both go on, which JetStream's own consumers do not promise after a crash. Where order matters not, consumers do the counting.
package nats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

const (
	dedupWindow = 2 * time.Minute
	// connectTimeout bounds one attempt to connect where the context allows more.
	connectTimeout = 5 * time.Second
	// apiTimeout bounds one administrative request where the context allows more.
	apiTimeout = 5 * time.Second
)

// Open connects to the servers in cfg.Addresses ("nats://host:port", "tls://…", or host:port).
func Open(ctx context.Context, cfg driver.Config) (driver.Conn, error) {
	if len(cfg.Addresses) == 0 {
		return nil, fmt.Errorf("nats: no server address was given: %w", driver.ErrInvalid)
	}
	return open(ctx, cfg, nil)
}

type conn struct {
	nc        *natsgo.Conn
	js        jetstream.JetStream
	apiPrefix string
	features  driver.Features
	done      chan struct{}

	gate *gate

	// mu is taken while nats.go holds its own lock (see gate): nothing of nats.go may be called under it.
	mu      sync.Mutex
	session *session      // replaced at each reconnect
	renewed chan struct{} // closed and replaced at each reconnect

	watchMu   sync.Mutex
	goneWatch *goneWatch // made with the first Reply

	batchIDs atomic.Uint64
	batchID  string // prefix, unique to this connection
}

// A session is one unbroken connection: what was sent on it and not answered when it ends has an unknown fate.
type session struct {
	ctx context.Context
	end context.CancelFunc
}

// open connects within the process where inProcess is given.
func open(ctx context.Context, cfg driver.Config, inProcess natsgo.InProcessConnProvider) (driver.Conn, error) {
	c := &conn{done: make(chan struct{})}
	c.session, c.renewed = newSession(), make(chan struct{})
	c.session.end() // until there is a connection
	timeout := connectTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	opts := natsgo.GetDefaultOptions()
	opts.Servers = cfg.Addresses
	opts.Name = cfg.ClientName
	opts.Timeout = timeout
	opts.User, opts.Password, opts.Token = cfg.Username, cfg.Password, cfg.Token
	opts.MaxReconnect = -1
	opts.ReconnectWait = 100 * time.Millisecond
	opts.ReconnectJitter, opts.ReconnectJitterTLS = 100*time.Millisecond, 200*time.Millisecond
	opts.CustomReconnectDelayCB = reconnectDelay
	// Nothing is kept for a server that is away: a message sent after the reconnect must not overtake one that was lost before it.
	opts.ReconnectBufSize = -1
	opts.PingInterval, opts.MaxPingsOut = 20*time.Second, 2
	opts.IgnoreAuthErrorAbort = true // a credential may be rotated on the server first
	opts.DisconnectedErrCB = func(*natsgo.Conn, error) { c.endSession() }
	opts.ReconnectedCB = func(*natsgo.Conn) { c.beginSession() }
	opts.AsyncErrorCB = func(*natsgo.Conn, *natsgo.Subscription, error) {}
	opts.ClosedCB = func(*natsgo.Conn) { c.endSession(); close(c.done) }
	if cfg.TLS != nil {
		opts.Secure, opts.TLSConfig = true, cfg.TLS.Clone()
	}
	if len(cfg.Credentials) > 0 {
		if err := natsgo.UserCredentialBytes(cfg.Credentials)(&opts); err != nil {
			return nil, fmt.Errorf("nats: the credentials file cannot be used: %w", err)
		}
	}
	c.gate = &gate{conn: c, dial: &net.Dialer{Timeout: timeout}, in: inProcess}
	if inProcess != nil {
		opts.InProcessServer = c.gate
	} else {
		opts.CustomDialer = c.gate
	}
	type dialled struct {
		nc  *natsgo.Conn
		err error
	}
	result := make(chan dialled, 1)
	go func() {
		nc, err := opts.Connect()
		result <- dialled{nc, err}
	}()
	select {
	case r := <-result:
		if r.err != nil {
			return nil, fmt.Errorf("nats: cannot connect: %w", r.err)
		}
		c.nc = r.nc
		c.beginSession()
	case <-ctx.Done():
		go func() {
			if r := <-result; r.nc != nil {
				r.nc.Close()
			}
		}()
		return nil, fmt.Errorf("nats: cannot connect: %w", ctx.Err())
	}
	if err := c.probe(ctx, cfg.JetStreamDomain); err != nil {
		c.nc.Close()
		return nil, err
	}
	return c, nil
}

// reconnectDelay grows from 50 ms to 2 s; attempts counts tours through the whole list of servers.
func reconnectDelay(attempts int) time.Duration {
	return min(50*time.Millisecond<<min(attempts, 6), 2*time.Second)
}

func (c *conn) probe(ctx context.Context, domain string) error {
	var err error
	c.apiPrefix = "$JS.API."
	if domain == "" {
		c.js, err = jetstream.New(c.nc, jetstream.WithDefaultTimeout(apiTimeout))
	} else {
		c.apiPrefix = "$JS." + domain + ".API."
		c.js, err = jetstream.NewWithDomain(c.nc, domain, jetstream.WithDefaultTimeout(apiTimeout))
	}
	if err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	if _, err = c.js.AccountInfo(ctx); err != nil {
		if errors.Is(err, natsgo.ErrNoResponders) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
			return fmt.Errorf("nats: JetStream does not answer on this server and account; enable it or check jetStreamDomain: %w", err)
		}
		return fmt.Errorf("nats: JetStream does not answer: %w", err)
	}
	version := c.nc.ConnectedServerVersion()
	major, minor := majorMinor(version)
	c.batchID = natsgo.NewInbox()[len(natsgo.InboxPrefix)+10:] // the changing end of it
	c.features = driver.Features{
		Server:          "nats",
		Version:         version,
		MaxMessageBytes: int(c.nc.MaxPayload()),
		DedupWindow:     dedupWindow,
		AtomicBatch:     major > 2 || major == 2 && minor >= 12,
		NativeDelay:     true,
		Counts:          true,
	}
	return nil
}

func majorMinor(version string) (int, int) {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return 0, 0
	}
	major, _ := strconv.Atoi(parts[0])
	minor, _ := strconv.Atoi(parts[1])
	return major, minor
}

func newSession() *session {
	ctx, cancel := context.WithCancel(context.Background())
	return &session{ctx, cancel}
}

func (c *conn) endSession() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session.end()
}

func (c *conn) beginSession() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session.end()
	c.session = newSession()
	close(c.renewed)
	c.renewed = make(chan struct{})
}

// online returns the present session, errAway while there is none.
func (c *conn) online() (*session, error) {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s.ctx.Err() != nil || !c.nc.IsConnected() {
		if c.nc.IsClosed() {
			return nil, natsgo.ErrConnectionClosed
		}
		return nil, errAway
	}
	return s, nil
}

// Away says why there is no session at the moment. It is asked at each request, so it takes no lock of nats.go, which holds its own while
// it dials.
func (c *conn) Away() error {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s.ctx.Err() != nil {
		return errAway
	}
	return nil
}

var _ driver.Monitor = (*conn)(nil)

// waitOnline returns when there is a connection; an error when ctx ends before or there will be none.
func (c *conn) waitOnline(ctx context.Context) error {
	for {
		c.mu.Lock()
		s, renewed := c.session, c.renewed
		c.mu.Unlock()
		ended := s.ctx.Done()
		switch {
		case s.ctx.Err() != nil:
			ended = nil
		case c.nc.IsConnected():
			return nil
		}
		select {
		case <-ended: // it was lost just now, and is told in a moment
		case <-renewed:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.done:
			return fmt.Errorf("nats: %w", natsgo.ErrConnectionClosed)
		}
	}
}

// away reports whether err says that there was no connection: waitOnline mends it.
func away(err error) bool {
	return errors.Is(err, natsgo.ErrReconnectBufExceeded) || errors.Is(err, natsgo.ErrDisconnected)
}

// request sends one message and waits for its answer, until ctx ends or the connection breaks: then the server may have it or not.
func (c *conn) request(ctx context.Context, m *natsgo.Msg) (*natsgo.Msg, error) {
	s, err := c.online()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	both, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(s.ctx, func() { cancel(errAway) })
	defer stop()
	reply, err := c.nc.RequestMsgWithContext(both, m)
	if err != nil && errors.Is(context.Cause(both), errAway) {
		return nil, errAway
	}
	return reply, err
}

func (c *conn) Features() driver.Features { return c.features }
func (c *conn) Done() <-chan struct{}     { return c.done }

func (c *conn) Close(ctx context.Context) error {
	c.nc.Close()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
