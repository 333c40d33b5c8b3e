package manifest

import (
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	labelvalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/spelling"
)

// validate checks every object that was taken, on all processors, and makes the valid ones into what the rest of the program works with.
func (r *reader) validate() {
	var wg sync.WaitGroup
	next := make(chan *object)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for o := range next {
				if rules, err := schemas[o.Kind](); err != nil {
					o.refuse(Diagnostic{Reason: string(v1alpha1.ReasonInvalid), Message: "cannot be checked: " + err.Error()})
				} else {
					o.check(rules)
				}
			}
		})
	}
	for _, o := range r.objects {
		next <- o
	}
	close(next)
	wg.Wait()
	for _, o := range r.objects {
		if !o.refused {
			if err := r.set.keep(o); err != nil {
				o.refuse(Diagnostic{Reason: string(v1alpha1.ReasonInvalid), Message: "cannot be read: " + err.Error()})
			}
		} else {
			r.set.keepFaulty(o)
		}
		r.diagnostics = append(r.diagnostics, o.faults...)
		if o.refused && o.Name != "" {
			r.set.Refused = append(r.set.Refused, o.Key)
		}
	}
}

// check applies what the API server applies, in its order: unknown fields, nulls, defaults, the schema, metadata, lists, and the CEL rules.
func (o *object) check(rules *rules) {
	misspelt := &misspellings{at: map[string]bool{}, meant: map[string]bool{}}
	o.readings(o.node, "", false)
	misread := o.fields()
	o.unknownFields(o.node, rules.structural, "", misspelt)
	defaulting.PruneNonNullableNullsWithoutDefaults(o.value, rules.structural)
	if meta, ok := o.value["metadata"].(map[string]any); ok {
		if _, ok := meta["namespace"]; !ok {
			meta["namespace"] = o.Namespace
		}
	}
	defaulting.Default(o.value, rules.structural)

	errs := validation.ValidateCustomResource(nil, o.value, rules.values)
	errs = append(errs, o.metadata()...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, rules.structural, o.value)...)
	faults := o.translate(rules, errs, misspelt, misread)

	// The API server evaluates no rule on an object that is malformed. Here they are, so that all faults show at once; but only where a rule
	// says no by itself, and not about what was refused already.
	for _, err := range rules.obey(o.value, rules.bare, nil, "") {
		if d, ok := ruleFault(err); ok && !misspelt.at[d.Field] && !misspelt.meant[d.Field] && !rules.spoilt(d, faults) {
			o.refuse(o.remedied(o.present(d), at(rules.structural, d.Field)))
		}
	}
}

// fields are those that were refused so far.
func (o *object) fields() []string {
	var out []string
	for _, d := range o.faults {
		out = append(out, d.Field)
	}
	return out
}

// spoilt says whether a rule's verdict is worth nothing: what it speaks of lies in a field that was refused already, or the rule looks at one.
func (r *rules) spoilt(d Diagnostic, refused []string) bool {
	for _, p := range refused {
		if within(p, d.Field) {
			return true
		}
		name := strings.TrimRight(p[strings.LastIndexByte(p, '.')+1:], "[]0123456789")
		for _, rule := range r.texts[d.Message] {
			if name != "" && strings.Contains(rule+" ", "."+name+" ") || strings.Contains(rule, "."+name+")") {
				return true
			}
		}
	}
	return false
}

// within says whether inner is outer or a part of it.
func within(outer, inner string) bool {
	tail, ok := strings.CutPrefix(inner, outer)
	return ok && (tail == "" || outer == "" || tail[0] == '.' || tail[0] == '[')
}

// misspellings are what unknown fields may be the cause of.
type misspellings struct {
	at    map[string]bool // objects with an unknown field: that they lack a member is no news
	meant map[string]bool // fields that may have been meant
}

// unknownFields refuses fields that the schema does not have: the API server would drop them silently or warn.
func (o *object) unknownFields(n *yaml.Node, s *schema.Structural, path string, m *misspellings, around ...surroundings) {
	if s == nil {
		return
	}
	if s.XPreserveUnknownFields {
		if n.Kind != yaml.ScalarNode {
			o.readings(n, path, true)
		}
		return
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for i, item := range n.Content {
			o.unknownFields(item, s.Items, fmt.Sprintf("%s[%d]", path, i), m)
		}
	case yaml.MappingNode:
		if s.Type != "object" {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			if p, ok := s.Properties[k.Value]; ok {
				o.unknownFields(v, &p, join(path, k.Value), m, surroundings{n, s})
				continue
			}
			if s.AdditionalProperties != nil {
				o.unknownFields(v, s.AdditionalProperties.Structural, join(path, k.Value), m)
				continue
			}
			var known []string
			for name := range s.Properties {
				if set := child(n, name); set == nil {
					known = append(known, name)
				}
			}
			m.at[path] = true
			if near := spelling.Nearest(k.Value, known); near != "" {
				m.meant[join(path, near)] = true
			}
			if name, _, ok := strings.Cut(k.Value, ":"); ok {
				m.meant[join(path, name)] = true
			}
			says := unknown(k.Value, known)
			switch under := belongsUnder(k.Value, path, s); {
			case k.Value == "namespace" && strings.HasSuffix(strings.ToLower(path), "secretref"):
				says = "unknown field: a Secret is always of the resource's own namespace: remove it, and create the Secret there"
			case k.Value == "namespace" && strings.HasSuffix(path, "serviceRef"):
				says = "unknown field: a Service is always of the resource's own namespace: remove it, or name one of another by its uri"
			case under != "":
				says = "unknown field: it belongs under " + under + "; indent it"
				m.meant[join(path, under)] = true
			case len(around) > 0 && around[0].lack(k.Value):
				says = fmt.Sprintf("unknown field: it belongs beside %s, not under it; indent it less", path[strings.LastIndexByte(path, '.')+1:])
			}
			o.refuse(Diagnostic{Line: k.Line, Field: join(path, k.Value), Reason: string(v1alpha1.ReasonUnknownField), Message: says})
		}
	}
}

