package manifest

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"

	"github.com/waybill-dev/waybill/runtime/spelling"
)

func contains(list []string, s string) bool { return slices.Contains(list, s) }

// belongsUnder names the field beside an unknown one that has a field of that name: what is written one level too far to the left. "" when
// there is none, or more than one.
func belongsUnder(name, path string, s *schema.Structural) string {
	var under []string
	for sibling, p := range s.Properties {
		if _, ok := p.Properties[name]; ok && sibling != "status" {
			under = append(under, sibling)
		}
	}
	if path == "" && contains(under, "metadata") {
		under = []string{"metadata"}
	}
	if len(under) != 1 {
		return ""
	}
	return under[0]
}

// surroundings are the mapping in which another one lies.
type surroundings struct {
	node   *yaml.Node
	schema *schema.Structural
}

// lack says whether a field could stand there and does not.
func (s surroundings) lack(name string) bool {
	_, ok := s.schema.Properties[name]
	return ok && child(s.node, name) == nil
}

// unknown says that a field is not known, and which may have been meant.
func unknown(name string, known []string) string {
	if field, value, ok := strings.Cut(name, ":"); ok && contains(known, field) {
		return fmt.Sprintf("unknown field: a space is missing after the colon: write %s: %s", field, value)
	}
	if near := spelling.Nearest(name, known); near != "" {
		return fmt.Sprintf("unknown field: did you mean %s?", near)
	}
	switch len(known) {
	case 0:
		return "unknown field: remove it, for nothing more can be set here"
	case 1:
		return "unknown field: all that can be set here is " + known[0]
	}
	return "unknown field: known here are " + listed(known)
}

// listed is a list as prose has it, cut after two dozen.
func listed(words []string) string {
	words = slices.Sorted(slices.Values(words))
	if len(words) > 24 {
		return strings.Join(words[:24], ", ") + " and more"
	}
	return inProse(words)
}
