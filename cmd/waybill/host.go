package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
	"github.com/waybill-dev/waybill/runtime/tracing"
)

// A laptop hosts the engine where there is no cluster: an embedded broker, Secrets from the manifests, Services on this machine.
type laptop struct {
	state    *state
	embedded *nats.Embedded // nil when no plan needs it
	secrets  *secret.Memory
	services services
	origin   string // http://HOST:PORT
}

// needsEmbedded reports whether any plan runs on the embedded broker.
func needsEmbedded(plans []*plan.Plan) bool {
	for _, p := range plans {
		for _, b := range p.Brokers {
			if b.Protocol == "Embedded" {
				return true
			}
		}
	}
	return false
}

func (l *laptop) startEmbedded(ctx context.Context, log *slog.Logger) (err error) {
	l.embedded, err = nats.StartEmbedded(ctx, nats.EmbeddedConfig{Dir: l.state.path("nats"), Logger: log})
	return err
}

func (l *laptop) host(tracer *tracing.Tracer, log *slog.Logger) (engine.Host, error) {
	key, err := l.state.key()
	if err != nil {
		return engine.Host{}, fmt.Errorf("the key of lease tokens: %w", err)
	}
	drivers := map[string]driver.Open{"NATS": nats.Open}
	if l.embedded != nil {
		drivers["Embedded"] = l.embedded.Open
	}
	return engine.Host{
		Drivers: drivers,
		Secrets: l.secrets,
		Checkpoint: func(r plan.Resource) (checkpoint.Store, error) {
			return checkpoint.File(l.state.path("pollers", r.Namespace, r.Name+".json")), nil
		},
		Base:       plan.Resource.Path,
		LeaseKeys:  func() ([][]byte, error) { return [][]byte{key}, nil },
		Outbound:   outbound.New(outbound.Config{Secrets: l.secrets, Service: l.service, Wrap: tracer.Transport}),
		Administer: true,
		Tracing:    tracer,
		Log:        log,
	}, nil
}

// service finds a Service by --service, or among our own gateways, whose Services are named NAME-KIND.
func (l *laptop) service(s plan.Service) (string, error) {
	if url, ok := l.services.lookup(s); ok {
		return url, nil
	}
	if r, ok := ownGateway(s); ok {
		if s.Port == plan.HealthPort {
			return l.origin + s.Path, nil
		}
		return l.origin + r.Path() + s.Path, nil
	}
	return "", fmt.Errorf("the Service %s/%s is not on this machine: add --service %s=URL", s.Namespace, s.Name, serviceFlag(s))
}

// ownGateway tells which resource a Service would belong to if it were one of ours.
func ownGateway(s plan.Service) (plan.Resource, bool) {
	for _, kind := range []string{"Topic", "Mailbox", "Endpoint"} {
		if name, ok := strings.CutSuffix(s.Name, "-"+strings.ToLower(kind)); ok && (s.Port == plan.ServicePort || s.Port == plan.HealthPort) {
			return plan.Resource{Kind: kind, Namespace: s.Namespace, Name: name}, true
		}
	}
	return plan.Resource{}, false
}

func serviceFlag(s plan.Service) string {
	if s.Namespace == "default" {
		return fmt.Sprintf("%s:%d", s.Name, s.Port)
	}
	return fmt.Sprintf("%s.%s:%d", s.Name, s.Namespace, s.Port)
}

// unmapped returns the Services that p calls and that nothing on this machine stands for.
func (l *laptop) unmapped(p *plan.Plan, running func(plan.Resource) bool) []compile.ServiceUse {
	var missing []compile.ServiceUse
	for _, s := range compile.NeedsOf(p).Services {
		if _, ok := l.services.lookup(s.Service); ok {
			continue
		}
		if r, ok := ownGateway(s.Service); ok && running(r) {
			continue
		}
		missing = append(missing, s)
	}
	return missing
}

// secretsOf takes over the Secrets of the manifests.
func secretsOf(l *load) *secret.Memory {
	m := new(secret.Memory)
	for _, s := range l.set.Secrets {
		m.Put(s.Namespace, s.Name, s.Data)
	}
	return m
}

// address is where a resource is served, "" when it is not.
func (l *laptop) address(o *compile.Outcome) string {
	if o.Plan == nil {
		return ""
	}
	below, ok := o.Plan.Served()
	if !ok {
		return ""
	}
	return l.origin + o.Resource.Path() + below
}

