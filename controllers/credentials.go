package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
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
	of     string // what was asked about: the Brokers, and the content of their Secrets
	answer answer
}

// get is what is known of a resource; nil while nobody has told.
func (c *credentials) get(r plan.Resource) *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.told[r]; ok {
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
	return !ok || before.answer != t.answer
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

// A secretUser is a resource whose Pods open sessions with Secrets.
type secretUser struct {
	resource plan.Resource
	of       string
	secrets  map[string]usedSecret // by the name under which its Pods mount it
}

type usedSecret struct {
	keys []string
	from types.NamespacedName // itself, or what it is a copy of
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
	held := map[types.NamespacedName]*corev1.Secret{}
	hashes := map[string]string{}
	pods := map[string]map[plan.Resource][]string{} // addresses, by namespace
	places := make(chan struct{}, askAtOnce)
	var asking sync.WaitGroup
	defer asking.Wait()
	for _, u := range c.world.secretUsers() {
		if c.credentials.settled(u.resource, u.of) {
			continue
		}
		want, names := map[string]string{}, []string{}
		for _, name := range slices.Sorted(maps.Keys(u.secrets)) {
			s := u.secrets[name]
			if held[s.from] == nil {
				held[s.from] = new(corev1.Secret)
				if err := client.IgnoreNotFound(c.direct.Get(ctx, s.from, held[s.from])); err != nil {
					return err
				}
			}
			what := fmt.Sprint(u.resource.Namespace, name, s)
			if hashes[what] == "" { // slow on purpose
				hashes[what] = secret.Generation(u.resource.Namespace, name, only(s.keys, held[s.from].Data))
			}
			want[name] = hashes[what]
			names = append(names, nameOf(s.from, u.resource, held[s.from].ResourceVersion))
		}
		if pods[u.resource.Namespace] == nil {
			var err error
			if pods[u.resource.Namespace], err = c.readyPods(ctx, u.resource.Namespace); err != nil {
				return err
			}
		}
		addresses := pods[u.resource.Namespace][u.resource]
		if len(addresses) == 0 {
			continue // what is known stands: those that come read what there is
		}
		places <- struct{}{}
		asking.Go(func() {
			defer func() { <-places }()
			if a := c.ask(ctx, addresses, want, strings.Join(names, ", ")); ctx.Err() == nil && c.credentials.set(u.resource, told{u.of, a}) {
				c.world.wake(u.resource)
			}
		})
	}
	return nil
}

// nameOf names a Secret and what it holds, by a number that tells nothing of that: a hash of a password could be guessed from.
func nameOf(s types.NamespacedName, by plan.Resource, version string) string {
	name := s.Name
	if s.Namespace != by.Namespace {
		name = s.String()
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
func (c *Controller) ask(ctx context.Context, addresses []string, want map[string]string, names string) answer {
	var silent, old, refused bool
	for _, address := range addresses {
		credentials, err := c.credentialsOf(ctx, address)
		if err != nil {
			log.FromContext(ctx).V(1).Info("A Pod does not tell which credentials it uses", "address", address, "error", err.Error())
			silent = true
			continue
		}
		for name, generation := range want {
			known := false
			for _, t := range credentials {
				if t.Secret == name {
					known = true
					refused = refused || t.Message != ""
					old = old || t.Generation != generation
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

// A credential is what a worker says of one Secret.
type credential struct {
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
		if v.deleting || v.outcome.Plan == nil {
			continue
		}
		u := secretUser{resource: r, secrets: map[string]usedSecret{}}
		for name, keys := range workload.SessionSecrets(v.outcome.Plan) {
			s := usedSecret{keys: keys, from: types.NamespacedName{Namespace: r.Namespace, Name: name}}
			if i := slices.IndexFunc(v.outcome.Mirrors, func(m compile.Mirror) bool { return m.To == s.from }); i >= 0 {
				s.from = v.outcome.Mirrors[i].From
			}
			u.secrets[name] = s
		}
		for _, b := range v.outcome.Plan.Brokers {
			to, _ := w.connectionTo(b.Name)
			u.of += b.Name + " " + to.Version + "\n"
		}
		if len(u.secrets) > 0 {
			out = append(out, u)
		}
	}
	return out
}
