package main

import (
	"context"
	"fmt"
	"log/slog"
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

func (l *laptop) host(log *slog.Logger) (engine.Host, error) {
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
		LeaseKeys:  [][]byte{key},
		Outbound:   outbound.New(outbound.Config{Secrets: l.secrets, Service: l.service}),
		Administer: true,
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

// mirror copies the Secrets that a plan reads under another name because their Broker is in another namespace, as the operator does.
func mirror(outcomes []compile.Outcome, l *load, secrets *secret.Memory) {
	for _, o := range outcomes {
		for _, m := range o.Mirrors {
			for _, s := range l.set.Secrets {
				if s.Namespace == m.From.Namespace && s.Name == m.From.Name {
					secrets.Put(m.To.Namespace, m.To.Name, s.Data)
				}
			}
		}
	}
}

// override puts the connections of --broker in the place of the declared ones, or adds Brokers that the files lack. Credentials of the URL go
// into a Secret of their own, never into a plan.
func override(in compile.Input, urls []brokerURL, secrets *secret.Memory) (compile.Input, error) {
	if len(urls) == 0 {
		return in, nil
	}
	brokers := append([]*v1alpha1.Broker(nil), in.Brokers...)
	keys := in.Secrets
	for _, u := range urls {
		at := -1
		for i, b := range brokers {
			if b.Namespace+"/"+b.Name == brokerKey(u.name).String() {
				at = i
			}
		}
		var b *v1alpha1.Broker
		if at < 0 {
			key := brokerKey(u.name)
			b = &v1alpha1.Broker{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Broker"},
				ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
			brokers = append(brokers, b)
		} else {
			b = brokers[at].DeepCopy()
			brokers[at] = b
		}
		b.Status = v1alpha1.BrokerStatus{} // a probe of the declared broker says nothing of this one
		old := b.Spec
		b.Spec = v1alpha1.BrokerSpec{SecretRef: old.SecretRef, AllowedNamespaces: old.AllowedNamespaces, Prefix: old.Prefix}
		addresses := make([]v1alpha1.BrokerAddress, len(u.addresses))
		for i, a := range u.addresses {
			addresses[i] = v1alpha1.BrokerAddress(a)
		}
		var tls *v1alpha1.TLS
		if u.tls {
			tls = &v1alpha1.TLS{}
		}
		switch u.protocol {
		case "Embedded":
			b.Spec.Type, b.Spec.SecretRef = v1alpha1.BrokerEmbedded, nil
		case "NATS":
			b.Spec.Type, b.Spec.NATS = v1alpha1.BrokerNATS, &v1alpha1.NATSBroker{Servers: addresses, TLS: tls}
			if old.NATS != nil {
				b.Spec.NATS.TLS, b.Spec.NATS.JetStreamDomain = old.NATS.TLS, old.NATS.JetStreamDomain
			}
		default:
			return in, fmt.Errorf("broker %s: there is no driver for %s in this build; use a nats:// address, or embedded", u.name, u.protocol)
		}
		if u.username != "" || u.password != "" {
			name := "waybill-broker-" + b.Name
			data := map[string][]byte{"username": []byte(u.username), "password": []byte(u.password)}
			secrets.Put(b.Namespace, name, data)
			keys = withSecret(keys, b.Namespace, name)
			b.Spec.SecretRef = &v1alpha1.SecretReference{Name: name}
		}
	}
	in.Brokers, in.Secrets = brokers, keys
	return in, nil
}
