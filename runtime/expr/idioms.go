package expr

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// What other languages write, and how it is said here. These are remedies for expressions that were refused: nothing of this is read.

// calls are functions and methods by the names that they have elsewhere.
var calls = map[string]string{
	"len": "size(data.lines)", "length": "size(data.lines)", "count": "size(data.lines)",
	"includes": `data.name.contains("x"), or "x" in data.tags`, "any": "data.lines.exists(l, l.qty > 0)", "some": "data.lines.exists(l, l.qty > 0)",
	"every": "data.lines.all(l, l.qty > 0)", "find": "data.lines.filter(l, l.qty > 0)", "select": "data.lines.filter(l, l.qty > 0)",
	"lower": "data.name.lowerAscii()", "toLowerCase": "data.name.lowerAscii()", "toLower": "data.name.lowerAscii()",
	"upper": "data.name.upperAscii()", "toUpperCase": "data.name.upperAscii()", "toUpper": "data.name.upperAscii()",
	"strip": "data.name.trim()", "str": "string(data.id)", "toString": "string(data.id)", "parseInt": "int(data.qty)", "parseFloat": "double(data.price)",
	"Number": "double(data.price)", "typeof": "type(data.id) == string", "defined": "has(data.id)", "isset": "has(data.id)",
	"concat": "data.first + data.second", "not": "!(data.done)",
	"if": "data.qty > 0 ? 1 : 2", "now": "timestamp(time), for the time of the event: there is no clock",
}

// methods are functions that belong behind a dot.
var methods = []string{"contains", "startsWith", "endsWith", "matches", "lowerAscii", "upperAscii", "trim", "split", "replace", "join"}

const writeItAs = ": write it as in "

// call says how a function of another language is written; "" where that is not known.
func call(name string, s Scope) string {
	if right := calls[name]; right != "" {
		return fmt.Sprintf("there is no function %s%s%s", name, writeItAs, s.example(right))
	}
	return ""
}

// signs are what stands at, or just before, the place of a fault of syntax, and what is written instead. The first that fits counts.
var signs = []struct {
	before, after *regexp.Regexp
	say           string
}{
	{nil, regexp.MustCompile(`^=~|^matches\b`), `a pattern is matched by data.name.matches("^a")`},
	{regexp.MustCompile(`\w\s*$`), regexp.MustCompile(`^(contains|startsWith|endsWith)\b`), `a test of text is written data.name.contains("x")`},
	{regexp.MustCompile(`\(\s*\w+\s*$`), regexp.MustCompile(`^=>`), "there are no functions of one's own: write it as in data.lines.exists(l, l.qty > 0)"},
	{regexp.MustCompile(`<$`), regexp.MustCompile(`^>`), "there is no <>: write !="},
	{regexp.MustCompile(`\?\s*$`), regexp.MustCompile(`^\?`), "there is no ??: write coalesce(data.?qty, 1), or has(data.qty) ? data.qty : 1"},
	{regexp.MustCompile(`\bin \([^()]*$`), regexp.MustCompile(`^,`), `a list stands in [ ]: write it as in data.kind in ["a", "b"]`},
	{nil, regexp.MustCompile(`^&(?:[^&]|$)`), "there is no &: write &&"},
	{nil, regexp.MustCompile(`^\|(?:[^|]|$)`), "there is no |: write ||"},
	{nil, regexp.MustCompile(`^;`), "nothing ends with ; here: remove it"},
	{nil, regexp.MustCompile(`^#`), "a comment begins with //"},
	{nil, regexp.MustCompile(`^\$\.`), "there is no $: the content of the message is data, as in data.id"},
	{nil, regexp.MustCompile("^`"), `text stands in " or ', and is put together with +, as in "order " + string(data.id)`},
	{regexp.MustCompile(`(^|\W)f$`), regexp.MustCompile(`^["']`), `text is put together with +, as in "order " + string(data.id)`},
	{nil, regexp.MustCompile(`^@`), "there is no @: the content of the message is data, as in data.id"},
}

// example makes of an example about a message one that has the variables of s.
func (s Scope) example(text string) string {
	if known := s.variables(); !slices.Contains(known, "data") {
		return strings.ReplaceAll(text, "data.", known[0]+".")
	}
	return text
}

// idiom says of a fault of syntax what would be right; "" where it is none of another language.
func (p spot) idiom(s Scope) string {
	before, after := p.halves()
	for _, sign := range signs {
		if (sign.before == nil || sign.before.MatchString(before)) && sign.after.MatchString(after) {
			return s.example(sign.say)
		}
	}
	if after == "" && optional.MatchString(p.source) {
		return s.example("?. is written .? here: write it as in data.?order.?id.orValue(0)")
	}
	return ""
}

var optional = regexp.MustCompile(`\w\?\.\w`)

// names are what the message, or its content, is called elsewhere.
var names = []string{"payload", "event", "msg", "message", "value", "json", "this", "ctx", "req", "request", "record", "input", "headers", "doc", "obj"}

// variable says of a name that is not there what would be right, "" where that is not known. dotted: a point stands before it.
func variable(name string, dotted bool, s Scope) string {
	known := s.variables()
	if right := map[string]string{"True": "true", "False": "false", "TRUE": "true", "FALSE": "false"}[name]; right != "" {
		return "write " + right
	}
	switch name {
	case "nil", "None", "undefined", "NULL", "Null":
		return s.example("write null; whether a member is there at all tells has(data.id)")
	}
	if slices.Contains(known, "data") && (dotted || slices.Contains(names, strings.ToLower(name))) {
		return "the content of the message is data, as in data.id, and its attributes are id, source, type, subject, time, key and attributes"
	}
	return ""
}
