package engine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// refreshTimeout bounds the change to a new session: two dials.
const refreshTimeout = 40 * time.Second

// Credential is a Secret with which a broker's sessions were opened.
type Credential struct {
	Broker     string `json:"broker"`
	Secret     string `json:"secret"`
	Generation string `json:"generation"` // of the content in use, over Keys: see secret.Generation
	// Keys are those that the Secret had of what a session reads.
	Keys []string `json:"keys"`
	// Message says why another content of the Secret is not in use.
	Message string `json:"message,omitempty"`
}

// rotation knows with which Secrets each connection was opened.
type rotation struct {
	mu      sync.Mutex
	watched []*watched
}

// watched is one connection that reads Secrets.
type watched struct {
	broker    *broker.Broker
	name      string
	namespace string
	keys      map[string][]string // by Secret

	refreshing sync.Mutex
	used       [sha256.Size]byte // of all that the sessions were opened with
	logged     string            // what was told last of a content that cannot be used

	mu    sync.Mutex
	shown []Credential
}

// lookAt notes what a connection reads of Secrets before it is dialled: a change in between is then seen as one.
func lookAt(namespace string, spec plan.Broker, secrets secret.Store) *watched {
	w := &watched{name: spec.Name, namespace: namespace, keys: spec.Secrets()}
	if content, err := w.read(secrets); err == nil {
		w.take(content)
	}
	return w
}

// watch begins to look after a connection.
func (r *rotation) watch(w *watched, b *broker.Broker) {
	if len(w.keys) == 0 {
		return
	}
	w.broker = b
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watched = append(r.watched, w)
}

// content is what Secrets hold now: values by Secret and key.
type content map[string]map[string][]byte

func (w *watched) read(secrets secret.Store) (content, error) {
	out := content{}
	for name, keys := range w.keys {
		out[name] = map[string][]byte{}
		for _, key := range keys {
			v, err := secrets.Value(w.namespace, name, key)
			if errors.Is(err, secret.ErrNoKey) {
				continue
			}
			if err != nil {
				return nil, err
			}
			out[name][key] = v
		}
	}
	return out, nil
}

func (c content) sum(namespace string) [sha256.Size]byte {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(c)) {
		for _, key := range slices.Sorted(maps.Keys(c[name])) {
			one := sha256.Sum256(c[name][key])
			h.Write([]byte(namespace + "\x00" + name + "\x00" + key + "\x00"))
			h.Write(one[:])
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// take notes that sessions use c.
func (w *watched) take(c content) {
	w.used = c.sum(w.namespace)
	var shown []Credential
	for _, name := range slices.Sorted(maps.Keys(c)) {
		shown = append(shown, Credential{Broker: w.name, Secret: name, Generation: secret.Generation(w.namespace, name, c[name]), Keys: slices.Sorted(maps.Keys(c[name]))})
	}
	w.mu.Lock()
	w.shown = shown
	w.mu.Unlock()
}

// say shows why there is something newer than what is in use; "": there is not.
func (w *watched) say(message string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shown = slices.Clone(w.shown) // others read what they were given
	for i := range w.shown {
		w.shown[i].Message = message
	}
}

// RefreshSecrets opens new sessions to the brokers whose Secrets have changed and then closes the old ones. Where that fails the old ones
// stay, and the next call tries again. Its host calls it every few seconds.
func (e *Engine) RefreshSecrets(ctx context.Context) {
	e.conns.rotation.mu.Lock()
	all := slices.Clone(e.conns.rotation.watched)
	e.conns.rotation.mu.Unlock()
	var wg sync.WaitGroup
	for _, w := range all {
		wg.Go(func() { w.refresh(ctx, e.host.Secrets, e.host.Log) })
	}
	wg.Wait()
}

func (w *watched) refresh(ctx context.Context, secrets secret.Store, log *slog.Logger) {
	w.refreshing.Lock()
	defer w.refreshing.Unlock()
	now, err := w.read(secrets)
	if err == nil {
		if now.sum(w.namespace) == w.used {
			w.logged = ""
			w.say("")
			return
		}
		ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
		defer cancel()
		if err = w.broker.Refresh(ctx); err == nil {
			w.logged = ""
			w.take(now)
			log.Info("A Secret was changed; new sessions use it", "broker", w.name)
			return
		}
	}
	w.say(err.Error())
	if text := err.Error(); text != w.logged {
		w.logged = text
		log.Warn("A Secret was changed and cannot be used; the sessions that there are stay", "broker", w.name, "error", text)
	}
}

// Credentials tells of each broker's Secrets which content of it is in use, sorted by broker and Secret.
func (e *Engine) Credentials() []Credential {
	e.conns.rotation.mu.Lock()
	all := slices.Clone(e.conns.rotation.watched)
	e.conns.rotation.mu.Unlock()
	var out []Credential
	for _, w := range all {
		w.mu.Lock()
		out = append(out, w.shown...)
		w.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Credential) int {
		return cmp.Or(cmp.Compare(a.Broker, b.Broker), cmp.Compare(a.Secret, b.Secret))
	})
	return out
}
