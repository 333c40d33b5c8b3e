package expr

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"

	"github.com/waybill-dev/waybill/runtime/spelling"
)

// explain makes one error of what CEL found wrong, each fault with its place. Behind a fault of syntax the parser finds others that are none:
// only the first is told.
func explain(env *cel.Env, source string, issues *cel.Issues, s Scope) error {
	var said []string
	for _, e := range issues.Errors() {
		text, _, _ := strings.Cut(e.Message, "\n")
		if strings.Contains(text, "recursion") {
			return fmt.Errorf("the expression is nested deeper than %d levels, or has too many operations in one chain: do part of it in a step of its own", maxRecursion)
		}
		at := spot{source, e.Location.Line(), e.Location.Column()}
		syntax, isSyntax := strings.CutPrefix(text, "Syntax error: ")
		var what string
		if isSyntax || strings.HasPrefix(text, "reserved identifier: ") {
			what, isSyntax = at.syntax(syntax, s), true
		} else {
			what = at.remedy(env, text, s)
		}
		if len(said) == 3 {
			said = append(said, "and more")
			break
		}
		said = append(said, fmt.Sprintf("%s: %s", at, what))
		if isSyntax || strings.Contains(what, writeItAs) {
			break
		}
	}
	return errors.New(strings.Join(said, "; "))
}

// explain says what no message can change about f, which cannot be planned: of its innermost call that cannot, the place and the remedy.
func (f *foreign) explain(source string, s Scope) error {
	_, fault := f.plan()
	var call ast.CallExpr
	at := spot{}
	ast.PostOrderVisit(f.part, ast.NewExprVisitor(func(e ast.Expr) {
		if call != nil || e.Kind() != ast.CallKind {
			return
		}
		if _, err := newForeign(f.env, f.whole, e).plan(); err != nil {
			call, fault = e.AsCall(), err
			if args := call.Args(); len(args) > 0 { // a call's own place is its parenthesis
				e = args[len(args)-1]
			}
			place := f.whole.SourceInfo().GetStartLocation(e.ID())
			at = spot{source, place.Line(), place.Column()}
		}
	}))
	if call == nil {
		return fmt.Errorf("the expression cannot be run: %w", fault)
	}
	text := fault.Error()
	if what := wanted[call.FunctionName()]; what != "" {
		return fmt.Errorf("%s: this is %s, so %s( … ) fails for every message", at, what, call.FunctionName())
	}
	if why, ok := strings.CutPrefix(text, "error parsing regexp: "); ok {
		return fmt.Errorf("%s: this is no regular expression that can be read (RE2): %s", at, strings.ReplaceAll(why, "`", `"`))
	}
	return fmt.Errorf("%s: %s", at, at.remedy(f.env.env, text, s))
}

// What a constant is not that cannot be converted.
var wanted = map[string]string{
	"int": "no whole number of 64 bits", "uint": "no whole number from 0 on of 64 bits", "double": "no number",
	"bool": "neither true nor false", "string": "no text in UTF-8",
}

// A spot is a place in an expression: its line from 1, its column from 0 in characters.
type spot struct {
	source       string
	line, column int
}

// halves are what stands on the line before the spot, and from there on.
func (p spot) halves() (before, after string) {
	lines := strings.Split(p.source, "\n")
	if p.line < 1 || p.line > len(lines) {
		return "", ""
	}
	line := []rune(lines[p.line-1])
	n := min(max(p.column, 0), len(line))
	return string(line[:n]), string(line[n:])
}

// String shows the spot: line 1, column 8 (data.a ▸= 1).
func (p spot) String() string {
	const around = 24
	before, after := p.halves()
	if r := []rune(before); len(r) > around {
		before = "…" + string(r[len(r)-around:])
	}
	if r := []rune(after); len(r) > around {
		after = string(r[:around]) + "…"
	}
	return fmt.Sprintf("line %d, column %d (%s▸%s)", p.line, p.column+1, before, after)
}

var (
	input    = regexp.MustCompile(`input '(.*)' expecting (.*)$`)
	missing  = regexp.MustCompile(`^missing '(.+)' at '(.+)'$`)
	lastWord = regexp.MustCompile(`([A-Za-z_]+)\s*$`)
)

