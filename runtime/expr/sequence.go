package expr

import (
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/traits"
)

// local is the variable of a loop.
type local struct {
	name string
	val  val
}

// charge takes from what an evaluation may cost. false: it is used up.
func (v *View) charge(cost int) bool {
	v.budget -= cost
	return v.budget >= 0
}

// round charges a round of a loop and looks now and then whether the attempt was cancelled.
func (v *View) round(cost int) bool {
	v.rounds++
	if v.rounds%checkEvery == 0 && v.ctx.Err() != nil {
		v.budget = -1
	}
	return v.charge(cost)
}

// walk goes over the elements of a list, or the names of an object.
type walk struct {
	at       *node
	by, left uint32
	names    bool
	it       traits.Iterator
}

func (x *val) walk() (walk, bool) {
	switch x.kind {
	case vNode:
		return walk{at: x.node, by: 1, left: x.node.count, names: x.node.kind == kindObject}, true
	case vRef:
		if i, ok := x.ref.(traits.Iterable); ok {
			return walk{it: i.Iterator()}, true
		}
		s, ok := x.ref.(traits.Sizer)
		return walk{}, ok && s.Size() == types.IntZero
	case vString:
		return walk{}, x.str == "" // cel-go goes over anything that is empty
	}
	return walk{}, false
}

func (w *walk) next(v *View) (val, bool) {
	switch {
	case w.it != nil:
		if w.it.HasNext() != types.True {
			return val{}, false
		}
		return v.from(w.it.Next()), true
	case w.left == 0:
		return val{}, false
	}
	w.at = w.at.at(w.by)
	w.by = w.at.skip
	w.left--
	if w.names {
		return stringVal(w.at.name()), true
	}
	return w.at.direct(), true
}

// A sequence is a chain of map and filter over a list, taken element by element: what cel-go would collect in between is never made.
type sequence struct {
	over   *both
	stages []stage
	cost   int
}

// A stage keeps the elements for which only holds, and makes of each what becomes says.
type stage struct {
	name    string
	slot    int
	only    *both // nil: all
	becomes *both // nil: the element itself
	emit    emitFn
}

// sequence recognises list.map(x, …), list.map(x, if, …) and list.filter(x, if), and any other list as a chain without stages.
func (d *director) sequence(e ast.Expr) *sequence {
	s := d.chain(e)
	if s == nil {
		if f := d.value(e); f != nil {
			s = &sequence{over: d.both(e)}
		}
	}
	return s
}

func (d *director) chain(e ast.Expr) *sequence {
	e = bare(e)
	if e.Kind() != ast.ComprehensionKind {
		return nil
	}
	c := e.AsComprehension()
	only, becomes, ok := mapOrFilter(c)
	if !ok {
		return nil
	}
	s := d.chain(c.IterRange())
	if s == nil {
		s = &sequence{over: d.both(c.IterRange())}
	} else if last := &s.stages[len(s.stages)-1]; last.emit != nil {
		last.emit = nil // its elements go on into this stage
	}
	st := stage{name: c.IterVar(), slot: len(d.locals)}
	d.locals = append(d.locals, st.name)
	if only != nil {
		st.only = d.both(only)
	}
	if becomes != nil {
		st.becomes = d.both(becomes)
		st.emit = d.emit(becomes)
	}
	d.locals = d.locals[:st.slot]
	s.stages = append(s.stages, st)
	s.cost += nodes(c.LoopStep())
	return s
}

func nodes(e ast.Expr) int {
	n := 0
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(ast.Expr) { n++ }))
	return n
}

// mapOrFilter takes the macro's expansion apart.
func mapOrFilter(c ast.ComprehensionExpr) (only, becomes ast.Expr, ok bool) {
	if c.HasIterVar2() || c.AccuInit().Kind() != ast.ListKind || c.AccuInit().AsList().Size() != 0 ||
		c.LoopCondition().Kind() != ast.LiteralKind || c.LoopCondition().AsLiteral() != types.True || !isIdent(c.Result(), c.AccuVar()) {
		return nil, nil, false
	}
	step := c.LoopStep()
	if isCall(step, operators.Conditional) {
		args := step.AsCall().Args()
		if !isIdent(args[2], c.AccuVar()) {
			return nil, nil, false
		}
		only, step = args[0], args[1]
	}
	if !isCall(step, operators.Add) {
		return nil, nil, false
	}
	args := step.AsCall().Args()
	if !isIdent(args[0], c.AccuVar()) || args[1].Kind() != ast.ListKind || args[1].AsList().Size() != 1 || len(args[1].AsList().OptionalIndices()) > 0 {
		return nil, nil, false
	}
	becomes = args[1].AsList().Elements()[0]
	if isIdent(becomes, c.IterVar()) {
		becomes = nil
	}
	return only, becomes, true
}