// mirror copies the Secrets that a plan reads under another name because their Broker is in another namespace, as the operator does. The
// server in this process asks nobody who they are: the Secret with which a cluster's would be asked is there, and empty.
func mirror(outcomes []compile.Outcome, secrets *secret.Memory) {
	for _, o := range outcomes {
		for _, m := range o.Mirrors {
			secrets.Copy(m.From.Namespace, m.From.Name, m.To.Namespace, m.To.Name)
		}
		if o.Plan == nil {
			continue
		}
		for _, b := range o.Plan.Brokers {
			if b.Protocol != "Embedded" {
				continue
			}
			if _, err := secrets.Value(o.Resource.Namespace, b.Secret, v1alpha1.SecretKeyUsername); errors.Is(err, secret.ErrNoSecret) {
				secrets.Put(o.Resource.Namespace, b.Secret, nil)
			}
		}
	}
}

// override applies --broker. declared is the input with the Brokers that the files lack; here has, besides, the connections of --broker in
// the place of the declared ones. Credentials of a URL go into a Secret of their own, never into a plan.
func override(in compile.Input, urls []brokerURL, secrets *secret.Memory) (declared, here compile.Input, err error) {
	declared, here = in, in
	declared.Brokers, here.Brokers = slices.Clone(in.Brokers), slices.Clone(in.Brokers)
	for _, u := range urls {
		key := brokerKey(u.name)
		b := &v1alpha1.Broker{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Broker"},
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		at := slices.IndexFunc(in.Brokers, func(b *v1alpha1.Broker) bool { return b.Namespace == key.Namespace && b.Name == key.Name })
		if at >= 0 {
			b.ObjectMeta = in.Brokers[at].ObjectMeta
			old := in.Brokers[at].Spec
			b.Spec = v1alpha1.BrokerSpec{SecretRef: old.SecretRef, AllowedNamespaces: old.AllowedNamespaces, Prefix: old.Prefix}
			if u.tls && old.NATS != nil && old.NATS.TLS != nil {
				b.Spec.NATS = &v1alpha1.NATSBroker{TLS: old.NATS.TLS} // whom to trust is declared with the Broker
			}
		}
		if err := u.connect(&b.Spec); err != nil {
			return in, in, err
		}
		if u.username != "" || u.password != "" {
			name := "waybill-broker-" + b.Name
			login := map[string][]byte{"username": []byte(u.username), "password": []byte(u.password)}
			if u.protocol == "NATS" && u.password == "" {
				// A name without a password is a token, as NATS's own tools have it.
				login = map[string][]byte{"token": []byte(u.username)}
			}
			secrets.Put(b.Namespace, name, login)
			declared.Secrets = withSecret(declared.Secrets, b.Namespace, name, slices.Sorted(maps.Keys(login)))
			here.Secrets = declared.Secrets
			b.Spec.SecretRef = &v1alpha1.SecretReference{Name: name}
		}
		if at >= 0 {
			here.Brokers[at] = b
		} else {
			declared.Brokers, here.Brokers = append(declared.Brokers, b), append(here.Brokers, b)
		}
	}
	return declared, here, nil
}

// alone takes replicas out: they are a matter of placement, and here is one place.
func alone(in compile.Input) compile.Input {
	in.Topics, in.Mailboxes = each(in.Topics, func(t *v1alpha1.Topic) { t.Spec.Replicas = nil }), each(in.Mailboxes, func(m *v1alpha1.Mailbox) { m.Spec.Replicas = nil })
	in.Subscriptions = each(in.Subscriptions, func(s *v1alpha1.Subscription) { s.Spec.Replicas = nil })
	in.Endpoints = each(in.Endpoints, func(e *v1alpha1.Endpoint) { e.Spec.Replicas = nil })
	in.Pipelines = each(in.Pipelines, func(p *v1alpha1.Pipeline) { p.Spec.Replicas = nil })
	return in
}

// each returns changed copies.
func each[T any, P interface {
	*T
	DeepCopy() P
}](list []P, change func(P)) []P {
	out := make([]P, len(list))
	for i, o := range list {
		out[i] = o.DeepCopy()
		change(out[i])
	}
	return out
}

// connect makes spec one of u's protocol and address.
func (u *brokerURL) connect(spec *v1alpha1.BrokerSpec) error {
	switch u.protocol {
	case "Embedded":
		spec.Type, spec.SecretRef, spec.NATS = v1alpha1.BrokerEmbedded, nil, nil
	case "NATS":
		spec.Type = v1alpha1.BrokerNATS
		if spec.NATS == nil {
			spec.NATS = new(v1alpha1.NATSBroker)
		}
		if u.tls && spec.NATS.TLS == nil {
			spec.NATS.TLS = new(v1alpha1.TLS)
		}
		for _, a := range u.addresses {
			spec.NATS.Servers = append(spec.NATS.Servers, v1alpha1.BrokerAddress(a))
		}
	default:
		return fmt.Errorf("--broker %s: this version of waybill has no driver for %s yet: use embedded: or a nats:// address", u.name, u.protocol)
	}
	return nil
}
