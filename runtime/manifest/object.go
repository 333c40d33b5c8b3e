package manifest

import (
	"fmt"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/spelling"
)

// object is one object as it was written.
type object struct {
	Key
	file    string
	node    *yaml.Node
	value   map[string]any
	refused bool
	faults  []Diagnostic
}

// refuse keeps a fault, and that the object is not to be used.
func (o *object) refuse(d Diagnostic) {
	o.refused = true
	d.File, d.Kind, d.Namespace, d.Name = o.file, o.Kind, o.Namespace, o.Name
	if d.Line == 0 {
		d.Line = locate(o.node, d.Field)
	}
	o.faults = append(o.faults, d)
}

var apiVersion = v1alpha1.GroupVersion.String()

// document takes the objects of one document: one, a list of them, or none.
func (r *reader) document(path string, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return // an empty document, as between two lines of ---
	}
	r.set.Objects++
	if n.Kind != yaml.MappingNode {
		r.unreadable(path, n.Line, "is no Kubernetes object: an object begins with apiVersion and kind, such as "+apiVersion+" and Topic")
		return
	}
	o := &object{Key: Key{Kind: text(n, "kind")}, file: path, node: n}
	if meta := child(n, "metadata"); meta != nil {
		o.Name, o.Namespace = text(meta, "name"), text(meta, "namespace")
	}
	if o.Namespace == "" {
		o.Namespace = r.opts.Namespace
	}
	version := text(n, "apiVersion")
	if version == "" || o.Kind == "" {
		r.nameless(o)
		return
	}
	group, _, _ := strings.Cut(version, "/")
	ours := group == v1alpha1.GroupVersion.Group
	switch {
	case version == "v1" && o.Kind == "List", ours && strings.HasSuffix(o.Kind, "List"):
		r.list(o)
	case version == "v1" && o.Kind == "Secret":
		r.secret(o)
	case version == "v1" && o.Kind == "Namespace":
		r.namespace(o)
	case !ours && schemas[o.Kind] != nil && near(version):
		r.refuse(o, Diagnostic{Field: "apiVersion", Reason: string(v1alpha1.ReasonInvalid),
			Message: fmt.Sprintf("there is no %s in %q: did you mean %s?", o.Kind, version, apiVersion)})
	case !ours:
		r.skip(o, version)
	case version != apiVersion:
		r.refuse(o, Diagnostic{Field: "apiVersion", Reason: string(v1alpha1.ReasonInvalid),
			Message: fmt.Sprintf("there is no version %q of this group: use %s", version, apiVersion)})
	case schemas[o.Kind] == nil:
		message := fmt.Sprintf("there is no kind %q in %s", o.Kind, apiVersion)
		if near := spelling.Nearest(o.Kind, kinds); near != "" {
			message += fmt.Sprintf(": did you mean %s?", near)
		} else {
			message += ": there are " + listed(kinds)
		}
		r.refuse(o, Diagnostic{Field: "kind", Reason: string(v1alpha1.ReasonInvalid), Message: message})
	default:
		if r.take(o) {
			r.objects = append(r.objects, o)
		}
	}
}

// near says whether an apiVersion that is not ours was meant to be: its group is missing or misspelt.
func near(version string) bool {
	group, _, found := strings.Cut(version, "/")
	return !found || spelling.Nearest(group, []string{v1alpha1.GroupVersion.Group}) != ""
}

// strangers are files that lie beside manifests and hold none.
var strangers = map[string]string{
	"kustomization.yaml": "is a kustomization, not an object: give what it makes, as in kubectl kustomize DIR | waybill validate -f -",
	"kustomization.yml":  "is a kustomization, not an object: give what it makes, as in kubectl kustomize DIR | waybill validate -f -",
	"chart.yaml":         "is a Helm chart's description, not an object: give what the chart makes, as in helm template DIR | waybill validate -f -",
	"values.yaml":        "are a Helm chart's values, not an object: give what the chart makes, as in helm template DIR | waybill validate -f -",
}