func isIdent(e ast.Expr, name string) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == name }

func isCall(e ast.Expr, function string) bool {
	return e.Kind() == ast.CallKind && e.AsCall().FunctionName() == function
}

// start evaluates the list.
func (s *sequence) start(v *View) (walk, error) {
	x, err := s.over.eval(v)
	if err != nil {
		return walk{}, err
	}
	w, ok := x.walk()
	if !ok || len(s.stages) == 0 && !x.isList() {
		return w, errOverload
	}
	return w, nil
}

// isList: map and filter go over the names of an object too, and make a list of them; by itself it is none.
func (x *val) isList() bool {
	if x.kind == vNode {
		return x.node.kind == kindList
	}
	_, ok := x.ref.(traits.Lister)
	return ok
}

// next takes the next element through the stages, the last one's becomes excepted where it is to be emitted. With emit the last stage's
// variable is left in v.locals: done removes it.
func (s *sequence) next(v *View, w *walk, emit bool) (x val, ok bool, err error) {
elements:
	for {
		if x, ok = w.next(v); !ok {
			return x, false, nil
		}
		if !v.round(1 + s.cost) {
			return x, false, errCost
		}
		for i := range s.stages {
			st := &s.stages[i]
			v.locals = append(v.locals[:st.slot], local{st.name, x})
			if st.only != nil {
				hold, err := st.only.holds(v)
				if err != nil {
					return x, false, err
				}
				if !hold {
					continue elements
				}
			}
			if st.becomes == nil || emit && i == len(s.stages)-1 {
				continue
			}
			if x, err = st.becomes.eval(v); err != nil {
				return x, false, err
			}
		}
		return x, true, nil
	}
}

// done removes the stages' variables.
func (s *sequence) done(v *View) {
	if len(s.stages) > 0 {
		v.locals = v.locals[:s.stages[0].slot]
	}
}

func (s *sequence) sum(v *View) val {
	w, err := s.start(v)
	total := intVal(0)
	for err == nil {
		var x val
		var ok bool
		if x, ok, err = s.next(v, &w, false); !ok {
			break
		}
		if !isNumber(&x) {
			err = errOverload
			break
		}
		if total = calculate('+', &total, &x); total.kind == unsure {
			err = errOverload
		}
	}
	s.done(v)
	if err != nil {
		return val{}
	}
	return total
}

// quantifier recognises exists and all.
func (d *director) quantifier(c ast.ComprehensionExpr) testFn {
	if c.HasIterVar2() || c.AccuInit().Kind() != ast.LiteralKind || !isIdent(c.Result(), c.AccuVar()) {
		return nil
	}
	var opposite truth // what a round says that does not decide
	step := c.LoopStep()
	switch {
	case c.AccuInit().AsLiteral() == types.False && isCall(step, operators.LogicalOr):
		opposite = no
	case c.AccuInit().AsLiteral() == types.True && isCall(step, operators.LogicalAnd):
		opposite = yes
	default:
		return nil
	}
	if !isIdent(step.AsCall().Args()[0], c.AccuVar()) || !isCall(c.LoopCondition(), operators.NotStrictlyFalse) {
		return nil
	}
	over := d.both(c.IterRange())
	slot := len(d.locals)
	d.locals = append(d.locals, c.IterVar())
	test := d.testOr(step.AsCall().Args()[1])
	d.locals = d.locals[:slot]
	cost := 1 + nodes(step)
	name := c.IterVar()
	return func(v *View) truth {
		list, err := over.eval(v)
		if err != nil {
			return open
		}
		w, ok := list.walk()
		if !ok {
			return open
		}
		for {
			x, ok := w.next(v)
			if !ok {
				v.locals = v.locals[:slot]
				return opposite
			}
			v.locals = append(v.locals[:slot], local{name, x})
			if !v.round(cost) {
				break
			}
			if t := test(v); t != opposite {
				v.locals = v.locals[:slot]
				return t
			}
		}
		v.locals = v.locals[:slot]
		return open
	}
}
