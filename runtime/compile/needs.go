package compile

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/waybill-dev/waybill/runtime/plan"
)

// Needs are what a host has to provide before a plan can run, apart from the brokers' objects.
type Needs struct {
	Services []ServiceUse
	// Secrets are sorted by name. Those of a Broker in another namespace bear the name of their mirror.
	Secrets []SecretUse
}

// ServiceUse is a Kubernetes Service that a plan calls; on a laptop it needs an address.
type ServiceUse struct {
	plan.Service
	Field string // of the resource: spec.deliverTo.serviceRef
}

// SecretUse is a Secret that a plan reads.
type SecretUse struct {
	types.NamespacedName
	// Keys that must be there, sorted. Of a Broker's credentials none is named: which there are decides how to authenticate.
	Keys []string
}

// NeedsOf lists what a plan needs.
func NeedsOf(p *plan.Plan) Needs {
	n := needs{namespace: p.Resource.Namespace, secrets: map[string][]string{}}
	for i := range p.Brokers {
		b := &p.Brokers[i]
		if b.Secret != "" {
			n.secret(b.Secret)
		}
		if b.TLS != nil {
			n.refs(b.TLS.CA, b.TLS.ClientCert, b.TLS.ClientKey)
		}
	}
	if t := p.Topic; t != nil {
		n.auth(t.Publish, t.Receive)
	}
	if m := p.Mailbox; m != nil {
		n.auth(m.Publish, m.Receive)
	}
	if e := p.Endpoint; e != nil {
		n.auth(e.Auth)
	}
	if p.Poller != nil && p.Poller.HTTP != nil {
		n.service("spec.http.serviceRef", p.Poller.HTTP.Service)
		n.auth(p.Poller.HTTP.Auth)
	}
	if f := p.Flow; f != nil {
		for i, st := range f.Steps {
			if st.HTTP != nil {
				n.call(index("spec.steps", i)+".http.serviceRef", st.HTTP)
			}
		}
		if f.Sink.Push != nil {
			field := "spec.deliverTo.serviceRef"
			if p.Resource.Kind == "Pipeline" {
				field = "spec.to.http.serviceRef"
			}
			n.call(field, &f.Sink.Push.HTTPCall)
		}
	}
	n.refs(DSN(p))
	out := Needs{Services: n.services}
	for name, keys := range n.secrets {
		slices.Sort(keys)
		out.Secrets = append(out.Secrets, SecretUse{types.NamespacedName{Namespace: n.namespace, Name: name}, slices.Compact(keys)})
	}
	slices.SortFunc(out.Secrets, func(a, b SecretUse) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

type needs struct {
	namespace string
	services  []ServiceUse
	secrets   map[string][]string
}

func (n *needs) service(field string, s *plan.Service) {
	if s != nil {
		n.services = append(n.services, ServiceUse{*s, field})
	}
}

func (n *needs) call(field string, c *plan.HTTPCall) {
	n.service(field, c.Service)
	n.auth(c.Auth)
}

func (n *needs) secret(name string, keys ...string) {
	n.secrets[name] = append(n.secrets[name], keys...)
}

func (n *needs) refs(refs ...*plan.SecretRef) {
	for _, r := range refs {
		if r != nil {
			n.secret(r.Name, r.Key)
		}
	}
}

func (n *needs) auth(auths ...*plan.Auth) {
	for _, a := range auths {
		if a == nil {
			continue
		}
		n.refs(a.Bearer)
		if a.Basic != nil {
			n.refs(&a.Basic.Username, &a.Basic.Password)
		}
		if a.Header != nil {
			n.refs(&a.Header.Value)
		}
	}
}
