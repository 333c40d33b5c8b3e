// Package gateway serves Topics, Mailboxes and Endpoints over HTTP. Each handler serves the paths below its own address; whoever mounts it
// strips what comes before.
//
// What all three share stands here once: who may come in (auth.go), what is read of a request and how much of it is held in memory
// (intake.go), how events reach the broker (store.go), how answers are waited for (wait.go), and what a refusal looks like (problem.go).
// Leases are in lease.go (tokens), receive.go (long polls) and settle.go; live events in live.go.
package gateway

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/message/cehttp"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/reply"
)

// Deps is what a handler works with. Resource, Broker, Secret and Log are needed always.
type Deps struct {
	Resource plan.Resource
	// Broker gives the connection to a broker of the plan by its name.
	Broker func(name string) *broker.Broker
	// Secret reads one key of a Secret of the resource's namespace. It is asked at each request, so that a rotated secret counts at once.
	Secret func(plan.SecretRef) ([]byte, error)
	// Desk is where requests on this broker wait for answers: one a process, broker and namespace. Needed by Mailboxes and Endpoints.
	Desk func(broker string) *reply.Desk
	// Sender answers the requesters of messages that were leased. Needed by Mailboxes.
	Sender func(broker string) *reply.Sender
	// LeaseKeys are the secrets that lease tokens are sealed with: the first seals, all open. Needed by Mailboxes.
	LeaseKeys func() ([][]byte, error)
	// Paused: a Mailbox takes messages and hands out none.
	Paused bool
	// BufferBytes bounds what a handler holds of requests that are not stored yet; 0: 64 MiB.
	BufferBytes int64
	// Now is the clock that leases and expiry go by; nil: time.Now.
	Now func() time.Time
	// Dead is told of each message that is dead-lettered; nil: nobody is.
	Dead func(m *message.Message, reason, text string)
	Log  *slog.Logger
}

// The type of events that are made of a plain body.
const plainType = "dev.waybill.message"

// front is what every handler begins with.
type front struct {
	deps     Deps
	log      *slog.Logger
	defaults cehttp.Defaults
	stats    counters
	budget   budget
	store    *store
	desk     atomic.Pointer[reply.Desk] // where requests waited last; nil: none has

	draining atomic.Bool
	drained  chan struct{} // closed when draining begins
	once     sync.Once

	ending context.Context // ends when nobody is to wait for an answer any longer
	end    context.CancelFunc
}

func (f *front) init(deps Deps, plural string, to plan.Ref) {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Dead == nil {
		deps.Dead = func(*message.Message, string, string) {}
	}
	if deps.BufferBytes == 0 {
		deps.BufferBytes = 64 << 20
	}
	f.deps = deps
	f.log = deps.Log.With("resource", deps.Resource.String())
	f.defaults = cehttp.Defaults{Type: plainType, Source: "/" + deps.Resource.Namespace + "/" + plural + "/" + deps.Resource.Name, NewID: rand.Text}
	f.budget.limit = deps.BufferBytes
	f.drained = make(chan struct{})
	f.ending, f.end = context.WithCancel(context.Background())
	f.store = newStore(func(ctx context.Context, ms []message.Message) []error {
		return deps.Broker(to.Broker).Publisher(driverRef(to)).Publish(ctx, ms)
	}, &f.budget, &f.stats, f.log)
}

func driverRef(r plan.Ref) driver.Ref {
	return driver.Ref{Kind: driver.Kind(r.Kind), Name: r.Name, Of: r.Of}
}

// drain refuses what comes from now on, and returns when what was accepted is stored or ctx ends. What is left then is lost and counted.
func (f *front) drain(ctx context.Context) error {
	f.stopTaking()
	return f.store.drain(ctx)
}

// EndWaits answers who still waits for an answer as a timeout does, and returns how many they were. It comes after Drain, when no answer can
// come in time any more.
func (f *front) EndWaits() int64 {
	f.end()
	return f.stats.waiting.Load()
}

func (f *front) stopTaking() {
	f.once.Do(func() {
		f.draining.Store(true)
		close(f.drained)
	})
}

// refuseWhileDraining answers 503 and reports true once the handler takes nothing more.
func (f *front) refuseWhileDraining(w http.ResponseWriter) bool {
	if !f.draining.Load() {
		return false
	}
	w.Header().Set("Connection", "close")
	f.refuse(w, problem{Status: http.StatusServiceUnavailable, Reason: "ShuttingDown", Detail: "this replica is shutting down; try again", RetryAfter: time.Second})
	return true
}

// allow answers 405 and reports false unless the request has one of methods.
func (f *front) allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	f.refuse(w, problem{Status: http.StatusMethodNotAllowed, Reason: "MethodNotAllowed", Detail: "this address serves " + strings.Join(methods, " and ")})
	return false
}

// notFound answers 404 and tells what there is.
func (f *front) notFound(w http.ResponseWriter, serves string) {
	f.refuse(w, problem{Status: http.StatusNotFound, Reason: "NotFound", Detail: fmt.Sprintf("%s %s/%s serves nothing at this path; it serves %s",
		f.deps.Resource.Kind, f.deps.Resource.Namespace, f.deps.Resource.Name, serves)})
}
