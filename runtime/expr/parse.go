package expr

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// kind is what a JSON value is.
type kind uint8

const (
	kindNull kind = iota
	kindFalse
	kindTrue
	kindInteger // a number without fraction and exponent
	kindDecimal // any other number
	kindString
	kindList
	kindObject
)

// A node is one JSON value: where it stands in the text, and how many nodes further the value after it begins. The nodes of a text lie in
// one slice in the order of the text, so that a value's first child is the node after it and its next sibling is skip nodes away.
// Nothing is decoded before somebody asks.
type node struct {
	view       *View // whose text it is
	start, end uint32
	// Of a member of an object: its name, without the quotes.
	nameStart, nameEnd uint32
	skip               uint32 // nodes of this value, itself included
	count              uint32 // members or elements
	index              uint32 // of this node in the slice
	kind               kind
	escaped            bool // a string that holds a backslash
	nameEscaped        bool
}

const (
	// maxDepth bounds nesting, and so the parser's stack.
	maxDepth = 256
	// maxText bounds the length that offsets can name, with room to spare.
	maxText = 1 << 30
	// maxPageValues bounds the values of a polled page, and so the nodes of one: 80 MB.
	maxPageValues = 2_000_000
)

// invalidError is a fault in a JSON text. It names the place, never the text.
type invalidError struct {
	at   int
	what string
}

func (e *invalidError) Error() string {
	return fmt.Sprintf("not valid JSON at byte %d: %s", e.at, e.what)
}

// deepError is the place where a text that may well be JSON is nested too deep to be read.
type deepError int

func (at deepError) Error() string {
	return fmt.Sprintf("nested deeper than the %d levels that an expression reads, at byte %d", maxDepth, int(at))
}

var errTooLong = errors.New("the JSON text is longer than 1 GiB")

// A parser reads JSON as RFC 8259 defines it and nothing else: no NaN, no leading zero, no bare control character, no bad escape, no text
// that is not UTF-8. Who copies a subtree of what it has read therefore copies valid JSON.
type parser struct {
	view     *View
	src      []byte
	nodes    []node
	nonASCII bool
}

// parse appends the nodes of src to nodes.
func parse(view *View, src []byte, nodes []node) ([]node, error) {
	if len(src) > maxText {
		return nodes, errTooLong
	}
	p := parser{view: view, src: src, nodes: nodes}
	i, err := p.value(p.space(0), 0, name{})
	if err != nil {
		return p.nodes, err
	}
	if i = p.space(i); i != len(src) {
		return p.nodes, &invalidError{i, "something follows the value"}
	}
	if p.nonASCII && !utf8.Valid(src) {
		return p.nodes, &invalidError{invalidUTF8(src), "not UTF-8"}
	}
	return p.nodes, nil
}

// countValues counts the values of a JSON text. Of what is no JSON text it gives some number.
func countValues(src []byte) int {
	n, quoted := 1, false
	for i := 0; i < len(src); i++ {
		switch src[i] {
		case '"':
			quoted = !quoted
		case '\\':
			i++ // what is escaped ends no string
		case ',':
			if !quoted {
				n++
			}
		case '[', '{':
			if !quoted && i+1 < len(src) && src[i+1] != ']' && src[i+1] != '}' {
				n++
			}
		}
	}
	return n
}

func invalidUTF8(src []byte) int {
	for i := 0; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(src)
}

func (p *parser) space(i int) int {
	for i < len(p.src) && p.src[i] <= ' ' {
		switch p.src[i] {
		case ' ', '\t', '\n', '\r':
			i++
		default:
			return i
		}
	}
	return i
}

// name is where a member's name stands.
type name struct {
	start, end uint32
	escaped    bool
}

// add makes room for a node; whoever calls it writes every field.
func (p *parser) add() *node {
	n := len(p.nodes)
	if n < cap(p.nodes) {
		p.nodes = p.nodes[:n+1]
	} else {
		p.nodes = append(p.nodes, node{})
	}
	return &p.nodes[n]
}

// value reads the value at i and returns the place behind it.
func (p *parser) value(i, depth int, of name) (int, error) {
	src := p.src
	if i >= len(src) {
		return i, &invalidError{i, "a value is missing"}
	}
	start, escaped := i, false
	var k kind
	var err error
	switch c := src[i]; c {
	case '"':
		k = kindString
		i, escaped, err = p.text(i + 1)
	case '{', '[':
		return p.aggregate(i, depth, of)
	case 't':
		k = kindTrue
		i, err = p.word(i, "true")
	case 'f':
		k = kindFalse
		i, err = p.word(i, "false")
	case 'n':
		k = kindNull
		i, err = p.word(i, "null")
	default:
		i, k, err = p.number(i)
	}
	if err != nil {
		return i, err
	}
	index := uint32(len(p.nodes))
	*p.add() = node{
		view: p.view, start: uint32(start), end: uint32(i), nameStart: of.start, nameEnd: of.end,
		skip: 1, index: index, kind: k, escaped: escaped, nameEscaped: of.escaped,
	}
	return i, nil
}

