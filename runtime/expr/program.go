package expr

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Kind is what an expression is to give.
type Kind int

const (
	JSON   Kind = iota // anything that JSON can write
	Bool               // true or false
	String             // a string; a number or bool is written as one
	List               // a list
)

// A Program is a checked expression. It is safe for concurrent use.
type Program struct {
	source  string
	program cel.Program
}

// Check says whether an expression may stand where want is wanted: syntax, names, types and bounds. It evaluates nothing.
func Check(source string, s Scope, want Kind) error {
	_, _, err := check(source, s, want)
	return err
}

// Compile checks an expression and makes it ready to run.
func Compile(source string, s Scope, want Kind) (*Program, error) {
	e, ast, err := check(source, s, want)
	if err != nil {
		return nil, err
	}
	program, err := e.env.Program(ast, e.options...)
	if err != nil {
		return nil, fmt.Errorf("the expression cannot be run: %w", err)
	}
	return &Program{source: source, program: program}, nil
}

func check(source string, s Scope, want Kind) (*environment, *cel.Ast, error) {
	if strings.TrimSpace(source) == "" {
		return nil, nil, errors.New("the expression is empty")
	}
	if len(source) > maxSource {
		return nil, nil, fmt.Errorf("the expression has %d bytes; at most %d are allowed", len(source), maxSource)
	}
	e, err := environments[s]()
	if err != nil {
		return nil, nil, err
	}
	ast, issues := e.env.Compile(source)
	if issues.Err() != nil {
		return nil, nil, explain(issues, s)
	}
	if err := fits(ast.OutputType(), want); err != nil {
		return nil, nil, err
	}
	return e, ast, nil
}

// fits checks the type of a result; dyn fits everything and is checked at run time.
func fits(t *cel.Type, want Kind) error {
	kind := t.Kind()
	switch {
	case want == JSON && kind == types.TypeKind:
		return errors.New("the expression gives a type, which JSON cannot write")
	case want == JSON || kind == types.DynKind || kind == types.AnyKind:
		return nil
	case want == Bool && kind != types.BoolKind:
		return fmt.Errorf("the expression gives %s where true or false is needed; compare it with something, as in %s", article(t), `type == "order.created"`)
	case want == List && kind != types.ListKind:
		return fmt.Errorf("the expression gives %s where a list is needed; name a list, as in data.lines, or write one: [ … ]", article(t))
	case want == String:
		switch kind {
		case types.StringKind, types.IntKind, types.UintKind, types.DoubleKind, types.BoolKind:
			return nil
		}
		return fmt.Errorf("the expression gives %s where a string is needed; name one, as in data.id, or make one with string( … )", article(t))
	}
	return nil
}

// eval runs the program in cel-go.
func (p *Program) eval(ctx context.Context, v *View) (ref.Val, error) {
	out, _, err := p.program.ContextEval(ctx, v)
	if err != nil {
		return nil, p.fault(ctx, err)
	}
	return out, nil
}

// EvalBool gives the truth of the expression.
func (p *Program) EvalBool(ctx context.Context, v *View) (bool, error) {
	out, err := p.eval(ctx, v)
	if err != nil {
		return false, err
	}
	b, ok := out.(types.Bool)
	if !ok {
		return false, p.unfit(out, "true or false")
	}
	return bool(b), nil
}

// EvalString gives a string that stands on its own: it does not alias the message.
func (p *Program) EvalString(ctx context.Context, v *View) (string, error) {
	out, err := p.eval(ctx, v)
	if err != nil {
		return "", err
	}
	switch x := out.(type) {
	case types.String:
		return strings.Clone(string(x)), nil
	case types.Int, types.Uint, types.Double, types.Bool:
		b, err := v.appendValue(nil, x, 0)
		return string(b), p.wrap(err)
	}
	return "", p.unfit(out, "a string")
}

// EvalJSON appends the result as one JSON value to dst.
func (p *Program) EvalJSON(ctx context.Context, v *View, dst []byte) ([]byte, error) {
	out, err := p.eval(ctx, v)
	if err != nil {
		return dst, err
	}
	n := len(dst)
	dst, err = v.appendValue(dst, out, 0)
	if err != nil {
		return dst[:n], p.wrap(err)
	}
	return dst, nil
}

// EvalList gives the elements of a list, each as JSON. Elements of the message's own lists alias its data.
func (p *Program) EvalList(ctx context.Context, v *View) ([][]byte, error) {
	out, err := p.eval(ctx, v)
	if err != nil {
		return nil, err
	}
	if l, ok := out.(*list); ok {
		elements := make([][]byte, 0, l.count)
		(*node)(l).each(func(e *node) bool { elements = append(elements, e.raw()); return true })
		return elements, nil
	}
	l, ok := out.(traits.Lister)
	if !ok {
		return nil, p.unfit(out, "a list")
	}
	elements := make([][]byte, 0, size(l))
	for it := l.Iterator(); it.HasNext() == types.True; {
		e, err := v.appendValue(nil, it.Next(), 1)
		if err != nil {
			return nil, p.wrap(err)
		}
		elements = append(elements, e)
	}
	return elements, nil
}
