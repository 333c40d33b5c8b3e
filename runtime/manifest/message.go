package manifest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/spelling"
)

// The validators of Kubernetes speak to programs: "spec.replicas in body must be of type integer: \"string\"". These functions say the same
// to a person. What the rules of the CRDs say is said in words of our own already, and kept.

// schemaFault is a violation of the schema.
func schemaFault(o *object, rules *rules, err *field.Error) Diagnostic {
	path := strings.TrimPrefix(err.Field, "<nil>")
	if path == "" {
		path = pathInDetail(err.Detail)
	}
	if key, ok := err.BadValue.(string); ok && path == "metadata.annotations" {
		if at := join(path, key); nodeAt(o.node, at) != nil {
			path = at
		}
	}
	d := Diagnostic{Field: path, Reason: string(v1alpha1.ReasonInvalid)}
	s := at(rules.structural, path)
	if words := outOfRange(nodeAt(o.node, path), s); words != "" {
		d.Message = words
		return d
	}
	switch {
	case s != nil && s.XIntOrString:
		d.Message = "must be an amount, such as 512Ki or 10Gi"
		return d
	case err.Type == field.ErrorTypeRequired:
		d.Message = "is required"
		if s != nil && s.Type == "object" && s.ValueValidation != nil && len(s.ValueValidation.Required) > 0 {
			d.Message += ", with " + inProse(s.ValueValidation.Required) + " in it"
		}
		if n := nodeAt(o.node, path); n != nil && n.ShortTag() == "!!null" {
			d.Message += "; nothing is written here"
		}
		if path == "metadata" {
			d.Message = "is required: every object has a name, as in metadata: {name: orders}"
		}
		if s != nil && s.ValueValidation != nil && len(s.ValueValidation.Enum) > 0 {
			d.Message += ": " + choice(s)
		}
	case err.Type == field.ErrorTypeNotSupported:
		d.Message = "must be " + choice(s)
		if v, ok := err.BadValue.(string); ok {
			d.Message = fmt.Sprintf("%q is not known: it must be %s", v, choice(s))
			if near := spelling.Nearest(v, values(s)); near != "" {
				d.Message = fmt.Sprintf("%q is not known: did you mean %s? It must be %s", v, near, choice(s))
			}
		}
	case err.Type == field.ErrorTypeTypeInvalid:
		one := ""
		if len(values(s)) > 0 {
			one = choice(s)
		}
		d.Message = wrongType(o.node, path, err.Detail, example(s), one)
		if s != nil && s.Type == "string" {
			for _, rule := range s.XValidations {
				if strings.HasPrefix(rule.Message, "must be a duration ") {
					d.Message = rule.Message
				}
			}
		}
	case err.Type == field.ErrorTypeTooLong && s != nil && s.ValueValidation != nil && s.ValueValidation.MaxLength != nil:
		d.Message = fmt.Sprintf("is too long: %d characters are the most", *s.ValueValidation.MaxLength)
	case err.Type == field.ErrorTypeTooMany && s != nil && s.ValueValidation != nil && s.ValueValidation.MaxItems != nil:
		d.Message = fmt.Sprintf("has too many items: %d are the most", *s.ValueValidation.MaxItems)
	case err.Type == field.ErrorTypeTooMany && s != nil && s.ValueValidation != nil && s.ValueValidation.MaxProperties != nil:
		d.Message = fmt.Sprintf("has too many keys: %d are the most", *s.ValueValidation.MaxProperties)
	case err.Type == field.ErrorTypeDuplicate:
		d.Reason = string(v1alpha1.ReasonDuplicate)
		d.Message = "stands here twice"
		if m, ok := err.BadValue.(map[string]any); ok {
			for k, v := range m { // the key of the list; ours have one
				d.Message = fmt.Sprintf("another item has the same %s, %v: it must be unique", k, v)
			}
		}
	case s != nil && strings.HasPrefix(err.Detail, "Checked value must be of type "):
		d.Message = "must be " + typeWords[s.Type]
	case path == "metadata.namespace":
		d.Message = "must be at most 63 characters, lower case letters, digits and '-', and begin and end with a letter or a digit"
	case strings.HasPrefix(path, "metadata.labels"):
		d.Message = labelRule
		if err.Origin == "format=k8s-label-value" {
			d.Message = valueRule
		}
	case strings.HasPrefix(path, "metadata.annotations."):
		d.Message = labelRule
	default:
		d.Message = bound(err)
	}
	return d
}