// metadata checks names, labels and annotations by Kubernetes' general rules. Those for the name itself are narrower and stand in the CRD.
func (o *object) metadata() field.ErrorList {
	m, ok := o.value["metadata"].(map[string]any)
	if !ok {
		return nil
	}
	meta := metav1.ObjectMeta{Name: "x", Namespace: "default", Annotations: texts(m["annotations"])}
	if ns, ok := m["namespace"].(string); ok {
		meta.Namespace = ns
	}
	errs := apivalidation.ValidateObjectMeta(&meta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	labels := texts(m["labels"])
	for _, k := range slices.Sorted(maps.Keys(labels)) { // one by one: of all together it does not say whose value is refused
		errs = append(errs, labelvalidation.ValidateLabels(map[string]string{k: labels[k]}, field.NewPath("metadata", "labels", k))...)
	}
	return errs
}

func texts(v any) map[string]string {
	m, _ := v.(map[string]any)
	out := make(map[string]string, len(m))
	for k, v := range m {
		if s, ok := v.(string); ok {
			out[k] = s
		}
	}
	return out
}

// keep decodes an object into its type.
func (s *Set) keep(o *object) error {
	data, err := json.Marshal(o.value)
	if err == nil {
		switch o.Kind {
		case "Broker":
			s.Brokers, err = decode(s.Brokers, data)
		case "Topic":
			s.Topics, err = decode(s.Topics, data)
		case "Subscription":
			s.Subscriptions, err = decode(s.Subscriptions, data)
		case "Mailbox":
			s.Mailboxes, err = decode(s.Mailboxes, data)
		case "Poller":
			s.Pollers, err = decode(s.Pollers, data)
		case "Endpoint":
			s.Endpoints, err = decode(s.Endpoints, data)
		case "Pipeline":
			s.Pipelines, err = decode(s.Pipelines, data)
		}
	}
	return err
}

// keepFaulty decodes an object without the fields that have faults. One whose name, namespace or kind may not be meant is left out, and one
// that cannot be read even so.
func (s *Set) keepFaulty(o *object) {
	var fields []string
	for _, d := range o.faults {
		switch {
		case strings.HasPrefix(d.Message, "exactly one of "): // each of them may be wrong by itself too; the compiler takes none
		case strings.HasPrefix(d.Field, "spec."):
			fields = append(fields, d.Field)
		default:
			return
		}
	}
	for _, f := range fields {
		remove(o.value, f)
	}
	if s.Faulty.keep(o) == nil {
		s.amiss[o.Key] = fields
	}
}

// remove takes the field at a path out of a value. An item of a list becomes nothing, so that those behind it keep their places.
func remove(v any, path string) {
	path = strings.TrimPrefix(path, ".")
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			if k == path {
				delete(v, k)
			} else if within(k, path) {
				remove(inner, path[len(k):])
			}
		}
	case []any:
		index, rest, _ := strings.Cut(strings.TrimPrefix(path, "["), "]")
		i, err := strconv.Atoi(index)
		switch {
		case err != nil || i < 0 || i >= len(v):
		case rest == "":
			v[i] = nil
		default:
			remove(v[i], rest)
		}
	}
}

func decode[T any](list []*T, data []byte) ([]*T, error) {
	v := new(T)
	if err := json.Unmarshal(data, v); err != nil {
		return list, err
	}
	return append(list, v), nil
}

// translate refuses an object for what the schema says about it, once a field, and gives these fields.
func (o *object) translate(rules *rules, errs field.ErrorList, m *misspellings, misread []string) []string {
	paths := misread
	for _, err := range errs {
		d := schemaFault(o, rules, err)
		if m.meant[d.Field] || slices.Contains(paths, d.Field) {
			continue
		}
		paths = append(paths, d.Field)
		o.refuse(o.remedied(d, at(rules.structural, d.Field)))
	}
	return paths
}