// nameless refuses what does not say what it is.
func (r *reader) nameless(o *object) {
	if says := strangers[strings.ToLower(filepath.Base(o.file))]; says != "" {
		r.refuse(o, Diagnostic{Reason: string(v1alpha1.ReasonUnreadable), Message: says})
		return
	}
	var missing []string
	for _, field := range []string{"apiVersion", "kind"} {
		v := child(o.node, field)
		switch {
		case text(o.node, field) != "":
			continue
		case v != nil && v.ShortTag() != "!!null" && v.ShortTag() != "!!str":
			r.refuse(o, Diagnostic{Field: field, Reason: string(v1alpha1.ReasonInvalid), Message: "must be text, such as " + map[string]string{"apiVersion": apiVersion, "kind": "Topic"}[field]})
			continue
		}
		missing = append(missing, field)
		for i := 0; i+1 < len(o.node.Content); i += 2 {
			if k := o.node.Content[i]; k.Value != field && spelling.Nearest(k.Value, []string{field}) != "" && !contains([]string{"apiVersion", "kind", "metadata", "spec", "status"}, k.Value) {
				r.refuse(o, Diagnostic{Line: k.Line, Field: k.Value, Reason: string(v1alpha1.ReasonUnknownField), Message: "unknown field: did you mean " + field + "?"})
				missing = missing[:len(missing)-1]
				break
			}
		}
	}
	switch len(missing) {
	case 1:
		r.refuse(o, Diagnostic{Field: missing[0], Reason: string(v1alpha1.ReasonInvalid),
			Message: "is required: every object has apiVersion and kind, such as " + apiVersion + " and Topic"})
	case 2:
		r.refuse(o, Diagnostic{Reason: string(v1alpha1.ReasonUnreadable),
			Message: "is no Kubernetes object: an object begins with apiVersion and kind, such as " + apiVersion + " and Topic"})
	}
}

func (r *reader) list(o *object) {
	items := child(o.node, "items")
	if items == nil || items.Kind != yaml.SequenceNode {
		r.refuse(o, Diagnostic{Field: "items", Reason: string(v1alpha1.ReasonInvalid), Message: "is required: a List holds its objects there"})
		return
	}
	for _, n := range items.Content {
		r.document(o.file, n)
	}
}

func (r *reader) skip(o *object, version string) {
	id := [2]string{version, o.Kind}
	if i, ok := r.skipped[id]; ok {
		r.set.Skipped[i].Count++
		return
	}
	r.skipped[id] = len(r.set.Skipped)
	r.set.Skipped = append(r.set.Skipped, Skipped{APIVersion: version, Kind: o.Kind, Count: 1, File: o.file, Line: o.node.Line})
}

// take keeps where an object stands and makes its JSON value. It is false if the object cannot be used at all: it has no name, or it is there
// already.
func (r *reader) take(o *object) bool {
	v, f := value(o.node)
	if f != nil {
		r.refuse(o, Diagnostic{Line: f.line, Field: fieldAt(o.node, f.line), Reason: string(v1alpha1.ReasonInvalid), Message: f.message})
		r.set.Refused = append(r.set.Refused, o.Key)
		return false
	}
	o.value = v.(map[string]any)
	if o.Name == "" {
		return true // the schema says what is wrong with the name
	}
	if first, ok := r.set.places[o.Key]; ok {
		r.refuse(o, Diagnostic{Field: "metadata.name", Reason: string(v1alpha1.ReasonDuplicate),
			Message: fmt.Sprintf("%s %s/%s is declared already, at %s:%d: rename one, or remove it", o.Kind, o.Namespace, o.Name, first.file, locate(first.node, "metadata.name"))})
		return false
	}
	r.set.places[o.Key] = place{o.file, o.node}
	return true
}

// fieldAt is the path of the scalar at a line.
func fieldAt(n *yaml.Node, line int) string {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			if v.Kind == yaml.ScalarNode && v.Line == line {
				return k.Value
			}
			if p := fieldAt(v, line); p != "" {
				return join(k.Value, p)
			}
		}
	case yaml.SequenceNode:
		for i, v := range n.Content {
			at := fmt.Sprintf("[%d]", i)
			if v.Kind == yaml.ScalarNode && v.Line == line {
				return at
			}
			if p := fieldAt(v, line); p != "" {
				return join(at, p)
			}
		}
	}
	return ""
}

// join puts two parts of a path together.
func join(a, b string) string {
	if a == "" || strings.HasPrefix(b, "[") {
		return a + b
	}
	return a + "." + b
}
