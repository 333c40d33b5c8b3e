package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// Bounds of one document, so that a small file cannot grow into a large one by aliases, or overflow a stack.
const (
	maxNodes = 500_000
	maxDepth = 200
	// maxFileBytes is what one file may hold: more than all manifests of a large system, and little enough for the memory of a laptop.
	maxFileBytes = 64 << 20
)

// file reads the documents of one file and takes the objects in them.
func (r *reader) file(path string) {
	var data []byte
	var err error
	if path == fromStdin {
		path = stdinsName
		data, err = bounded(cmp.Or[io.Reader](r.opts.Stdin, strings.NewReader("")))
	} else {
		data, err = content(path)
	}
	r.set.Files = append(r.set.Files, path)
	if err != nil {
		r.unreadable(path, 1, fmt.Sprintf("cannot be read: %v", cause(err)))
		return
	}
	r.source(path, data)
}

func content(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bounded(f)
}

// bounded reads all, unless it is more than a manifest can be: a device, or a wrong file.
func bounded(from io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, maxFileBytes+1))
	if err == nil && len(data) > maxFileBytes {
		err = fmt.Errorf("it has more than %d MiB, which is no manifest any more", maxFileBytes>>20)
	}
	return data, err
}

func (r *reader) source(path string, data []byte) {
	data = toUTF8(data)
	parse := parseYAML
	if strings.EqualFold(filepath.Ext(path), ".json") {
		parse = parseJSON
	}
	roots, faults := parse(data)
	for len(roots) > 0 {
		root := roots[0]
		roots = roots[1:]
		if first, second, line := twoObjects(root); second != nil {
			r.unreadable(path, line, "a second object begins here: put --- on a line of its own before it")
			root, roots = first, append([]*yaml.Node{second}, roots...)
		}
		e := expander{begin: root.Line, secretive: holdsSecret(root)}
		n := e.expand(root, 0)
		if e.err != nil {
			if line, ok := lineOf(data, e.err.line); ok && strings.Contains(line, "{{") {
				e.err.message = notRendered
			}
			r.broken(path, broken{*e.err, r.keyOf(root)})
			continue
		}
		for _, d := range e.duplicates {
			r.duplicate(path, n, d)
		}
		r.document(path, n)
	}
	for _, f := range faults {
		r.broken(path, f)
	}
}

// broken refuses a document that cannot be parsed, and remembers whose it seems to be.
func (r *reader) broken(path string, f broken) {
	of := f.of
	if of.Namespace == "" && of.Name != "" {
		of.Namespace = r.opts.Namespace
	}
	if of.Kind != "" && of.Name != "" {
		r.set.Refused = append(r.set.Refused, of)
	} else {
		of = Key{}
	}
	r.diagnostics = append(r.diagnostics, Diagnostic{
		File: path, Line: max(f.line, 1), Kind: of.Kind, Namespace: of.Namespace, Name: of.Name, Reason: string(v1alpha1.ReasonUnreadable), Message: f.message,
	})
}

// keyOf is whose a document is.
func (r *reader) keyOf(root *yaml.Node) Key {
	k := Key{Kind: text(root, "kind")}
	if meta := child(root, "metadata"); meta != nil {
		k.Name, k.Namespace = text(meta, "name"), cmp.Or(text(meta, "namespace"), r.opts.Namespace)
	}
	return k
}

func (r *reader) unreadable(path string, line int, message string) {
	r.diagnostics = append(r.diagnostics, Diagnostic{File: path, Line: max(line, 1), Reason: string(v1alpha1.ReasonUnreadable), Message: message})
}

// duplicate refuses a key that stands twice in a mapping.
func (r *reader) duplicate(path string, root *yaml.Node, f fault) {
	of := r.keyOf(root)
	r.diagnostics = append(r.diagnostics, Diagnostic{
		File: path, Line: f.line, Kind: of.Kind, Namespace: of.Namespace, Name: of.Name, Reason: string(v1alpha1.ReasonDuplicate), Message: f.message,
	})
}

// A fault is something wrong with the text itself.
type fault struct {
	line    int
	message string
}

var (
	yamlLine      = regexp.MustCompile(`^line (\d+): `)
	parserError   = regexp.MustCompile(`^did not find expected (',' or '[]}]'|key|'-' indicator|node content|<document start>)`)
	unknownAnchor = regexp.MustCompile(`^` + notYAML + `unknown anchor '(.+)' referenced`)
)

