package manifest

import (
	"encoding/base64"

	"go.yaml.in/yaml/v3"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// secret takes a core/v1 Secret. What it holds is never named in a message.
func (r *reader) secret(o *object) {
	if o.Name == "" {
		r.refuse(o, Diagnostic{Field: "metadata.name", Reason: string(v1alpha1.ReasonInvalid), Message: "is required"})
		return
	}
	known := []string{"apiVersion", "kind", "metadata", "data", "stringData", "type", "immutable"}
	r.onlyKnown(o, o.node, "", known)
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
	if r.take(o) {
		if o.refused {
			r.set.Refused = append(r.set.Refused, o.Key)
			return
		}
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

// onlyKnown refuses the fields of a mapping that are not among the known.
func (r *reader) onlyKnown(o *object, n *yaml.Node, path string, known []string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if !contains(known, k.Value) {
			r.refuse(o, Diagnostic{Line: k.Line, Field: join(path, k.Value), Reason: string(v1alpha1.ReasonUnknownField), Message: unknown(k.Value, known)})
		}
	}
}
