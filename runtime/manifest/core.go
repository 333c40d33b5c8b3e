package manifest

import (
	"encoding/base64"
	"regexp"

	"go.yaml.in/yaml/v3"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// secretKey is a key that a Secret can have.
var secretKey = regexp.MustCompile(`^[-._a-zA-Z0-9]+$`)

// secret takes a core/v1 Secret. What it holds is never named in a message.
func (r *reader) secret(o *object) {
	if o.Name == "" {
		r.refuse(o, Diagnostic{Field: "metadata.name", Reason: string(v1alpha1.ReasonInvalid), Message: "is required"})
		return
	}
	r.onlyKnown(o, []string{"apiVersion", "kind", "metadata", "data", "stringData", "type", "immutable"})
	s := &Secret{Namespace: o.Namespace, Name: o.Name, Data: map[string][]byte{}}
	for _, field := range []string{"data", "stringData"} {
		n := child(o.node, field)
		if n == nil || n.ShortTag() == "!!null" {
			continue
		}
		if n.Kind != yaml.MappingNode {
			r.refuse(o, Diagnostic{Field: field, Reason: string(v1alpha1.ReasonInvalid), Message: "must be a mapping of keys to text"})
			continue
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, v := n.Content[i].Value, n.Content[i+1]
			// Within braces {a:b} and {b} are keys without a value, so what looks like a key may be a value: it is not named.
			if !secretKey.MatchString(key) || v.ShortTag() == "!!null" && n.Style&yaml.FlowStyle != 0 {
				r.refuse(o, Diagnostic{Line: n.Content[i].Line, Field: field, Reason: string(v1alpha1.ReasonInvalid),
					Message: "write KEY: VALUE, with a space after the colon and a value that is text; a key is of letters, digits, '-', '_' and '.'"})
				continue
			}
			at := join(field, key)
			if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" {
				r.refuse(o, Diagnostic{Field: at, Reason: string(v1alpha1.ReasonInvalid), Message: "must be text: put the value in quotes"})
				continue
			}
			if field == "stringData" {
				s.Data[key] = []byte(v.Value)
				continue
			}
			b, err := base64.StdEncoding.DecodeString(v.Value)
			if err != nil {
				r.refuse(o, Diagnostic{Field: at, Reason: string(v1alpha1.ReasonInvalid), Message: "is not base64: encode it, or write it as it is under stringData"})
				continue
			}
			s.Data[key] = b
		}
	}
	if o.refused {
		r.set.Refused = append(r.set.Refused, o.Key)
		return
	}
	if r.take(o) {
		r.set.Secrets = append(r.set.Secrets, s)
	}
}

// namespace takes the labels of a core/v1 Namespace: selectors of allowedNamespaces are about them.
func (r *reader) namespace(o *object) {
	labels := map[string]string{}
	meta := child(o.node, "metadata")
	if n := child(meta, "labels"); n != nil && n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			labels[n.Content[i].Value] = n.Content[i+1].Value
		}
	}
	if o.Name != "" {
		r.set.Namespaces[o.Name] = labels
	}
}

// onlyKnown refuses the fields of a Secret that are not among the known.
func (r *reader) onlyKnown(o *object, known []string) {
	for i := 0; i+1 < len(o.node.Content); i += 2 {
		k := o.node.Content[i]
		switch {
		case contains(known, k.Value):
		case secretKey.MatchString(k.Value):
			r.refuse(o, Diagnostic{Line: k.Line, Field: k.Value, Reason: string(v1alpha1.ReasonUnknownField), Message: unknown(k.Value, known)})
		default: // may hold a value
			r.refuse(o, Diagnostic{Line: k.Line, Reason: string(v1alpha1.ReasonUnknownField), Message: "unknown field: write NAME: VALUE, with a space after the colon"})
		}
	}
}
