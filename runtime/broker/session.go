package broker

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

const (
	firstDial   = 100 * time.Millisecond
	lastDial    = 10 * time.Second
	dialTimeout = 15 * time.Second
	// A session that lasted less did not prove that the broker is well: the backoff goes on growing.
	provenAfter  = lastDial
	closeTimeout = 5 * time.Second
)

// A session is one of a broker's two connections through all its lives: away → connected → lost → away … Each life has a number.
type session struct {
	b       *Broker
	purpose string
	ask     chan chan error // a refresh

	mu      sync.Mutex
	conn    driver.Conn // nil while away
	seen    driver.Conn // the last one there was: its features and its judgement of errors outlive it
	life    uint64
	away    error
	where   string        // the addresses of the session
	changed chan struct{} // closed at the next change
}

func newSession(b *Broker, purpose string) *session {
	return &session{
		b: b, purpose: purpose, ask: make(chan chan error), changed: make(chan struct{}),
		away: fmt.Errorf("broker %s: %w", b.cfg.Name, ErrNotYet),
	}
}

func (s *session) set(conn driver.Conn, away error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn, s.away = conn, away
	if conn != nil {
		s.seen = conn
		s.life++
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// current is the connection; nil while away.
func (s *session) current() driver.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

func (s *session) last() driver.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// why is nil while there is a session, else it says why there is none. A client that heals its own session is asked.
func (s *session) why() error {
	s.mu.Lock()
	conn, away, where := s.conn, s.away, s.where
	s.mu.Unlock()
	if m, ok := conn.(driver.Monitor); ok && away == nil {
		if err := m.Away(); err != nil {
			return fmt.Errorf("broker %s at %s: %w", s.b.cfg.Name, where, err)
		}
	}
	return away
}

// get waits for a connection while ctx lives.
func (s *session) get(ctx context.Context) (driver.Conn, uint64, error) {
	for {
		s.mu.Lock()
		conn, life, away, changed := s.conn, s.life, s.away, s.changed
		s.mu.Unlock()
		if conn != nil {
			return conn, life, nil
		}
		if errors.Is(away, ErrClosed) {
			return nil, 0, away
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("%w: %w: %w", ErrAway, away, ctx.Err())
		}
	}
}

// run keeps the session until the broker is closed.
func (s *session) run() {
	ctx := s.b.ctx
	log := s.b.log.With("session", s.purpose)
	wait := backoff{first: firstDial, last: lastDial}
	logged := ""
	for {
		conn, err := s.open(ctx)
		if ctx.Err() != nil {
			s.discard(conn)
			return
		}
		if err != nil {
			if text := err.Error(); text != logged {
				logged = text
				log.Warn("The broker is away; dialling again until it answers", "error", text)
			}
			s.set(nil, err)
			if !s.pause(ctx, wait.pause(pauseOf(err))) {
				return
			}
			continue
		}
		since := time.Now()
		f := conn.Features()
		log.Info("Connected", "server", f.Server, "version", f.Version)
		logged = ""
		s.set(conn, nil)
		if !s.hold(ctx) {
			return
		}
		log.Warn("The session was lost; dialling again")
		if time.Since(since) > provenAfter {
			wait.reset()
		}
		if !s.pause(ctx, wait.pause(0)) {
			return
		}
	}
}

// hold keeps the session while it lives, exchanging it when asked to; false when the broker is being closed.
func (s *session) hold(ctx context.Context) bool {
	for {
		conn := s.current()
		select {
		case <-ctx.Done():
			return false
		case <-conn.Done():
			s.set(nil, fmt.Errorf("broker %s: the session was lost", s.b.cfg.Name))
			s.discard(conn)
			return true
		case answer := <-s.ask:
			next, err := s.open(ctx)
			if err == nil {
				s.set(next, nil)
				s.discard(conn)
			}
			answer <- err
		}
	}
}

// pause waits before the next dial; a refresh cuts it short.
func (s *session) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case answer := <-s.ask:
		answer <- s.why()
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *session) refresh(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case s.ask <- answer:
		return <-answer
	case <-s.b.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *session) open(ctx context.Context) (driver.Conn, error) {
	cfg, err := s.b.cfg.Resolve(ctx)
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", s.b.cfg.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := s.b.cfg.Open(ctx, cfg)
	if err != nil {
		return nil, &dialError{text: fmt.Sprintf("broker %s at %s: %s", s.b.cfg.Name, places(cfg.Addresses), redact(err.Error(), cfg)), err: err}
	}
	s.mu.Lock()
	s.where = places(cfg.Addresses)
	s.mu.Unlock()
	return conn, nil
}

// discard closes a connection that is of no more use, in its own time.
func (s *session) discard(conn driver.Conn) {
	if conn == nil {
		return
	}
	s.b.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := conn.Close(ctx); err != nil {
			s.b.log.Debug("Closing an old session", "session", s.purpose, "error", err)
		}
	})
}

func (s *session) close(ctx context.Context) error {
	conn := s.current()
	s.set(nil, fmt.Errorf("broker %s: %w", s.b.cfg.Name, ErrClosed))
	if conn == nil {
		return nil
	}
	return conn.Close(ctx)
}

// A dialError shows its redacted text and still tells callers what it was.
type dialError struct {
	text string
	err  error
}

func (e *dialError) Error() string { return e.text }
func (e *dialError) Unwrap() error { return e.err }

// places lists addresses without the credentials that a URL may carry.
func places(addresses []string) string {
	if len(addresses) == 0 {
		return "its address"
	}
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i] = a
		if u, err := url.Parse(a); err == nil && u.User != nil {
			u.User = nil
			out[i] = u.String()
		} else if at := strings.LastIndexByte(a, '@'); at >= 0 {
			out[i] = a[at+1:]
		}
	}
	return strings.Join(out, ", ")
}

// redact removes the secrets of cfg from an error's text, should a client library have put them there.
func redact(text string, cfg driver.Config) string {
	for _, a := range cfg.Addresses {
		text = strings.ReplaceAll(text, a, places([]string{a}))
		if u, err := url.Parse(a); err == nil && u.User != nil {
			if p, ok := u.User.Password(); ok && p != "" {
				text = strings.ReplaceAll(text, p, "[redacted]")
			}
		}
	}
	for _, secret := range []string{cfg.Password, cfg.Token} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	return text
}
