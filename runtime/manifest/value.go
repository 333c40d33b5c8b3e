package manifest

import (
	"math"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// oldBools are words that kubectl, which reads YAML 1.1, takes for true and false. They are read the same way here, or a manifest that works
// on a laptop would be refused by the cluster.
var oldBools = map[string]bool{
	"y": true, "Y": true, "yes": true, "Yes": true, "YES": true, "on": true, "On": true, "ON": true,
	"n": false, "N": false, "no": false, "No": false, "NO": false, "off": false, "Off": false, "OFF": false,
}

// value gives a node as JSON values: map[string]any, []any, string, int64, float64, bool and nil.
func value(n *yaml.Node) (any, *fault) {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			v, f := value(n.Content[i+1])
			if f != nil {
				return nil, f
			}
			m[n.Content[i].Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		l := make([]any, 0, len(n.Content))
		for _, c := range n.Content {
			v, f := value(c)
			if f != nil {
				return nil, f
			}
			l = append(l, v)
		}
		return l, nil
	}
	return scalar(n)
}

func scalar(n *yaml.Node) (any, *fault) {
	switch n.ShortTag() {
	case "!!str", "!!timestamp", "!!merge":
		if b, ok := oldBools[n.Value]; ok && n.Style == 0 {
			return b, nil
		}
		return n.Value, nil
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err == nil {
			return b, nil
		}
	case "!!int":
		var i int64
		if err := n.Decode(&i); err == nil {
			return i, nil
		}
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil {
			return f, nil
		}
	case "!!float":
		var f float64
		if err := n.Decode(&f); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
				return int64(f), nil // 1.0 and 1e3 are integers, as they are in JSON for the API server
			}
			return f, nil
		}
	}
	if n.Style&yaml.TaggedStyle != 0 {
		return nil, &fault{n.Line, "begins with !, which YAML takes for a tag: put the whole value in quotes"}
	}
	return nil, &fault{n.Line, "is no value that Kubernetes knows: put it in quotes if it is text"}
}

// child gives the value of a field, or nil.
func child(n *yaml.Node, name string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// text gives a field's value where it is a string.
func text(n *yaml.Node, name string) string {
	if v := child(n, name); v != nil && v.Kind == yaml.ScalarNode && v.ShortTag() == "!!str" {
		return v.Value
	}
	return ""
}