// syntax says in plain words what the parser found.
func (p spot) syntax(text string, s Scope) string {
	before, after := p.halves()
	if say := p.idiom(s); say != "" {
		return say
	}
	if word, ok := strings.CutPrefix(text, "reserved identifier: "); ok {
		if word == "if" {
			return "there is no if: write CONDITION ? A : B"
		}
		return fmt.Sprintf("%s is a reserved word, and no variable", word)
	}
	if strings.HasPrefix(text, "token recognition error at: ") {
		switch {
		case strings.HasPrefix(after, `"`), strings.HasPrefix(after, "'"):
			return "a quotation mark is opened here and never closed: close it"
		case strings.HasPrefix(after, "=>"):
			return "=> is no operator: write >="
		case strings.HasPrefix(after, "="):
			return "write == to compare"
		}
		first := string([]rune(after + " ")[:1])
		return fmt.Sprintf("%s is no part of an expression: remove it, or put it in quotes if it is text", first)
	}
	if m := missing.FindStringSubmatch(text); m != nil {
		if m[2] == "<EOF>" {
			return m[1] + " is missing at the end"
		}
		return fmt.Sprintf("%s is missing before %s", m[1], m[2])
	}
	m := input.FindStringSubmatch(text)
	if m == nil && after == "" {
		return "the expression ends too soon: a name is missing"
	}
	if m == nil {
		return "this cannot stand here: look at what is before it"
	}
	word, wanted := m[1], m[2]
	previous := ""
	if w := lastWord.FindStringSubmatch(before); w != nil {
		previous = w[1]
	}
	operators := map[string]string{"and": "&&", "or": "||", "is": "==", "AND": "&&", "OR": "||", "not": "!", "NOT": "!"}
	switch {
	case word == "<EOF>" && wanted == "':'":
		return "a second value is missing: write CONDITION ? A : B"
	case word == "<EOF>" && strings.HasPrefix(wanted, "{']'"):
		return "] is missing at the end"
	case word == "<EOF>":
		return "the expression ends too soon: a value is missing"
	case operators[word] != "":
		return fmt.Sprintf("there is no %s: write %s", word, operators[word])
	case operators[previous] != "":
		return fmt.Sprintf("there is no %s: write %s", previous, operators[previous])
	case word == ")" || word == "]" || word == "}":
		return word + " is one too many"
	case wanted == "<EOF>":
		return fmt.Sprintf("an operator is missing before %s, such as && or ==", word)
	}
	return fmt.Sprintf("a value is missing before %s", word)
}

const macroFault = " takes other arguments" + writeItAs

// Macros are no functions to CEL, but to who writes them.
var macros = map[string]string{
	"has": "has(data.id)", "all": "data.lines.all(l, l.qty > 0)", "exists": "data.lines.exists(l, l.qty > 0)",
	"exists_one": "data.lines.exists_one(l, l.qty > 0)", "map": "data.lines.map(l, l.sku)", "filter": "data.lines.filter(l, l.qty > 0)",
}

// remedy says what would be right of an expression that can be parsed.
func (p spot) remedy(env *cel.Env, text string, s Scope) string {
	if _, size, ok := strings.Cut(text, "regex program size "); ok {
		size, _, _ = strings.Cut(size, " ")
		return fmt.Sprintf("the regular expression has %s instructions; at most %d are allowed: repeat fewer times in it, or match a part", size, maxRegexProgram)
	}
	if name, ok := quoted(text, "undeclared reference to '"); ok {
		name, dotted := strings.CutPrefix(name, ".")
		if _, after := p.halves(); strings.HasPrefix(after, "(") {
			return unknownFunction(env, name, s)
		}
		say := fmt.Sprintf("there is no %s here", name)
		if right := variable(name, dotted, s); right != "" {
			return say + ": " + right
		}
		if near := spelling.Nearest(name, s.variables()); near != "" {
			return say + "; did you mean " + near + "?"
		}
		return say + "; the variables are " + strings.Join(s.variables(), ", ") + ", and text stands in quotes"
	}
	if operator, ok := quoted(text, "found no matching overload for '"); ok {
		operator = strings.Trim(operator, "_")
		arguments := strings.TrimPrefix(text[strings.Index(text, "applied to")+len("applied to"):], " ")
		if operator == "?_:" {
			return "the values on the two sides of the colon are of different types: make them alike, or write dyn( … ) around each"
		}
		if slices.Contains(methods, operator) && !strings.Contains(arguments, ".(") {
			return fmt.Sprintf("%s stands behind what it looks at%s%s", operator, writeItAs, s.example("data.name."+operator+"( … )"))
		}
		if operator == "+" && strings.Contains(arguments, "(map(") {
			return "+ does not join objects; write a.merge(b)"
		}
		if strings.Contains(arguments, "timestamp") && strings.Contains(arguments, "string") {
			return fmt.Sprintf("%s does not take %s; make a point in time of the text, as in timestamp(time)", operator, strings.Trim(arguments, "'"))
		}
		return fmt.Sprintf("%s does not take %s; convert one side, as in string( … ), int( … ) or double( … )", operator, strings.Trim(arguments, "'"))
	}
	switch {
	case strings.HasPrefix(text, "invalid matches argument"):
		return "this is no regular expression that can be read (RE2): look for brackets that are not closed, and for look-arounds, which there are none"
	case strings.HasPrefix(text, "invalid duration argument"):
		return `this is no duration: write one such as duration("90s") or duration("24h")`
	case strings.HasPrefix(text, "invalid timestamp argument"):
		return `this is no point in time: write one such as timestamp("2026-01-31T12:00:00Z")`
	case strings.HasPrefix(text, "invalid argument to has() macro"):
		return "has() takes a member, as in " + macros["has"]
	}
	return text
}

func unknownFunction(env *cel.Env, name string, s Scope) string {
	if example := macros[name]; example != "" {
		return fmt.Sprintf("%s"+macroFault+"%s", name, example)
	}
	if right := call(name, s); right != "" {
		return right
	}
	known := slices.AppendSeq(slices.Collect(maps.Keys(macros)), maps.Keys(env.Functions()))
	known = slices.DeleteFunc(known, func(f string) bool { return strings.ContainsAny(f, "_@!<>=+*/%-&|?:[].") })
	if near := spelling.Nearest(name, known); near != "" {
		return fmt.Sprintf("there is no function %s; did you mean %s?", name, near)
	}
	return fmt.Sprintf("there is no function %s", name)
}

func quoted(text, begin string) (string, bool) {
	if !strings.HasPrefix(text, begin) {
		return "", false
	}
	name, _, ok := strings.Cut(text[len(begin):], "'")
	return name, ok
}
