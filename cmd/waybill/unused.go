package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// unknownBroker refuses a --broker that no file declares or names: it would be the declared one that is run, with the real messages.
func unknownBroker(given []brokerURL, r references) error {
	for _, u := range given {
		key := brokerKey(u.name)
		if !r.brokers[key.String()] {
			return fmt.Errorf("--broker %s: the files declare no Broker %s, and no resource names it%s", u.name, key, meant(key.String(), names(r.brokers)))
		}
	}
	return nil
}

// warnOfUnused warns of a --service or --step that nothing refers to: most likely its name is misspelt. All resources count, those too that
// do not start.
func (o *overrides) warnOfUnused(stderr io.Writer, l *load) {
	r := referencesOf(l)
	for _, key := range slices.Sorted(maps.Keys(o.services)) {
		if !r.services[key] {
			fmt.Fprintf(stderr, "--service %s: no resource calls this Service%s\n", serviceOfKey(key), meant(serviceOfKey(key), servicesLike(key, r.services)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.steps)) {
		if !r.steps[name] {
			fmt.Fprintf(stderr, "--step %s: no Pipeline has a container step of that name%s\n", name, meant(name, names(r.steps)))
		}
	}
}

// references are what the resources of the files name: Brokers as NAMESPACE/NAME, Services as in services, container steps by their names.
type references struct {
	brokers, services, steps map[string]bool
}

func referencesOf(l *load) references {
	r := references{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	broker := func(namespace string, ref v1alpha1.ResourceReference) {
		if ref.Namespace != "" {
			namespace = ref.Namespace
		}
		r.brokers[namespace+"/"+ref.Name] = true
	}
	service := func(namespace string, ref *v1alpha1.ServiceReference) {
		if ref != nil {
			port := int32(80)
			if ref.Port != nil {
				port = *ref.Port
			}
			r.services[serviceKey(ref.Name, namespace, fmt.Sprint(port))] = true
			r.services[serviceKey(ref.Name, namespace, "")] = true
		}
	}
	for _, b := range l.set.Brokers {
		r.brokers[b.Namespace+"/"+b.Name] = true
	}
	for _, t := range l.set.Topics {
		broker(t.Namespace, t.Spec.BrokerRef)
	}
	for _, m := range l.set.Mailboxes {
		broker(m.Namespace, m.Spec.BrokerRef)
		if m.Spec.DeliverTo != nil {
			service(m.Namespace, m.Spec.DeliverTo.ServiceRef)
		}
	}
	for _, s := range l.set.Subscriptions {
		service(s.Namespace, s.Spec.DeliverTo.ServiceRef)
	}
	for _, p := range l.set.Pollers {
		if p.Spec.HTTP != nil {
			service(p.Namespace, p.Spec.HTTP.ServiceRef)
		}
	}
	for _, p := range l.set.Pipelines {
		if p.Spec.To.HTTP != nil {
			service(p.Namespace, p.Spec.To.HTTP.ServiceRef)
		}
		for _, s := range p.Spec.Steps {
			if s.HTTP != nil {
				service(p.Namespace, s.HTTP.ServiceRef)
			}
			if s.Container != nil {
				r.steps[s.Name] = true
			}
		}
	}
	return r
}

func names(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }

// serviceOfKey spells a key of services as --service has it.
func serviceOfKey(key string) string {
	namespace, name, _ := strings.Cut(strings.TrimSuffix(key, ":"), "/")
	if namespace == "default" {
		return name
	}
	name, port, hasPort := strings.Cut(name, ":")
	if !hasPort {
		return name + "." + namespace
	}
	return name + "." + namespace + ":" + port
}

// servicesLike are the Services that are called, with their ports if key has one.
func servicesLike(key string, called map[string]bool) []string {
	var out []string
	for _, k := range names(called) {
		if strings.HasSuffix(k, ":") == strings.HasSuffix(key, ":") {
			out = append(out, serviceOfKey(k))
		}
	}
	return out
}
