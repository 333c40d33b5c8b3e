package controllers

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

const (
	// askAtOnce is how many resources' Pods are asked side by side, and askTimeout what an answer may take.
	askAtOnce  = 16
	askTimeout = 2 * time.Second
	mostAnswer = 1 << 20
)

// credentials are what the workers of each resource have said of the Secrets that their sessions on brokers were opened with. Only they know.
// It is for people to read: nothing else hangs on it.
type credentials struct {
	mu   sync.Mutex
	told map[plan.Resource]told
}

type told struct {
	of     string // what was asked about: the resource, the Brokers, and the content of their Secrets
	answer answer
}

// get is what a resource's Pods told of what of is; nil while they have not.
func (c *credentials) get(r plan.Resource, of string) *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.told[r]; ok && t.of == of {
		return &t.answer
	}
	return nil
}

// set notes an answer and reports whether it tells something new.
func (c *credentials) set(r plan.Resource, t told) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, ok := c.told[r]
	c.told[r] = t
	return !ok || before != t
}

// settled reports whether all Pods of a resource are known to use what of is. They never go back to what was before.
func (c *credentials) settled(r plan.Resource, of string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.told[r]
	return t.of == of && t.answer.status == metav1.ConditionTrue
}

func (c *credentials) forget(r plan.Resource) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.told, r)
}

// keep forgets all others: an answer may come after its resource has been forgotten.
func (c *credentials) keep(users []secretUser) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.told
	c.told = map[plan.Resource]told{}
	for _, u := range users {
		if t, ok := before[u.resource]; ok {
			c.told[u.resource] = t
		}
	}
}

// A secretUser is a resource whose Pods open sessions with Secrets.
type secretUser struct {
	resource plan.Resource
	of       string
	secrets  []usedSecret
}

// A usedSecret is what the sessions on one Broker read of a Secret: others may read other keys of the same one.
type usedSecret struct {
	broker, name string // as Pods know them
	keys         []string
	from         types.NamespacedName // itself, or what it is a copy of
}

// watchCredentials asks workers until ctx ends.
func (c *Controller) watchCredentials(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(2 * c.options.Probe):
		}
		if err := c.askWorkers(ctx); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).V(1).Info("Workers cannot be asked for the credentials that they use now", "error", err.Error())
		}
	}
}

// askWorkers asks the Pods of those that are not known to use what their Brokers' Secrets hold, and wakes whose answer is another one. In the
// long run nobody is asked anything.
func (c *Controller) askWorkers(ctx context.Context) error {
	held := remembering(func(name types.NamespacedName) (*corev1.Secret, error) {
		s := new(corev1.Secret)
		return s, client.IgnoreNotFound(c.direct.Get(ctx, name, s))
	})
	pods := remembering(func(namespace string) (map[plan.Resource][]string, error) { return c.readyPods(ctx, namespace) })
	hashes := map[string]string{}
	places := make(chan struct{}, askAtOnce)
	var asking sync.WaitGroup
	defer asking.Wait()
	users := c.world.secretUsers()
	c.credentials.keep(users)
	var first error
	for _, u := range users {
		if c.credentials.settled(u.resource, u.of) {
			continue
		}
		want, names, err := wanted(u, held, hashes)
		var all map[plan.Resource][]string
		if err == nil {
			all, err = pods(u.resource.Namespace)
		}
		if err != nil {
			if first == nil {
				first = err
			}
			continue // it keeps no other one from being asked
		}
		addresses := all[u.resource]
		if len(addresses) == 0 {
			continue // what is known stands: those that come read what there is
		}
		places <- struct{}{}
		asking.Go(func() {
			defer func() { <-places }()
			if a := c.ask(ctx, addresses, want, names); ctx.Err() == nil && c.credentials.set(u.resource, told{u.of, a}) {
				c.world.wake(u.resource)
			}
		})
	}
	return first
}

// remembering asks get once for each key.
func remembering[K comparable, V any](get func(K) (V, error)) func(K) (V, error) {
	type result struct {
		value V
		err   error
	}
	known := map[K]result{}
	return func(k K) (V, error) {
		r, ok := known[k]
		if !ok {
			r.value, r.err = get(k)
			known[k] = r
		}
		return r.value, r.err
	}
}

// wanted is what the Pods of u should say, and how people call it. hashes are those that are known already.
func wanted(u secretUser, held func(types.NamespacedName) (*corev1.Secret, error), hashes map[string]string) (want []credential, names string, err error) {
	var called []string
	for _, s := range u.secrets {
		content, err := held(s.from)
		if err != nil {
			return nil, "", err
		}
		what := fmt.Sprint(u.resource.Namespace, s.name, s.from, s.keys)
		if hashes[what] == "" { // slow on purpose
			hashes[what] = secret.Generation(u.resource.Namespace, s.name, only(s.keys, content.Data))
		}
		want = append(want, credential{Broker: s.broker, Secret: s.name, Generation: hashes[what]})
		called = append(called, nameOf(s.from, u.resource, content.ResourceVersion))
	}
	return want, strings.Join(slices.Compact(called), ", "), nil
}

