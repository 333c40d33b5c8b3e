// Package postgres is how Waybill reaches PostgreSQL: a few connections to one database, opened with what its Secret says at that moment, and
// errors that say whose fault they are without a payload or a password in them.
//
// Statements go by the extended protocol without names, and nothing is kept in a session, so that a pooler that hands out a connection for
// one transaction at a time (PgBouncer) may stand in between.
package postgres

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

const (
	dialTimeout  = 10 * time.Second
	closeTimeout = time.Second
	// idleTimeout is when a connection that nobody uses is closed; a firewall forgets one after some minutes.
	idleTimeout = time.Minute
	// lifetime of a connection, so that a server behind a name that has moved is left.
	lifetime = 30 * time.Minute
	// trusted is for how long a connection that was just used is taken to be alive.
	trusted = time.Second
	// most connections of one user of a database.
	most = 4
)

// Dial opens a connection to an address.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Config is where a database is.
type Config struct {
	Secrets   secret.Store
	Namespace string // of the Secret
	DSN       plan.SecretRef
	Dial      Dial         // nil: whatever the address says is called
	Log       *slog.Logger // nil: none
}

// Database is one database. It holds four connections at the most and is safe for concurrent use.
type Database struct {
	cfg   Config
	slots chan struct{}

	mu     sync.Mutex
	idle   []*connection
	reaper *time.Timer
	closed bool
	warned string
	where  string
}

type connection struct {
	*pgconn.PgConn
	secret [sha256.Size]byte // what it was opened with
	born   time.Time
	used   time.Time
}

// New makes a Database that is not connected yet.
func New(cfg Config) *Database {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	return &Database{cfg: cfg, slots: make(chan struct{}, most), where: "PostgreSQL"}
}

// Do runs f with a connection that is not in a transaction, and takes it back. Its error is ctx's own, or a *flow.Fault. What f returns may
// be an error of pgconn's, which is classified here, or a fault that f has classified.
func (d *Database) Do(ctx context.Context, f func(ctx context.Context, c *pgconn.PgConn) error) error {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c, err := d.acquire(ctx)
	if err != nil {
		return d.fault(ctx, err)
	}
	err = f(ctx, c.PgConn)
	d.release(c, err)
	return d.fault(ctx, err)
}

// acquire takes a connection that is idle, or opens one. A Secret that was changed is used as soon as a session can be opened with it.
func (d *Database) acquire(ctx context.Context) (*connection, error) {
	login, err := d.read()
	if err != nil {
		return nil, err
	}
	for {
		c := d.take()
		switch {
		case c == nil:
			return d.open(ctx, login)
		case c.IsClosed() || time.Since(c.born) > lifetime:
		case time.Since(c.used) > trusted && c.Ping(ctx) != nil:
			// What is sent on a connection whose other end is gone may seem to have been sent.
		case c.secret == login.sum:
			return c, nil
		default:
			renewed, err := d.open(ctx, login)
			if err == nil {
				d.discard(c)
				return renewed, nil
			}
			d.warn(err)
			return c, nil
		}
		d.discard(c)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (d *Database) take() *connection {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.idle) == 0 {
		return nil
	}
	c := d.idle[len(d.idle)-1]
	d.idle = d.idle[:len(d.idle)-1]
	return c
}

func (d *Database) open(ctx context.Context, l *login) (*connection, error) {
	cfg, err := l.config()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.where = l.where
	d.mu.Unlock()
	cfg.DialFunc = pgconn.DialFunc(d.cfg.Dial)
	if cfg.ConnectTimeout == 0 || cfg.ConnectTimeout > dialTimeout {
		cfg.ConnectTimeout = dialTimeout
	}
	cfg.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		// A statement whose time is over is ended on the server too.
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: closeTimeout}
	}
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	d.warn(nil)
	return &connection{PgConn: c, secret: l.sum, born: time.Now(), used: time.Now()}, nil
}

// release takes a connection back, or closes it where it cannot be used again. After a loss the idle ones are suspect too.
func (d *Database) release(c *connection, err error) {
	c.used = time.Now()
	gone := []*connection{c}
	d.mu.Lock()
	switch {
	case d.closed || c.IsClosed() || code(err) == readOnly:
		gone = append(gone, d.idle...)
		d.idle = nil
	case c.IsBusy() || c.TxStatus() != 'I':
	default:
		gone = nil
		d.idle = append(d.idle, c)
		if d.reaper == nil {
			d.reaper = time.AfterFunc(idleTimeout, d.reap)
		}
	}
	d.mu.Unlock()
	d.discard(gone...)
}

// reap closes what nobody has used for a while.
func (d *Database) reap() {
	d.mu.Lock()
	var old []*connection
	for len(d.idle) > 0 && time.Since(d.idle[0].used) >= idleTimeout {
		old = append(old, d.idle[0])
		d.idle = d.idle[1:]
	}
	d.reaper = nil
	if len(d.idle) > 0 && !d.closed {
		d.reaper = time.AfterFunc(idleTimeout, d.reap)
	}
	d.mu.Unlock()
	d.discard(old...)
}

func (d *Database) discard(all ...*connection) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	for _, c := range all {
		_ = c.Close(ctx) // a goodbye: the server notices its absence too
	}
}

// Close closes what is idle; what is in use is closed when it is given back.
func (d *Database) Close() {
	d.mu.Lock()
	rest := d.idle
	d.idle, d.closed = nil, true
	if d.reaper != nil {
		d.reaper.Stop()
	}
	d.mu.Unlock()
	d.discard(rest...)
}

// warn tells once why a changed Secret is not used, until it is.
func (d *Database) warn(err error) {
	text := ""
	if err != nil {
		text = d.fault(context.Background(), err).Error()
	}
	d.mu.Lock()
	again := text == d.warned
	d.warned = text
	d.mu.Unlock()
	if !again && text != "" {
		d.cfg.Log.Warn("The Secret was changed and cannot be used; the sessions that there are stay", "secret", d.cfg.DSN.Name, "error", text)
	}
}

// Where is the server and the database, as they may be shown.
func (d *Database) Where() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.where
}

// fault classifies an error.
func (d *Database) fault(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if f, ok := errors.AsType[*flow.Fault](err); ok {
		return f
	}
	f := classify(err)
	f.At = d.Where()
	if f.Blame != flow.Message {
		f.Err = fmt.Errorf("%s: %w", f.At, f.Err)
	}
	return f
}
