package manifest

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// place is where an object stands.
type place struct {
	file string
	node *yaml.Node
}

// Locate names the file of an object and the line of one of its fields, given as a Kubernetes path such as spec.steps[2].filter.cel. A field
// that is absent is at the line of the nearest one around it that is there. An object that was not read has no file, and line 0.
func (s *Set) Locate(kind, namespace, name, field string) (file string, line int) {
	p, ok := s.places[Key{kind, namespace, name}]
	if !ok {
		return "", 0
	}
	return p.file, locate(p.node, field)
}

// Amiss says whether what is said of a field of a faulty object may come from its faults: it is not written, or is or has or lies in a field
// that was refused.
func (s *Set) Amiss(kind, namespace, name, field string) bool {
	key := Key{kind, namespace, name}
	fields, ok := s.amiss[key]
	return !ok || nodeAt(s.places[key].node, field) == nil ||
		slices.ContainsFunc(fields, func(f string) bool { return within(f, field) || within(field, f) })
}

func locate(root *yaml.Node, field string) int {
	line := root.Line
	n := root
	for field != "" {
		key, value, rest := step(n, field)
		if value == nil {
			break
		}
		line, n, field = key.Line, value, rest
	}
	return line
}

// step follows the first part of a path. Keys may hold dots and brackets, as those of annotations do: the longest that fits is taken.
func step(n *yaml.Node, field string) (key, value *yaml.Node, rest string) {
	field = strings.TrimPrefix(field, ".")
	inner, after, bracket := "", "", false
	if strings.HasPrefix(field, "[") {
		inner, after, bracket = strings.Cut(field[1:], "]")
	}
	switch {
	case n.Kind == yaml.SequenceNode && bracket:
		i, err := strconv.Atoi(inner)
		if err != nil {
			return selected(n, inner, after)
		}
		if i < 0 || i >= len(n.Content) {
			return nil, nil, ""
		}
		return n.Content[i], n.Content[i], after
	case n.Kind == yaml.MappingNode:
		best := -1
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i].Value
			if bracket && (inner == k || strings.HasPrefix(field[1:], k+"]")) {
				return n.Content[i], n.Content[i+1], field[len(k)+2:]
			}
			if !strings.HasPrefix(field, k) || len(k) <= best {
				continue
			}
			if tail := field[len(k):]; tail == "" || tail[0] == '.' || tail[0] == '[' {
				best = len(k)
				key, value, rest = n.Content[i], n.Content[i+1], tail
			}
		}
	}
	return key, value, rest
}

// selected finds the item of a list that a selector such as name=shape means.
func selected(n *yaml.Node, selector, after string) (key, value *yaml.Node, rest string) {
	name, want, ok := strings.Cut(selector, "=")
	if !ok {
		return nil, nil, ""
	}
	for _, item := range n.Content {
		if text(item, name) == strings.Trim(want, `"`) {
			return item, item, after
		}
	}
	return nil, nil, ""
}
