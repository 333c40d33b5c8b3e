// Package brokers administers message brokers for the operator: one session a Broker, opened when it is needed, kept while it lasts, and
// replaced when the Broker or its credentials change. A broker that does not answer is dialled again ever more seldom; in between everybody
// who asks is told at once what the last attempt found, so that a dead broker holds up nobody who has another one.
package brokers

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

const (
	// callTimeout bounds one call, dialling included.
	callTimeout = 5 * time.Second
	// callsAtOnce on one broker.
	callsAtOnce = 4
	firstRedial = time.Second
	lastRedial  = time.Minute
)

// A Driver opens sessions of one protocol.
type Driver struct {
	Open driver.Open
	// Class judges errors of Open, where no session came about that could.
	Class func(error) driver.Class
}

// Sessions are the open sessions of all Brokers. It is controllers.Brokers.
type Sessions struct {
	drivers map[string]Driver
	secret  func(ctx context.Context, name types.NamespacedName) (map[string][]byte, error)

	mu   sync.Mutex
	open map[types.NamespacedName]*session
}

// New makes Sessions with a driver for each protocol. secret reads one Secret, nil where there is none; it is asked at each dial.
func New(drivers map[string]Driver, secret func(context.Context, types.NamespacedName) (map[string][]byte, error)) *Sessions {
	return &Sessions{drivers: drivers, secret: secret, open: map[types.NamespacedName]*session{}}
}

// A session is what is known of the way to one broker.
type session struct {
	calls chan struct{} // a place for each call under way

	mu      sync.Mutex
	version string
	conn    driver.Conn
	// Of the last attempt to dial, or the last call, if nobody answered.
	failed error
	next   time.Time
	pause  time.Duration
}

// Probe implements controllers.Brokers.
func (s *Sessions) Probe(ctx context.Context, to controllers.Connection) (found controllers.Found, err error) {
	err = s.call(ctx, to, func(ctx context.Context, conn driver.Conn) error {
		f := conn.Features()
		found = controllers.Found{Version: f.Version, Features: v1alpha1.BrokerFeatures{Product: product(to.Protocol), MaxMessageBytes: int64(f.MaxMessageBytes)}}
		if f.AtomicBatch {
			found.Features.Flags = append(found.Features.Flags, compile.FeatureAtomicBatch)
		}
		// That the session stands does not say that the broker answers.
		_, err := conn.Admin().Inspect(ctx, []driver.Ref{{Kind: driver.Topic, Name: "waybill"}})
		return err
	})
	return found, err
}

// product is how the compiler calls what speaks a protocol.
func product(protocol string) string {
	if protocol == "Embedded" {
		return "NATS"
	}
	return protocol
}

// Ensure implements controllers.Brokers.
func (s *Sessions) Ensure(ctx context.Context, to controllers.Connection, o plan.Object) (changed bool, err error) {
	err = s.call(ctx, to, func(ctx context.Context, conn driver.Conn) error {
		outcome, err := conn.Admin().Ensure(ctx, engine.Object(o))
		changed = outcome != driver.Unchanged
		return err
	})
	return changed, err
}

// Delete implements controllers.Brokers.
func (s *Sessions) Delete(ctx context.Context, to controllers.Connection, o plan.Ref, owner string, onlyIfEmpty bool) error {
	return s.call(ctx, to, func(ctx context.Context, conn driver.Conn) error {
		return conn.Admin().Delete(ctx, ref(o), owner, onlyIfEmpty)
	})
}

// Inspect implements controllers.Brokers.
func (s *Sessions) Inspect(ctx context.Context, to controllers.Connection, objects []plan.Ref) (out []controllers.State, err error) {
	refs := make([]driver.Ref, len(objects))
	for i, o := range objects {
		refs[i] = ref(o)
	}
	err = s.call(ctx, to, func(ctx context.Context, conn driver.Conn) error {
		states, err := conn.Admin().Inspect(ctx, refs)
		for _, s := range states {
			out = append(out, controllers.State{Exists: s.Exists, Owner: s.Owner, Messages: s.Messages})
		}
		return err
	})
	return out, err
}

func ref(r plan.Ref) driver.Ref { return driver.Ref{Kind: driver.Kind(r.Kind), Name: r.Name, Of: r.Of} }

// Forget implements controllers.Brokers.
func (s *Sessions) Forget(broker types.NamespacedName) {
	s.mu.Lock()
	open := s.open[broker]
	delete(s.open, broker)
	s.mu.Unlock()
	if open != nil {
		open.mu.Lock()
		defer open.mu.Unlock()
		open.hangUp()
	}
}

// Close ends all sessions.
func (s *Sessions) Close() {
	s.mu.Lock()
	var names []types.NamespacedName
	for name := range s.open {
		names = append(names, name)
	}
	s.mu.Unlock()
	for _, name := range names {
		s.Forget(name)
	}
}

