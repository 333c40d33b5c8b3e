package expr

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

type (
	valFn  func(*View) val
	nodeFn func(*View) *node // nil: unsure
	testFn func(*View) truth
)

// A director makes the direct form of a checked expression. Its methods return nil for what has none.
type director struct {
	env    *environment
	ast    *ast.AST
	scope  Scope
	locals []string // variables of the loops around, the innermost last
}

// direct reports whether the expression may be taken apart: not where a name is written with a leading dot, which means the variable behind
// a loop's variable of that name.
func (d *director) direct() bool {
	ok := true
	ast.PostOrderVisit(d.ast.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		ok = ok && (e.Kind() != ast.IdentKind || !strings.HasPrefix(e.AsIdent(), "."))
	}))
	return ok
}

func (d *director) foreign(e ast.Expr) *foreign { return newForeign(d.env, d.ast, e) }

func (d *director) both(e ast.Expr) *both { return &both{d.value(e), d.foreign(e)} }

// bare removes dyn( … ), which says something to the checker only.
func bare(e ast.Expr) ast.Expr {
	for isCall(e, "dyn") && len(e.AsCall().Args()) == 1 {
		e = e.AsCall().Args()[0]
	}
	return e
}

// slot is where the variable of a loop stands; -1: name is none.
func (d *director) slot(name string) int {
	for i, local := range slices.Backward(d.locals) {
		if local == name {
			return i
		}
	}
	return -1
}

// node makes the way to a value in the text: data, item, body or a loop's variable, and members and elements of them.
func (d *director) node(e ast.Expr) nodeFn {
	e = bare(e)
	switch e.Kind() {
	case ast.IdentKind:
		return d.root(e.AsIdent())
	case ast.SelectKind:
		s := e.AsSelect()
		if s.IsTestOnly() {
			return nil
		}
		return member(d.node(s.Operand()), s.FieldName())
	case ast.CallKind:
		c := e.AsCall()
		if c.FunctionName() != operators.Index || c.Args()[1].Kind() != ast.LiteralKind {
			return nil
		}
		switch key := c.Args()[1].AsLiteral().(type) {
		case types.String:
			return member(d.node(c.Args()[0]), string(key))
		case types.Int:
			return element(d.node(c.Args()[0]), int64(key))
		}
	}
	return nil
}

func (d *director) root(name string) nodeFn {
	if slot := d.slot(name); slot >= 0 {
		return func(v *View) *node { return v.locals[slot].val.node }
	}
	switch {
	case name == "data" && d.scope == Message, name == "item" && d.scope == Item, name == "body" && d.scope == PageScope:
		return (*View).top
	case name == "body" && d.scope == Item:
		return func(v *View) *node { return v.body.top() }
	}
	return nil
}

func (v *View) top() *node {
	if v.load() != parsed {
		return nil
	}
	return &v.nodes[0]
}

func member(of nodeFn, name string) nodeFn {
	if of == nil {
		return nil
	}
	return func(v *View) *node {
		if n := of(v); n != nil && n.kind == kindObject {
			return n.member(name)
		}
		return nil
	}
}

func element(of nodeFn, i int64) nodeFn {
	if of == nil {
		return nil
	}
	return func(v *View) *node {
		if n := of(v); n != nil && n.kind == kindList {
			return n.element(i)
		}
		return nil
	}
}

// value makes the direct form of e.
func (d *director) value(e ast.Expr) valFn {
	e = bare(e)
	if n := d.node(e); n != nil {
		return func(v *View) val {
			if n := n(v); n != nil {
				return n.direct()
			}
			return val{}
		}
	}
	switch e.Kind() {
	case ast.LiteralKind:
		x := fromRef(e.AsLiteral())
		return func(*View) val { return x }
	case ast.IdentKind:
		return d.variable(e.AsIdent())
	case ast.SelectKind:
		if name, ok := d.selects(e); ok {
			return func(v *View) val {
				if s, ok := extension(v.msg.Attributes, name); ok {
					return stringVal(s)
				}
				return val{}
			}
		}
	case ast.CallKind:
		if f := d.call(e.AsCall()); f != nil {
			return f
		}
	}
	if t := d.test(e); t != nil {
		return func(v *View) val { return t(v).val() }
	}
	return nil
}