// What Kubernetes asks of labels and annotations.
const (
	labelRule = "the key must be at most 63 letters, digits, '-', '_' and '.', and begin and end with a letter or a digit; a domain may stand before it, as in example.com/team"
	valueRule = "the value must be at most 63 letters, digits, '-', '_' and '.', and begin and end with a letter or a digit"
)

// ruleFault is a rule of the CRD that said no. Others could not be evaluated, for the value is not what the schema asks for: the schema has
// said so.
func ruleFault(err *field.Error) (Diagnostic, bool) {
	path := strings.TrimPrefix(err.Field, "<nil>")
	if strings.Contains(err.Detail, " evaluating rule: ") || strings.Contains(err.Detail, "for rule: ") || strings.Contains(err.Detail, "no further validation rules") {
		return Diagnostic{}, false
	}
	d := Diagnostic{Field: path, Reason: string(v1alpha1.ReasonInvalid), Message: err.Detail}
	if rest, ok := strings.CutPrefix(err.Detail, "metadata.name "); ok {
		d.Field, d.Message = "metadata.name", rest
	}
	return d, true
}

// outOfRange says the bound of a whole number that is beyond it. The validators say so of most; of those with more digits than the field's
// type has, that they are no whole numbers.
func outOfRange(n *yaml.Node, s *schema.Structural) string {
	if n == nil || s == nil || s.Type != "integer" || s.ValueValidation == nil || n.Kind != yaml.ScalarNode || n.ShortTag() == "!!str" || !digits.MatchString(n.Value) {
		return ""
	}
	v, err := strconv.ParseFloat(n.Value, 64)
	if err != nil {
		return ""
	}
	switch least, most := s.ValueValidation.Minimum, s.ValueValidation.Maximum; {
	case least != nil && v < *least:
		return fmt.Sprintf("must be at least %.0f; it is %s", *least, n.Value)
	case most != nil && v > *most:
		return fmt.Sprintf("must be at most %.0f; it is %s", *most, n.Value)
	}
	return ""
}

var bounds = []struct {
	pattern *regexp.Regexp
	words   string
}{
	{regexp.MustCompile(`should be less than or equal to (\S+)$`), "must be at most %s"},
	{regexp.MustCompile(`should be greater than or equal to (\S+)$`), "must be at least %s"},
	{regexp.MustCompile(`should be at least 1 chars long$`), "must not be empty"},
	{regexp.MustCompile(`should be at least (\d+) chars long$`), "must have at least %s characters"},
	{regexp.MustCompile(`should have at least 1 items$`), "must not be empty: write at least one item"},
	{regexp.MustCompile(`should have at least (\d+) items$`), "must have at least %s items"},
	{regexp.MustCompile(`should have at least 1 properties$`), "must not be empty: write at least one key"},
}

func bound(err *field.Error) string {
	for _, b := range bounds {
		m := b.pattern.FindStringSubmatch(err.Detail)
		switch {
		case len(m) == 2:
			limit := m[1]
			if f, err := strconv.ParseFloat(limit, 64); err == nil {
				limit = strconv.FormatFloat(f, 'f', -1, 64) // not 1e+06
			}
			out := fmt.Sprintf(b.words, limit)
			switch v := err.BadValue.(type) {
			case int64, float64:
				out += fmt.Sprintf("; it is %v", v)
			}
			return out
		case len(m) == 1:
			return b.words
		}
	}
	detail, _, _ := strings.Cut(err.Detail, " (e.g. ")
	if _, after, ok := strings.Cut(detail, " in body "); ok {
		return after
	}
	return detail
}

var details = []*regexp.Regexp{regexp.MustCompile(`^"(\S+)" must validate `), regexp.MustCompile(` in (\S+)$`)}

// pathInDetail finds the field in a message whose error names none.
func pathInDetail(detail string) string {
	for _, d := range details {
		if m := d.FindStringSubmatch(detail); m != nil && m[1] != "body" {
			return m[1]
		}
	}
	return ""
}