// nameOf names a Secret and what it holds, by a number that tells nothing of that: a hash of a password could be guessed from.
func nameOf(s types.NamespacedName, by plan.Resource, version string) string {
	name := s.Name
	if s.Namespace != by.Namespace {
		name = s.String()
	}
	if version == "" {
		return fmt.Sprintf("Secret %s (which is gone)", name)
	}
	return fmt.Sprintf("Secret %s (resourceVersion %s)", name, version)
}

func only(keys []string, data map[string][]byte) map[string][]byte {
	out := map[string][]byte{}
	for _, k := range keys {
		if v, ok := data[k]; ok {
			out[k] = v
		}
	}
	return out
}

// ask asks Pods whether they use what is wanted of each Secret.
func (c *Controller) ask(ctx context.Context, addresses []string, want []credential, names string) answer {
	var silent, old, refused bool
	for _, address := range addresses {
		credentials, err := c.credentialsOf(ctx, address)
		if err != nil {
			log.FromContext(ctx).V(1).Info("A Pod does not tell which credentials it uses", "address", address, "error", err.Error())
			silent = true
			continue
		}
		for _, w := range want {
			known := false
			for _, t := range credentials {
				if t.Broker == w.Broker && t.Secret == w.Secret {
					known = true
					refused = refused || t.Message != ""
					old = old || t.Generation != w.Generation
				}
			}
			silent = silent || !known
		}
	}
	switch {
	case refused:
		return answer{metav1.ConditionFalse, v1alpha1.ReasonCredentialsRefused, "A Pod cannot open a session with " + names + " and goes on with what it has; its log says why."}
	case old:
		return answer{metav1.ConditionFalse, v1alpha1.ReasonRotating, "Not every Pod uses " + names + " yet; that takes a minute or two."}
	case silent:
		return answer{metav1.ConditionUnknown, v1alpha1.ReasonNotTold, "Not every Pod tells the operator whether it uses " + names + "."}
	}
	return answer{metav1.ConditionTrue, v1alpha1.ReasonUpToDate, "Every Pod uses " + names + "."}
}

// A credential is what a worker says of a Secret with which it opens sessions on a broker.
type credential struct {
	Broker     string `json:"broker"`
	Secret     string `json:"secret"`
	Generation string `json:"generation"`
	Message    string `json:"message"`
}

func (c *Controller) credentialsOf(ctx context.Context, address string) ([]credential, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(address, strconv.Itoa(plan.HealthPort))+"/status", http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := c.options.Workers.RoundTrip(r) // no redirect leads away from the Pod
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", response.Status)
	}
	var status struct {
		Credentials []credential `json:"credentials"`
	}
	err = json.NewDecoder(io.LimitReader(response.Body, mostAnswer)).Decode(&status)
	return status.Credentials, err
}

// readyPods are the addresses of the Pods of a namespace that are ready. They are in no cache.
func (c *Controller) readyPods(ctx context.Context, namespace string) (map[plan.Resource][]string, error) {
	var all corev1.PodList
	if err := c.direct.List(ctx, &all, client.InNamespace(namespace), client.HasLabels{workload.LabelKind, workload.LabelName}); err != nil {
		return nil, err
	}
	by := map[plan.Resource][]string{}
	for i := range all.Items {
		p := &all.Items[i]
		ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
		if ready && p.DeletionTimestamp == nil && p.Status.PodIP != "" {
			r := plan.Resource{Kind: p.Labels[workload.LabelKind], Namespace: namespace, Name: p.Labels[workload.LabelName]}
			by[r] = append(by[r], p.Status.PodIP)
		}
	}
	return by, nil
}

// secretUsers are the resources whose Pods open sessions with Secrets.
func (w *world) secretUsers() []secretUser {
	w.mu.RLock()
	defer w.mu.RUnlock()
	var out []secretUser
	for r, v := range w.verdicts {
		if v.deleting {
			continue
		}
		if used := usedSecrets(&v.outcome); len(used) > 0 {
			out = append(out, secretUser{resource: r, of: w.asksOf(v), secrets: used})
		}
	}
	return out
}

// usedSecrets are those with which the Pods of a resource open sessions, sorted by the Secret and the Broker.
func usedSecrets(o *compile.Outcome) (used []usedSecret) {
	if o.Plan == nil {
		return nil
	}
	for i := range o.Plan.Brokers {
		b := &o.Plan.Brokers[i]
		for name, keys := range b.Secrets() {
			s := usedSecret{broker: b.Name, name: name, keys: keys, from: types.NamespacedName{Namespace: o.Resource.Namespace, Name: name}}
			if i := slices.IndexFunc(o.Mirrors, func(m compile.Mirror) bool { return m.To == s.from }); i >= 0 {
				s.from = o.Mirrors[i].From
			}
			used = append(used, s)
		}
	}
	slices.SortFunc(used, func(a, b usedSecret) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.broker, b.broker)) })
	return used
}

// asks is what the Pods of a resource are asked about; another one when that changes.
func (w *world) asks(v *verdict) string {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.asksOf(v)
}

// asksOf is asks for who has locked already.
func (w *world) asksOf(v *verdict) string {
	of := string(v.uid)
	if v.outcome.Plan == nil {
		return of
	}
	for _, b := range v.outcome.Plan.Brokers {
		to, _ := w.connectionTo(b.Name)
		of += "\n" + b.Name + " " + to.Version
	}
	return of
}