func (d *director) variable(name string) valFn {
	if slot := d.slot(name); slot >= 0 {
		return func(v *View) val { return v.locals[slot].val }
	}
	if d.scope == Message {
		if get := attribute(name); get != nil {
			return func(v *View) val { return stringVal(get(v.msg)) }
		}
	}
	if name == "status" && d.scope != Message {
		return func(v *View) val { return intVal(int64(v.page.Status)) }
	}
	return nil
}

// selects recognises attributes.NAME.
func (d *director) selects(e ast.Expr) (string, bool) {
	s := e.AsSelect()
	of := s.Operand()
	return s.FieldName(), !s.IsTestOnly() && d.isAttributes(of)
}

func (d *director) isAttributes(e ast.Expr) bool {
	return d.scope == Message && e.Kind() == ast.IdentKind && e.AsIdent() == "attributes" && d.slot("attributes") < 0
}

var arithmetic = map[string]byte{
	operators.Add: '+', operators.Subtract: '-', operators.Multiply: '*', operators.Divide: '/', operators.Modulo: '%',
}

func (d *director) call(c ast.CallExpr) valFn {
	args := c.Args()
	if op, ok := arithmetic[c.FunctionName()]; ok && len(args) == 2 {
		a, b := d.value(args[0]), d.value(args[1])
		if a == nil || b == nil {
			return nil
		}
		return func(v *View) val {
			x := a(v)
			if x.kind == unsure {
				return x
			}
			y := b(v)
			if x.kind == vString && !v.charge((len(x.str)+len(y.str))/10) {
				return val{}
			}
			return calculate(op, &x, &y)
		}
	}
	switch {
	case c.FunctionName() == "size":
		of := c.Target()
		if !c.IsMemberFunction() {
			of = args[0]
		}
		f := d.value(of)
		if f == nil {
			return nil
		}
		return func(v *View) val {
			x := f(v)
			return length(&x)
		}
	case c.FunctionName() == "sum" && c.IsMemberFunction():
		if s := d.sequence(c.Target()); s != nil {
			return s.sum
		}
	case c.FunctionName() == operators.Conditional:
		a, b := d.value(args[1]), d.value(args[2])
		if a == nil || b == nil {
			return nil
		}
		test := d.testOr(args[0])
		return func(v *View) val {
			switch test(v) {
			case yes:
				return a(v)
			case no:
				return b(v)
			}
			return val{}
		}
	}
	return nil
}

// testOr is the condition e, by way of cel-go where it has no direct form.
func (d *director) testOr(e ast.Expr) testFn {
	e = bare(e)
	if t := d.test(e); t != nil {
		return t
	}
	if f := d.value(e); f != nil {
		return func(v *View) truth {
			x := f(v)
			return x.truth()
		}
	}
	f := d.foreign(e)
	return func(v *View) truth {
		x := f.value(v)
		return x.truth()
	}
}

// test makes the direct form of a condition that is an operation of its own, not merely a value that is true or false.
func (d *director) test(e ast.Expr) testFn {
	e = bare(e)
	switch e.Kind() {
	case ast.SelectKind:
		return d.has(e.AsSelect())
	case ast.ComprehensionKind:
		return d.quantifier(e.AsComprehension())
	case ast.CallKind:
	default:
		return nil
	}
	c := e.AsCall()
	args := c.Args()
	switch name := c.FunctionName(); name {
	case operators.LogicalAnd:
		return either(d.testOr(args[0]), d.testOr(args[1]), no, yes)
	case operators.LogicalOr:
		return either(d.testOr(args[0]), d.testOr(args[1]), yes, no)
	case operators.LogicalNot:
		t := d.testOr(args[0])
		return func(v *View) truth {
			switch t(v) {
			case yes:
				return no
			case no:
				return yes
			}
			return open
		}
	case operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		return d.comparison(name, args[0], args[1])
	case operators.In:
		return d.in(args[0], args[1])
	case "startsWith", "endsWith", "contains":
		if c.IsMemberFunction() && len(args) == 1 {
			return d.textTest(name, c.Target(), args[0])
		}
	}
	return nil
}

