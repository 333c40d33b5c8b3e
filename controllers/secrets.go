package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/waybill-dev/waybill/runtime/secret"
)

// secretBook knows of each Secret that somebody refers to which keys it has, and notices when it changes. It watches these Secrets one by
// one, by name, so it neither asks for others nor may it have the right to; and it holds no value, only a digest of all of them.
type secretBook struct {
	client  kubernetes.Interface
	changed func()

	mu   sync.Mutex
	open map[types.NamespacedName]*secretWatch
}

type secretWatch struct {
	stop   context.CancelFunc
	store  toolscache.Store
	synced func() bool
}

// A secretFact is what is known of a Secret.
type secretFact struct {
	Keys  []string // sorted
	Flaws map[string]secret.Flaw
	// Digest is another one when any value is. It is no part of anything that is written.
	Digest string
}

func newSecretBook(client kubernetes.Interface, changed func()) *secretBook {
	return &secretBook{client: client, changed: changed, open: map[types.NamespacedName]*secretWatch{}}
}

// facts watches the wanted Secrets and no other from now on, and returns what is known of those that exist. It waits for the first answer
// about each; ctx ends the wait and, later, the watches.
func (b *secretBook) facts(ctx context.Context, wanted map[types.NamespacedName]bool) (map[types.NamespacedName]secretFact, error) {
	b.mu.Lock()
	for name, w := range b.open {
		if !wanted[name] {
			w.stop()
			delete(b.open, name)
		}
	}
	var synced []toolscache.InformerSynced
	for name := range wanted {
		w := b.open[name]
		if w == nil {
			w = b.watch(ctx, name)
			b.open[name] = w
		}
		synced = append(synced, w.synced)
	}
	open := maps.Clone(b.open)
	b.mu.Unlock()

	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil, ctx.Err()
	}
	known := map[types.NamespacedName]secretFact{}
	for name, w := range open {
		if s, found, err := w.store.GetByKey(name.String()); err == nil && found {
			known[name] = s.(*remembered).fact
		}
	}
	return known, nil
}

func (b *secretBook) watch(ctx context.Context, name types.NamespacedName) *secretWatch {
	ctx, stop := context.WithCancel(ctx)
	store, informer := toolscache.NewInformerWithOptions(toolscache.InformerOptions{
		ListerWatcher: toolscache.NewListWatchFromClient(b.client.CoreV1().RESTClient(), "secrets", name.Namespace,
			fields.OneTermEqualSelector("metadata.name", name.Name)),
		ObjectType: new(corev1.Secret),
		Transform:  func(o any) (any, error) { return remember(o), nil },
		Handler: toolscache.ResourceEventHandlerDetailedFuncs{
			AddFunc: func(_ any, initial bool) {
				if !initial {
					b.changed()
				}
			},
			UpdateFunc: func(old, now any) {
				if old.(*remembered).fact.Digest != now.(*remembered).fact.Digest {
					b.changed()
				}
			},
			DeleteFunc: func(any) { b.changed() },
		},
	})
	go informer.RunWithContext(ctx)
	return &secretWatch{stop: stop, store: store, synced: informer.HasSynced}
}

// remembered is what is kept of a Secret: its name, for the store, and the fact.
type remembered struct {
	corev1.Secret

	fact secretFact
}

func remember(o any) any {
	s, ok := o.(*corev1.Secret)
	if !ok {
		return o
	}
	r := &remembered{fact: factOf(s)}
	r.Namespace, r.Name, r.ResourceVersion = s.Namespace, s.Name, s.ResourceVersion
	return r
}

func factOf(s *corev1.Secret) secretFact {
	f := secretFact{Keys: slices.Sorted(maps.Keys(s.Data)), Flaws: secret.FlawsOf(s.Data)}
	h := sha256.New()
	for _, k := range f.Keys {
		for _, part := range [][]byte{[]byte(k), s.Data[k]} {
			sum := sha256.Sum256(part) // of fixed length, so that no two Secrets look alike
			h.Write(sum[:])
		}
	}
	f.Digest = hex.EncodeToString(h.Sum(nil))[:16]
	return f
}