const notYAML = "is not YAML: "

// decodeYAML gives the documents up to the first that is not YAML, and why it is none in the parser's own words.
func decodeYAML(data []byte) (roots []*yaml.Node, f *fault) {
	// The parser reports its own inconsistencies by panics; whatever the input, it is the input that is refused.
	defer func() {
		if p := recover(); p != nil {
			f = &fault{1, fmt.Sprint(notYAML, p)}
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err != nil {
			text := strings.TrimPrefix(err.Error(), "yaml: ")
			line := 1
			if m := yamlLine.FindStringSubmatch(text); m != nil {
				line, _ = strconv.Atoi(m[1])
				text = text[len(m[0]):]
				if parserError.MatchString(text) {
					line++ // counted from 0, unlike the scanner's
				}
			}
			return roots, &fault{line, notYAML + text}
		}
		if len(n.Content) == 1 {
			roots = append(roots, n.Content[0])
		}
	}
}

// expander copies a document with its aliases and merges put in place. Each part keeps the line at which it is written.
type expander struct {
	begin      int  // the document's first line
	secretive  bool // a key may be a value that nobody should see
	nodes      int
	open       []*yaml.Node // anchors being expanded
	duplicates []fault
	err        *fault
}

func (e *expander) fail(line int, format string, args ...any) {
	if e.err == nil {
		e.err = &fault{line, fmt.Sprintf(format, args...)}
	}
}

// holdsSecret says of a document what mayBeSecret says of a text.
func holdsSecret(n *yaml.Node) bool {
	return strings.EqualFold(n.Value, "Secret") || n.Value == "stringData" || slices.ContainsFunc(n.Content, holdsSecret)
}

func (e *expander) expand(n *yaml.Node, depth int) *yaml.Node {
	e.nodes++
	switch {
	case e.err != nil:
		return n
	case e.nodes > maxNodes:
		e.fail(n.Line, "the document is too large once its aliases are put in place: write it out, or split it")
		return n
	case depth > maxDepth:
		e.fail(n.Line, "the document is nested deeper than %d levels", maxDepth)
		return n
	case n.Kind == yaml.AliasNode:
		switch {
		case n.Alias.Line < e.begin: // the parser keeps anchors for the whole file, and YAML only for their document
			e.fail(n.Line, noAnchor)
			return n
		case slices.Contains(e.open, n.Alias):
			e.fail(n.Line, "an alias (*) stands inside the thing that it stands for: write it out")
			return n
		}
		e.open = append(e.open, n.Alias)
		out := e.expand(n.Alias, depth+1)
		e.open = e.open[:len(e.open)-1]
		return out
	}
	out := *n
	out.Content = nil
	if n.Kind == yaml.MappingNode {
		e.mapping(n, &out, depth)
		return &out
	}
	for _, c := range n.Content {
		out.Content = append(out.Content, e.expand(c, depth+1))
	}
	return &out
}

// mapping copies the pairs of a mapping; those that are merged in give way to those written out.
func (e *expander) mapping(n, out *yaml.Node, depth int) {
	seen := map[string]int{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.AliasNode {
			k = e.expand(k, depth+1)
		}
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			merges = append(merges, e.expand(v, depth+1))
			continue
		}
		if k.Kind != yaml.ScalarNode {
			e.fail(k.Line, "a key must be a plain word")
			return
		}
		if first, ok := seen[k.Value]; ok {
			named := fmt.Sprintf("the key %q", k.Value)
			if e.secretive {
				named = "a key"
			}
			e.duplicates = append(e.duplicates, fault{k.Line, fmt.Sprintf("%s is written twice here, first at line %d: remove one", named, first)})
			continue
		}
		seen[k.Value] = k.Line
		key := *k
		out.Content = append(out.Content, &key, e.expand(v, depth+1))
	}
	for _, m := range merges {
		list := []*yaml.Node{m}
		if m.Kind == yaml.SequenceNode {
			list = m.Content
		}
		for _, from := range list {
			if from.Kind != yaml.MappingNode {
				e.fail(from.Line, "<< merges mappings, and this is none")
				return
			}
			for i := 0; i+1 < len(from.Content); i += 2 {
				if k := from.Content[i]; seen[k.Value] == 0 {
					seen[k.Value] = k.Line
					out.Content = append(out.Content, k, from.Content[i+1])
				}
			}
		}
	}
}
