package expr

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
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
	root both
	emit emitFn
	list listFn // nil: the list is taken from the root's value
	// names are those that the expression itself spells: its errors may show them, and how each is asked for.
	names func() map[string]string
}

// Check says whether an expression may stand where want is wanted: syntax, names, types, bounds, and values that no message changes. What it
// lets through Compile does too.
func Check(source string, s Scope, want Kind) error {
	_, _, err := check(source, s, want)
	return err
}

// Compile checks an expression and makes it ready to run.
func Compile(source string, s Scope, want Kind) (*Program, error) {
	e, whole, err := check(source, s, want)
	if err != nil {
		return nil, err
	}
	d := &director{env: e, ast: whole.whole, scope: s}
	p := &Program{root: both{foreign: whole}}
	p.names = sync.OnceValue(func() map[string]string { return questions(e.env, d.ast) })
	if !d.direct() {
		p.emit = p.root.foreign.emit
		return p, nil
	}
	p.root.direct = d.value(d.ast.Expr())
	switch want {
	case JSON:
		p.emit = d.emit(d.ast.Expr())
	case List:
		p.list = d.list(d.ast.Expr())
	}
	return p, nil
}

// CompileHas makes of an expression that selects a member the question whether that is there: has(body.a) of body.a, body[?"a"].hasValue() of
// body["a"]. Of any other expression it gives an error.
func CompileHas(source string, s Scope) (*Program, error) {
	_, whole, err := check(source, s, JSON)
	if err != nil {
		return nil, err
	}
	root, info := whole.whole.Expr(), whole.whole.SourceInfo()
	if !isCall(root, operators.Index) {
		return Compile("has("+source+")", s, Bool)
	}
	of, err := cel.ExprToString(root.AsCall().Args()[0], info)
	if err != nil {
		return nil, err
	}
	key, err := cel.ExprToString(root.AsCall().Args()[1], info)
	if err != nil {
		return nil, err
	}
	return Compile("("+of+")[?"+key+"].hasValue()", s, Bool)
}

// check returns the whole expression planned: cel-go computes what is constant then, and reads regular expressions.
func check(source string, s Scope, want Kind) (*environment, *foreign, error) {
	if strings.TrimSpace(source) == "" {
		return nil, nil, errors.New("the expression is empty")
	}
	if len(source) > maxSource {
		return nil, nil, fmt.Errorf("the expression has %d bytes; at most %d are allowed: do part of it in a step of its own", len(source), maxSource)
	}
	e, err := environments[s]()
	if err != nil {
		return nil, nil, err
	}
	ast, issues := e.env.Compile(source)
	if issues.Err() != nil {
		return nil, nil, explain(e.env, source, issues, s)
	}
	if err := fits(ast.OutputType(), want); err != nil {
		return nil, nil, err
	}
	whole := newForeign(e, ast.NativeRep(), ast.NativeRep().Expr())
	if _, err := whole.plan(); err != nil {
		return nil, nil, whole.explain(source, s)
	}
	return e, whole, nil
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

// EvalBool gives the truth of the expression.
func (p *Program) EvalBool(ctx context.Context, v *View) (bool, error) {
	v.begin(ctx)
	x, err := p.root.eval(v)
	if err != nil {
		return false, p.fault(ctx, v, err)
	}
	if x.kind != vBool {
		return false, v.unfit(&x, "true or false")
	}
	return x.num == 1, nil
}

// EvalString gives a string that stands on its own: it does not alias the message. Numbers are spelt as the message spells them.
func (p *Program) EvalString(ctx context.Context, v *View) (string, error) {
	v.begin(ctx)
	x, err := p.root.eval(v)
	if err != nil {
		return "", p.fault(ctx, v, err)
	}
	switch x.kind {
	case vString:
		return strings.Clone(x.str), nil
	case vInt, vDouble, vBool:
		b, err := v.appendVal(nil, &x)
		return string(b), p.fault(ctx, v, err)
	case vRef:
		if u, ok := x.ref.(types.Uint); ok {
			return strconv.FormatUint(uint64(u), 10), nil
		}
	}
	return "", v.unfit(&x, "a string")
}

// EvalJSON appends the result as one JSON value to dst. After an error dst has what it had before.
func (p *Program) EvalJSON(ctx context.Context, v *View, dst []byte) ([]byte, error) {
	v.begin(ctx)
	v.most += len(dst)
	out, err := p.emit(v, dst)
	if err == nil && len(out) > v.most {
		err = errOutput
	}
	if err != nil {
		return out[:len(dst)], p.fault(ctx, v, err)
	}
	return out, nil
}

// EvalList gives the elements of a list, each as JSON. Elements of the message's own lists alias its data.
func (p *Program) EvalList(ctx context.Context, v *View) ([][]byte, error) {
	v.begin(ctx)
	if p.list != nil {
		var marks []int
		out, err := p.list(v, nil, &marks)
		if err != nil {
			return nil, p.fault(ctx, v, err)
		}
		elements := make([][]byte, 0, len(marks)/2)
		for i := 0; i < len(marks); i += 2 {
			elements = append(elements, out[marks[i]:marks[i+1]:marks[i+1]])
		}
		return elements, nil
	}
	x, err := p.root.eval(v)
	if err != nil {
		return nil, p.fault(ctx, v, err)
	}
	if x.kind == vNode && x.node.kind == kindList {
		elements := make([][]byte, 0, x.node.count)
		x.node.each(func(e *node) bool { elements = append(elements, e.raw()); return true })
		return elements, nil
	}
	l, ok := x.ref.(traits.Lister)
	if !ok {
		return nil, v.unfit(&x, "a list")
	}
	elements := make([][]byte, 0, size(l))
	for it := l.Iterator(); it.HasNext() == types.True; {
		e, err := v.appendValue(nil, it.Next(), 1)
		if v.most -= len(e); err == nil && v.most < 0 {
			err = errOutput
		}
		if err != nil {
			return nil, p.fault(ctx, v, err)
		}
		elements = append(elements, e)
	}
	return elements, nil
}