// aggregate reads the object or list at i.
func (p *parser) aggregate(i, depth int, of name) (int, error) {
	if depth == maxDepth {
		return i, deepError(i)
	}
	src := p.src
	self := len(p.nodes)
	k, closing := kindList, byte(']')
	object := src[i] == '{'
	if object {
		k, closing = kindObject, '}'
	}
	*p.add() = node{
		view: p.view, start: uint32(i), nameStart: of.start, nameEnd: of.end, index: uint32(self), kind: k, nameEscaped: of.escaped,
	}
	count := uint32(0)
	if i = p.space(i + 1); i < len(src) && src[i] == closing {
		n := &p.nodes[self]
		n.end, n.skip = uint32(i+1), 1
		return i + 1, nil
	}
	for {
		var member name
		var err error
		if object {
			if i >= len(src) || src[i] != '"' {
				return i, &invalidError{i, "a member's name is missing"}
			}
			member.start = uint32(i + 1)
			if i, member.escaped, err = p.text(i + 1); err != nil {
				return i, err
			}
			member.end = uint32(i - 1)
			if i >= len(src) || src[i] != ':' {
				if i = p.space(i); i >= len(src) || src[i] != ':' {
					return i, &invalidError{i, "a colon is missing"}
				}
			}
			i = p.space(i + 1)
		}
		if i, err = p.value(i, depth+1, member); err != nil {
			return i, err
		}
		count++
		if i = p.space(i); i >= len(src) {
			return i, &invalidError{i, "the text ends within a list or object"}
		}
		switch src[i] {
		case ',':
			i = p.space(i + 1)
		case closing:
			n := &p.nodes[self]
			n.end, n.count, n.skip = uint32(i+1), count, uint32(len(p.nodes)-self)
			return i + 1, nil
		default:
			return i, &invalidError{i, "a comma is missing"}
		}
	}
}

func (p *parser) word(i int, w string) (int, error) {
	if len(p.src)-i < len(w) || string(p.src[i:i+len(w)]) != w {
		return i, &invalidError{i, "no such word; JSON knows true, false and null"}
	}
	return i + len(w), nil
}

// plain tells the bytes of a string that need no look: all but quote, backslash, control characters and what is not ASCII.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x80; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// text reads a string from behind its opening quote and returns the place behind its closing one.
func (p *parser) text(i int) (end int, escaped bool, err error) {
	src := p.src
	for i < len(src) {
		c := src[i]
		if plain[c] {
			i++
			continue
		}
		switch {
		case c == '"':
			return i + 1, escaped, nil
		case c >= 0x80:
			p.nonASCII = true
			i++
		case c == '\\':
			escaped = true
			n := escapeLength(src[i:])
			if n == 0 {
				return i, escaped, &invalidError{i, "no such escape"}
			}
			i += n
		default:
			return i, escaped, &invalidError{i, "a control character in a string"}
		}
	}
	return i, escaped, &invalidError{i, "a string without an end"}
}

// escapeLength is the length of the escape that b begins with, 0 when it is none.
func escapeLength(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(b[2:]); ok {
			return 6
		}
	}
	return 0
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func (p *parser) digits(i int) int {
	for i < len(p.src) && digit(p.src[i]) {
		i++
	}
	return i
}

func (p *parser) number(i int) (int, kind, error) {
	src, start, k := p.src, i, kindInteger
	if src[i] == '-' {
		i++
	}
	whole := i
	i = p.digits(i)
	switch {
	case i == whole:
		return start, k, &invalidError{start, "no value begins like this"}
	case src[whole] == '0' && i > whole+1:
		return start, k, &invalidError{start, "a number with a leading zero"}
	}
	if i < len(src) && src[i] == '.' {
		k = kindDecimal
		fraction := i + 1
		if i = p.digits(fraction); i == fraction {
			return start, k, &invalidError{start, "a number without digits after its point"}
		}
	}
	if i < len(src) && (src[i] == 'e' || src[i] == 'E') {
		k = kindDecimal
		i++
		if i < len(src) && (src[i] == '+' || src[i] == '-') {
			i++
		}
		exponent := i
		if i = p.digits(i); i == exponent {
			return start, k, &invalidError{start, "a number without digits in its exponent"}
		}
	}
	return i, k, nil
}