var ofType = regexp.MustCompile(`must be of type ([-a-z]+)`)

var typeWords = map[string]string{
	"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false", "array": "a list", "object": "a mapping",
	"int": "a whole number", "date-time": "a time, such as 2026-01-31T12:00:00Z",
}

// example shows how a mapping is written that needs one thing, or what can be in it.
func example(s *schema.Structural) string {
	switch {
	case s == nil || s.Type != "object":
		return ""
	case s.ValueValidation != nil && len(s.ValueValidation.Required) == 1:
		return fmt.Sprintf(" such as {%s: …}", s.ValueValidation.Required[0])
	case len(s.Properties) > 0 && len(s.Properties) < 8:
		return " with " + either(slices.Sorted(maps.Keys(s.Properties))) + " in it"
	}
	return ""
}

// wrongType says what a value should be, and what it is. Of an enum, one says which values there are.
func wrongType(root *yaml.Node, path, detail, example, one string) string {
	m := ofType.FindStringSubmatch(detail)
	if m == nil {
		return detail
	}
	want := typeWords[m[1]]
	if want == "" {
		want = m[1]
	}
	n := nodeAt(root, path)
	if m[1] == "object" {
		want += example
	}
	if m[1] == "array" && n != nil {
		want += " (begin each item with '- ' on a line of its own, or write [ … ])"
	}
	if one != "" {
		want = one
	}
	if n == nil || m[1] == "date-time" {
		return "must be " + want
	}
	got := map[yaml.Kind]string{yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list"}[n.Kind]
	if n.Kind == yaml.ScalarNode {
		v, _ := scalar(n)
		switch v.(type) {
		case string:
			got = "text"
		case int64:
			got = "a number"
		case float64:
			got = "a number with a fraction"
		case bool:
			got = "true or false"
		default:
			got = "empty"
		}
		_, old := oldBools[n.Value]
		switch {
		case m[1] == "string" && old:
			got += fmt.Sprintf(", as which Kubernetes reads %s without quotes", n.Value)
		case m[1] == "string" && v != nil && one == "":
			got += fmt.Sprintf(": put it in quotes, %q", n.Value)
		}
	}
	if m[1] == "object" && n.Kind == yaml.SequenceNode && len(n.Content) == 1 {
		got += " of one: remove the '- ' before it"
	}
	if m[1] == "string" && n.Style&yaml.FlowStyle != 0 {
		got += ": put the whole value in single quotes"
	}
	return fmt.Sprintf("must be %s, not %s", want, got)
}

// nodeAt is the node at a path that is there in full, or nil.
func nodeAt(n *yaml.Node, path string) *yaml.Node {
	for path != "" {
		_, v, rest := step(n, path)
		if v == nil {
			return nil
		}
		n, path = v, rest
	}
	return n
}

// at is the schema of the field at a path.
func at(s *schema.Structural, path string) *schema.Structural {
	for path != "" && s != nil {
		path = strings.TrimPrefix(path, ".")
		if strings.HasPrefix(path, "[") {
			_, rest, _ := strings.Cut(path, "]")
			if s.Items == nil && s.AdditionalProperties != nil {
				s = s.AdditionalProperties.Structural
			} else {
				s = s.Items
			}
			path = rest
			continue
		}
		i := strings.IndexAny(path, ".[")
		if i < 0 {
			i = len(path)
		}
		p, ok := s.Properties[path[:i]]
		switch {
		case ok:
			s = &p
		case s.AdditionalProperties != nil:
			s = s.AdditionalProperties.Structural
		default:
			return nil
		}
		path = path[i:]
	}
	return s
}

func values(s *schema.Structural) []string {
	if s == nil || s.ValueValidation == nil {
		return nil
	}
	var out []string
	for _, v := range s.ValueValidation.Enum {
		if t, ok := v.Object.(string); ok {
			out = append(out, t)
		}
	}
	return out
}

// choice is the values of an enum as prose has them, in their order.
func choice(s *schema.Structural) string {
	if v := values(s); len(v) > 0 {
		return either(v)
	}
	return "one of the values that it can have"
}

// either is words of which one is meant.
func either(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