// call does something with the session of a Broker.
func (s *Sessions) call(ctx context.Context, to controllers.Connection, do func(context.Context, driver.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s.mu.Lock()
	open := s.open[to.Key]
	if open == nil {
		open = &session{calls: make(chan struct{}, callsAtOnce)}
		s.open[to.Key] = open
	}
	s.mu.Unlock()

	select {
	case open.calls <- struct{}{}:
		defer func() { <-open.calls }()
	case <-ctx.Done():
		return away(to, errors.New("too many calls wait for it"))
	}
	conn, err := open.get(ctx, s, to)
	if err != nil {
		return err
	}
	err = do(ctx, conn)
	open.answered(err, ctx.Err(), to)
	if err != nil {
		return explain(to, conn.Class(err), err)
	}
	return nil
}

// answered notes whether the broker did within its time. One that takes calls and answers none would else hold up each of those that ask it for
// as long as a call may take, and with them everybody who has another broker.
func (o *session) answered(err, ended error, to controllers.Connection) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil:
		o.pause = 0
	case errors.Is(ended, context.DeadlineExceeded) && (o.failed == nil || !time.Now().Before(o.next)):
		o.waits(away(to, fmt.Errorf("it took a call and gave no answer within %v", callTimeout)))
	}
}

// waits has everybody told of a failure until it is time to try again.
func (o *session) waits(err error) {
	o.pause = min(max(firstRedial, 2*o.pause), lastRedial)
	o.failed, o.next = err, time.Now().Add(o.pause)
}

// get returns the session's connection, dialling where there is none and the last attempt was not just now.
func (o *session) get(ctx context.Context, s *Sessions, to controllers.Connection) (driver.Conn, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.version != to.Version {
		o.hangUp()
		o.version, o.failed, o.pause = to.Version, nil, 0
	}
	if o.failed != nil && time.Now().Before(o.next) {
		return nil, o.failed
	}
	o.failed = nil
	if o.conn != nil {
		select {
		case <-o.conn.Done():
			o.hangUp()
		default:
			if m, ok := o.conn.(driver.Monitor); ok {
				if err := m.Away(); err != nil {
					return nil, away(to, err)
				}
			}
			return o.conn, nil
		}
	}
	conn, err := s.dial(ctx, to)
	if err != nil {
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, err // the caller went away: that says nothing about the broker
		}
		o.waits(err)
		return nil, err
	}
	o.conn, o.pause = conn, 0
	return conn, nil
}

func (o *session) hangUp() {
	if o.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	_ = o.conn.Close(ctx) // it is of no use any more, however it ends
	o.conn = nil
}

func (s *Sessions) dial(ctx context.Context, to controllers.Connection) (driver.Conn, error) {
	d, ok := s.drivers[to.Protocol]
	if !ok {
		return nil, &controllers.BrokerError{Reason: v1alpha1.ReasonInvalid, Err: fmt.Errorf("this manager has no driver for %s", to.Protocol)}
	}
	held := new(secret.Memory)
	for _, name := range secretNames(to.Broker) {
		data, err := s.secret(ctx, types.NamespacedName{Namespace: to.Key.Namespace, Name: name})
		if err != nil {
			return nil, away(to, err)
		}
		if data != nil {
			held.Put(to.Key.Namespace, name, data)
		}
	}
	cfg, err := engine.Resolve(held, to.Key.Namespace, to.Broker)
	if err != nil {
		return nil, &controllers.BrokerError{Reason: v1alpha1.ReasonSecretNotFound, Err: err}
	}
	cfg.ClientName = "waybill-manager"
	conn, err := d.Open(ctx, cfg)
	if err != nil {
		return nil, explain(to, d.Class(err), err)
	}
	return conn, nil
}

func secretNames(b plan.Broker) []string {
	var names []string
	if b.Secret != "" {
		names = append(names, b.Secret)
	}
	if b.TLS != nil {
		for _, r := range []*plan.SecretRef{b.TLS.CA, b.TLS.ClientCert, b.TLS.ClientKey} {
			if r != nil {
				names = append(names, r.Name)
			}
		}
	}
	return names
}

func away(to controllers.Connection, err error) error {
	return &controllers.BrokerError{Reason: v1alpha1.ReasonUnreachable, Err: fmt.Errorf("%v does not answer: %w", to.Addresses, settled{err})}
}

// ownPort is the near end of a connection, which is another one at each attempt. dialled is, beside the cause, which of several servers, of the
// addresses of one, and of several name servers was tried last: the client takes them in any order.
var (
	ownPort = regexp.MustCompile(`\S+:\d+->`)
	dialled = regexp.MustCompile(`(dial \S+?)(?: \S+)?: (?:lookup \S+(?: on \S+)?: )?(?:connect: )?`)
)

// settled is an error in words that are the same at each attempt: they stand in a status, which would be written anew each time.
type settled struct{ error }

func (s settled) Error() string {
	return dialled.ReplaceAllString(ownPort.ReplaceAllString(s.error.Error(), ""), "$1: ")
}
func (s settled) Unwrap() error { return s.error }

// explain gives an error of a driver the reason that a condition shows.
func explain(to controllers.Connection, class driver.Class, err error) error {
	var reason v1alpha1.Reason
	switch {
	case errors.Is(err, driver.ErrBusy):
		reason = v1alpha1.ReasonNotEmpty
	case class == driver.Conflict:
		reason = v1alpha1.ReasonConflict
	case class == driver.Denied:
		reason = v1alpha1.ReasonDenied
	case class == driver.Missing:
		reason = v1alpha1.ReasonReferenceNotFound
	case class == driver.Invalid, class == driver.TooLarge:
		reason = v1alpha1.ReasonInvalid
	default:
		return away(to, err)
	}
	return &controllers.BrokerError{Reason: reason, Err: err}
}
