package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"

	"go.yaml.in/yaml/v3"
)

// parseJSON gives the documents up to the first that is not JSON, as the nodes that the same text in YAML would give. (YAML is not quite a
// superset: tabs and escaped surrogates are read differently.)
func parseJSON(data []byte) ([]*yaml.Node, []broken) {
	p := jsonParser{dec: json.NewDecoder(bytes.NewReader(data)), data: data}
	p.dec.UseNumber()
	for i, c := range data {
		if c == '\n' {
			p.lines = append(p.lines, i)
		}
	}
	var roots []*yaml.Node
	for {
		t, err := p.dec.Token()
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err == nil {
			var n *yaml.Node
			if n, err = p.value(t, 0); err == nil {
				roots = append(roots, n)
				continue
			}
		}
		at := p.dec.InputOffset()
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			at = max(at, syntax.Offset-1)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err, at = errors.New("it ends in the middle of a value"), int64(len(data))
		}
		return roots, []broken{{fault: fault{p.line(at), explainJSON(data, at, err.Error())}}}
	}
}

type jsonParser struct {
	dec   *json.Decoder
	data  []byte
	lines []int // offsets of line ends
}

func (p *jsonParser) line(offset int64) int {
	return sort.SearchInts(p.lines, int(offset)) + 1
}

// value builds the node that begins with token t, which was just read.
func (p *jsonParser) value(t json.Token, depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("it is nested deeper than %d levels", maxDepth)
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: p.line(p.dec.InputOffset() - 1)}
	switch t := t.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		if t == '[' {
			n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		}
		return n, p.content(n, depth)
	case string:
		n.Tag, n.Value, n.Style = "!!str", t, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!float", t.String()
		if _, err := t.Int64(); err == nil {
			n.Tag = "!!int"
		}
	case bool:
		n.Tag, n.Value = "!!bool", fmt.Sprint(t)
	case nil:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}

// content reads what an object or an array holds, and its end.
func (p *jsonParser) content(n *yaml.Node, depth int) error {
	for {
		t, err := p.dec.Token()
		if err != nil {
			return err
		}
		if d, ok := t.(json.Delim); ok && (d == '}' || d == ']') {
			return nil
		}
		c, err := p.value(t, depth+1)
		if err != nil {
			return err
		}
		n.Content = append(n.Content, c)
	}
}
