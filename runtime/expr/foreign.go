package expr

import (
	"errors"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// foreign is a part of an expression as cel-go evaluates it. It is planned when it is first needed.
type foreign struct {
	env   *environment
	whole *ast.AST
	part  ast.Expr
	loops bool // only what loops needs to look whether the attempt was cancelled

	once    sync.Once
	program cel.Program
	err     error
}

func newForeign(env *environment, whole *ast.AST, part ast.Expr) *foreign {
	f := &foreign{env: env, whole: whole, part: part}
	ast.PostOrderVisit(part, ast.NewExprVisitor(func(e ast.Expr) { f.loops = f.loops || e.Kind() == ast.ComprehensionKind }))
	return f
}

func (f *foreign) plan() (cel.Program, error) {
	f.once.Do(func() {
		part := ast.NewCheckedAST(ast.NewAST(f.part, f.whole.SourceInfo()), f.whole.TypeMap(), f.whole.ReferenceMap())
		f.program, f.err = f.env.env.PlanProgram(part, f.env.options...)
	})
	return f.program, f.err
}

var errCost = errors.New("operation cancelled: actual cost limit exceeded")

// eval evaluates the part; the variables of loops around it are v's locals.
func (f *foreign) eval(v *View) (out ref.Val, err error) {
	program, err := f.plan()
	if err != nil {
		return nil, err
	}
	var details *cel.EvalDetails
	if f.loops {
		out, details, err = program.ContextEval(v.ctx, v)
	} else {
		out, details, err = program.Eval(v)
	}
	if cost := details.ActualCost(); cost != nil && !v.charge(int(min(*cost, maxCost))) && err == nil {
		err = errCost
	}
	return out, err
}

// value is eval for the direct way, which only wants to know whether it went well.
func (f *foreign) value(v *View) val {
	out, err := f.eval(v)
	if err != nil || types.IsUnknownOrError(out) {
		return val{}
	}
	return v.from(out)
}

// both is a part in its two forms: the direct one, if there is one, and cel-go's.
type both struct {
	direct  valFn
	foreign *foreign
}

// eval evaluates directly and asks cel-go where that is unsure.
func (b *both) eval(v *View) (val, error) {
	if b.direct != nil {
		locals := len(v.locals)
		x := b.direct(v)
		if x.kind != unsure {
			return x, nil
		}
		if v.budget < 0 {
			return val{}, errCost
		}
		v.locals = v.locals[:locals]
	}
	out, err := b.foreign.eval(v)
	if err != nil {
		return val{}, err
	}
	return v.from(out), nil
}

var errOverload = errors.New("no such overload")

// holds evaluates a condition.
func (b *both) holds(v *View) (bool, error) {
	x, err := b.eval(v)
	if err != nil {
		return false, err
	}
	if x.kind != vBool {
		return false, errOverload
	}
	return x.num == 1, nil
}