// either joins two conditions: one that is decisive decides, whatever the other is; else each must be the opposite.
func either(a, b testFn, decisive, opposite truth) testFn {
	return func(v *View) truth {
		x := a(v)
		if x == decisive {
			return x
		}
		y := b(v)
		if y == decisive {
			return y
		}
		if x == opposite && y == opposite {
			return opposite
		}
		return open
	}
}

func (d *director) has(s ast.SelectExpr) testFn {
	if !s.IsTestOnly() {
		return nil
	}
	name := s.FieldName()
	if d.isAttributes(s.Operand()) {
		return func(v *View) truth {
			_, ok := extension(v.msg.Attributes, name)
			return truthOf(ok)
		}
	}
	of := d.node(s.Operand())
	if of == nil {
		return nil
	}
	return func(v *View) truth {
		n := of(v)
		if n == nil || n.kind != kindObject {
			return open
		}
		return truthOf(n.member(name) != nil)
	}
}

// verdicts says for each comparison what it makes of less, equal and greater.
var verdicts = map[string][3]truth{
	operators.Equals:        {no, yes, no},
	operators.NotEquals:     {yes, no, yes},
	operators.Less:          {yes, no, no},
	operators.LessEquals:    {yes, yes, no},
	operators.Greater:       {no, no, yes},
	operators.GreaterEquals: {no, yes, yes},
}

func (d *director) comparison(name string, left, right ast.Expr) testFn {
	a, b := d.value(left), d.value(right)
	if a == nil || b == nil {
		return nil
	}
	verdict := verdicts[name]
	if name == operators.Equals || name == operators.NotEquals {
		different, same := verdict[0], verdict[1]
		return func(v *View) truth {
			x := a(v)
			if x.kind == unsure {
				return open
			}
			y := b(v)
			switch equal(&x, &y) {
			case yes:
				return same
			case no:
				return different
			}
			return open
		}
	}
	return func(v *View) truth {
		x := a(v)
		if x.kind == unsure {
			return open
		}
		y := b(v)
		if o, ok := order(&x, &y); ok {
			return verdict[o+1]
		}
		return open
	}
}

// in knows lists of literals, and lists and objects of the text.
func (d *director) in(what, where ast.Expr) testFn {
	where = bare(where)
	x := d.value(what)
	if x == nil {
		return nil
	}
	if where.Kind() == ast.ListKind {
		var among []val
		for _, e := range where.AsList().Elements() {
			if e.Kind() != ast.LiteralKind {
				return nil
			}
			among = append(among, fromRef(e.AsLiteral()))
		}
		return func(v *View) truth {
			x := x(v)
			for i := range among {
				if t := equal(&x, &among[i]); t != no {
					return t
				}
			}
			if x.kind == unsure || len(among) == 0 {
				return open
			}
			return no
		}
	}
	if d.isAttributes(where) {
		return func(v *View) truth {
			x := x(v)
			if x.kind != vString {
				return open
			}
			_, ok := extension(v.msg.Attributes, x.str)
			return truthOf(ok)
		}
	}
	of := d.node(where)
	if of == nil {
		return nil
	}
	return func(v *View) truth {
		x, n := x(v), of(v)
		switch {
		case x.kind == unsure || n == nil:
			return open
		case n.kind == kindObject && x.kind == vString:
			return truthOf(n.member(x.str) != nil)
		case n.kind != kindList || !v.charge(int(n.count)):
			return open
		}
		e, by := n, uint32(1)
		for range n.count {
			e = e.at(by)
			by = e.skip
			y := e.direct()
			if t := equal(&x, &y); t != no {
				return t
			}
		}
		return no
	}
}

func (d *director) textTest(name string, left, right ast.Expr) testFn {
	a, b := d.value(left), d.value(right)
	if a == nil || b == nil {
		return nil
	}
	op := strings.Contains
	switch name {
	case "startsWith":
		op = strings.HasPrefix
	case "endsWith":
		op = strings.HasSuffix
	}
	return func(v *View) truth {
		x, y := a(v), b(v)
		if x.kind != vString || y.kind != vString || !v.charge(len(x.str)/10) {
			return open
		}
		return truthOf(op(x.str, y.str))
	}
}
