package expr

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"regexp"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"
)

// An Error is why an expression gave nothing for one message. It names the expression's part, never a value of the message.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

// A saying is of this package's own words: it may be shown as it is.
type saying string

func (e saying) Error() string { return string(e) }

// fault makes an error of cel-go's presentable. CEL puts values into its errors (a key that is missing, a text that is no number), so
// only their kind is kept.
func (p *Program) fault(ctx context.Context, v *View, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if own, ok := errors.AsType[saying](err); ok {
		return &Error{string(own)}
	}
	var cancelled interpreter.EvalCancelledError
	if errors.As(err, &cancelled) || errors.Is(err, errCost) {
		return &Error{fmt.Sprintf("the expression costs more than %d units for this message (about one for each value it looks at); let it loop over fewer values, or split the message in a step before", maxCost)}
	}
	text := err.Error()
	for _, known := range []struct{ begin, say string }{
		{"no such key", p.absent(text) + v.noJSON()},
		{"no such attribute", p.absent(text) + v.noJSON()},
		{"index out of bounds", "the expression names an element beyond the end of a list"},
		{"no such overload", "an operation met a value of a type that it does not take in this message" + v.noJSON()},
		{"divi", "a division by zero"},
		{"modulus by zero", "a division by zero"},
		{"integer overflow", "a whole number became too large"},
		{"unsigned integer overflow", "a whole number became too large, or negative where that is not possible"},
		{"type conversion error", "a value could not be converted, such as a text that is no number to one"},
		{"invalid RFC 3339 timestamp", "a text is not a point in time of RFC 3339, such as 2026-11-22T10:00:00Z; strptime( … ) reads other forms"},
		{"unknown time zone", string(errZone)},
		{"regex program size", fmt.Sprintf("a regular expression is larger than the %d instructions allowed; repeat fewer times in it, or match a part", maxRegexProgram)},
		{"error parsing regexp", "a regular expression cannot be read"},
		{"regular expression has more than one", "the regular expression of extract() may have one group in parentheses only; write the others as (?: … )"},
		{"index out of range", "the expression names a place beyond the end of a text"},
		{"cannot slice", "slice() names a place beyond the end of a list; bound it with math.least(size( … ), … )"},
		{"illegal base64 data", "a text is not base64"},
		{"error during formatting", "format() met a value of a type that its clause does not take"},
		{"insert failed", "transformMapEntry() made two members with the same name; groupBy( … ) keeps all values of a name"},
		{"lists.range: size", "lists.range() takes 0 to 10000"},
		{"unsupported index", "a list's index must be a whole number"},
		{"the message's data is", text},
		{"the item is", text},
		{"the body is", text},
		{"sum() takes", text},
		{"optional.none() dereference", "an optional value that is absent was used; give another with orValue( … )"},
	} {
		if strings.HasPrefix(text, known.begin) {
			return &Error{known.say}
		}
	}
	return &Error{"the expression failed for this message: a value could not be converted or an argument does not fit its function"}
}

// absent says which member is missing, where the expression spells its name: a name that it computes may be a value.
func (p *Program) absent(text string) string {
	if _, name, ok := strings.Cut(text, "no such key: "); ok {
		if question := p.names()[name]; question != "" {
			return fmt.Sprintf("%q, which the expression names, is missing in this message; ask with %s", name, question)
		}
	}
	return "a member that the expression names is missing in this message; ask with has( … ) or write .?name, or [? … ] for a name in brackets"
}

// noJSON explains why data, or a page's body, has no members, where that is so: it is a client's or a server's most likely mistake.
func (v *View) noJSON() string {
	if v.state != opaque {
		return ""
	}
	var name, whose, contentType string
	switch v.scope {
	case Message:
		name, whose, contentType = "data", "message's", v.msg.DataContentType
	case PageScope:
		name, whose, contentType = "body", "answer's", v.page.ContentType
	default:
		return ""
	}
	what := "a text"
	if _, ok := v.plain.(types.Bytes); ok {
		what = "bytes"
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil || len(media) > maxMedia {
		return fmt.Sprintf("; %s is %s and not JSON, for that is what the %s content type says", name, what, whose)
	}
	return fmt.Sprintf("; %s is %s and not JSON, for the %s content type is %s", name, what, whose, media)
}

const maxMedia = 100

// questions are the names that an expression spells, each with how it asks whether there is a member of that name where it spells it.
func questions(env *cel.Env, a *ast.AST) map[string]string {
	names := map[string]string{}
	valid := func(source string) bool {
		_, issues := env.Parse(source)
		return issues.Err() == nil
	}
	within := func(of ast.Expr, name string) string {
		key := strconv.Quote(name)
		object, err := cel.ExprToString(of, a.SourceInfo())
		if write := object + "[?" + key + "]"; err == nil && len(object) <= maxShown && valid(write) {
			return key + " in " + object + " or write " + write
		}
		return key + " in … or write [?" + key + "]"
	}
	ast.PostOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			name := e.AsSelect().FieldName()
			if names[name] = "has( … ) or write .?" + name; !identifier.MatchString(name) || !valid("data.?"+name) {
				names[name] = within(e.AsSelect().Operand(), name)
			}
		case ast.LiteralKind:
			if s, ok := e.AsLiteral().(types.String); ok && names[string(s)] == "" {
				names[string(s)] = "in, or write [? … ]"
			}
		case ast.CallKind:
			if c := e.AsCall(); c.FunctionName() == operators.Index {
				if s, ok := c.Args()[1].AsLiteral().(types.String); ok && !strings.HasPrefix(names[string(s)], "has(") {
					names[string(s)] = within(c.Args()[0], string(s))
				}
			}
		}
	}))
	return names
}

const maxShown = 60

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (v *View) unfit(x *val, want string) error {
	return &Error{fmt.Sprintf("the expression gave a value of type %s where %s is needed", typeName(x), want) + v.noJSON()}
}

func typeName(x *val) string {
	switch x.kind {
	case vNull:
		return "null"
	case vBool:
		return "bool"
	case vInt:
		return "int"
	case vDouble:
		return "double"
	case vString:
		return "string"
	case vNode:
		if x.node.kind == kindList {
			return "list"
		}
		return "map"
	}
	return x.ref.Type().TypeName()
}

func article(t *cel.Type) string {
	name := cel.FormatCELType(t)
	if strings.ContainsRune("aeiou", rune(name[0])) {
		return "an " + name
	}
	return "a " + name
}
