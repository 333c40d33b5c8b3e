package expr

import (
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// emitFn appends a part's result as JSON.
type emitFn func(v *View, dst []byte) ([]byte, error)

// emit makes a part's JSON without making its value first: literals of objects and lists become text as they stand, with their members in
// the order in which they are written, and what they name is copied.
func (d *director) emit(e ast.Expr) emitFn {
	e = bare(e)
	switch e.Kind() {
	case ast.MapKind:
		if f := d.emitObject(e.AsMap()); f != nil {
			return f
		}
	case ast.ListKind:
		if l := d.list(e); l != nil {
			return func(v *View, dst []byte) ([]byte, error) { return l(v, dst, nil) }
		}
	case ast.ComprehensionKind:
		if l := d.list(e); l != nil {
			return func(v *View, dst []byte) ([]byte, error) { return l(v, dst, nil) }
		}
	case ast.CallKind:
		c := e.AsCall()
		switch {
		case c.FunctionName() == operators.Conditional:
			test, a, b := d.both(c.Args()[0]), d.emit(c.Args()[1]), d.emit(c.Args()[2])
			return func(v *View, dst []byte) ([]byte, error) {
				holds, err := test.holds(v)
				switch {
				case err != nil:
					return dst, err
				case holds:
					return a(v, dst)
				}
				return b(v, dst)
			}
		case c.FunctionName() == "orValue" && c.IsMemberFunction():
			if f := d.emitOr(e, c); f != nil {
				return f
			}
		}
	}
	if n := d.node(e); n != nil {
		f := d.foreign(e)
		return func(v *View, dst []byte) ([]byte, error) {
			if n := n(v); n != nil {
				return append(dst, n.raw()...), nil
			}
			return f.emit(v, dst)
		}
	}
	b := d.both(e)
	return func(v *View, dst []byte) ([]byte, error) {
		x, err := b.eval(v)
		if err != nil {
			return dst, err
		}
		return v.appendVal(dst, &x)
	}
}

func (f *foreign) emit(v *View, dst []byte) ([]byte, error) {
	out, err := f.eval(v)
	if err != nil {
		return dst, err
	}
	return v.appendValue(dst, out, 0)
}

// emitObject makes the text of an object literal whose names are literals, each once.
func (d *director) emitObject(m ast.MapExpr) emitFn {
	type member struct {
		name     []byte // with its colon
		emit     emitFn
		optional *foreign // of an optional member: its value, if there is one
	}
	var members []member
	seen := map[string]bool{}
	for _, e := range m.Entries() {
		entry := e.AsMapEntry()
		if entry.Key().Kind() != ast.LiteralKind {
			return nil
		}
		name, ok := memberName(entry.Key().AsLiteral())
		if !ok || seen[name] {
			return nil
		}
		seen[name] = true
		mb := member{name: append(appendString(nil, name), ':')}
		if entry.IsOptional() {
			mb.optional = d.foreign(entry.Value())
			if path := d.optional(entry.Value()); path != nil {
				mb.emit = path.emitPresent(mb.optional)
			}
		} else {
			mb.emit = d.emit(entry.Value())
		}
		members = append(members, mb)
	}
	return func(v *View, dst []byte) ([]byte, error) {
		dst = append(dst, '{')
		first := true
		for i := range members {
			mb := &members[i]
			before := len(dst)
			if !first {
				dst = append(dst, ',')
			}
			dst = append(dst, mb.name...)
			start := len(dst)
			var err error
			switch {
			case mb.emit != nil:
				dst, err = mb.emit(v, dst)
			default:
				dst, err = mb.optional.emitPresent(v, dst)
			}
			if err == nil && len(dst) > v.most {
				err = errOutput
			}
			if err != nil {
				return dst, err
			}
			if mb.optional != nil && len(dst) == start {
				dst = dst[:before] // absent
				continue
			}
			first = false
		}
		return append(dst, '}'), nil
	}
}

// emitPresent appends what an optional value holds, nothing when it holds nothing.
func (f *foreign) emitPresent(v *View, dst []byte) ([]byte, error) {
	out, err := f.eval(v)
	if err != nil {
		return dst, err
	}
	o, ok := out.(*types.Optional)
	if !ok {
		return dst, errOverload
	}
	if !o.HasValue() {
		return dst, nil
	}
	return v.appendValue(dst, o.GetValue(), 0)
}

// optionalPath is a way to a value in the text of which parts may be absent: data.?a.b.
type optionalPath struct {
	of    nodeFn
	names []string
}

// optional recognises a path with .? in it.
func (d *director) optional(e ast.Expr) *optionalPath {
	e = bare(e)
	switch e.Kind() {
	case ast.SelectKind:
		s := e.AsSelect()
		if s.IsTestOnly() {
			return nil
		}
		if p := d.optional(s.Operand()); p != nil {
			p.names = append(p.names, s.FieldName())
			return p
		}
	case ast.CallKind:
		c := e.AsCall()
		if c.FunctionName() != operators.OptSelect || c.Args()[1].Kind() != ast.LiteralKind {
			return nil
		}
		name, ok := c.Args()[1].AsLiteral().(types.String)
		if !ok {
			return nil
		}
		if p := d.optional(c.Args()[0]); p != nil {
			p.names = append(p.names, string(name))
			return p
		}
		if of := d.node(c.Args()[0]); of != nil {
			return &optionalPath{of: of, names: []string{string(name)}}
		}
	}
	return nil
}

// find follows the path. sure is false where cel-go must decide.
func (p *optionalPath) find(v *View) (n *node, sure bool) {
	if n = p.of(v); n == nil {
		return nil, false
	}
	for _, name := range p.names {
		if n.kind != kindObject {
			return nil, false
		}
		if n = n.member(name); n == nil {
			return nil, true
		}
	}
	return n, true
}

func (p *optionalPath) emitPresent(f *foreign) emitFn {
	return func(v *View, dst []byte) ([]byte, error) {
		n, sure := p.find(v)
		switch {
		case !sure:
			return f.emitPresent(v, dst)
		case n == nil:
			return dst, nil
		}
		return append(dst, n.raw()...), nil
	}
}

// emitOr makes path.orValue(other).
func (d *director) emitOr(e ast.Expr, c ast.CallExpr) emitFn {
	path := d.optional(c.Target())
	if path == nil {
		return nil
	}
	whole, other := d.foreign(e), d.emit(c.Args()[0])
	return func(v *View, dst []byte) ([]byte, error) {
		n, sure := path.find(v)
		switch {
		case !sure:
			return whole.emit(v, dst)
		case n == nil:
			return other(v, dst)
		}
		return append(dst, n.raw()...), nil
	}
}

// listFn appends a list as JSON; where marks is not nil it gets where each element begins and ends.
type listFn func(v *View, dst []byte, marks *[]int) ([]byte, error)

// list makes the text of a list literal, or of a map or filter.
func (d *director) list(e ast.Expr) listFn {
	e = bare(e)
	if e.Kind() == ast.ListKind {
		l := e.AsList()
		if len(l.OptionalIndices()) > 0 {
			return nil
		}
		var elements []emitFn
		for _, e := range l.Elements() {
			elements = append(elements, d.emit(e))
		}
		return func(v *View, dst []byte, marks *[]int) ([]byte, error) {
			dst = append(dst, '[')
			for i, emit := range elements {
				if i > 0 {
					dst = append(dst, ',')
				}
				start := len(dst)
				var err error
				if dst, err = emit(v, dst); err != nil {
					return dst, err
				}
				if len(dst) > v.most {
					return dst, errOutput
				}
				mark(marks, start, len(dst))
			}
			return append(dst, ']'), nil
		}
	}
	s := d.chain(e)
	if s == nil {
		return nil
	}
	return s.emit
}

func mark(marks *[]int, start, end int) {
	if marks != nil {
		*marks = append(*marks, start, end)
	}
}

func (s *sequence) emit(v *View, dst []byte, marks *[]int) ([]byte, error) {
	w, err := s.start(v)
	if err != nil {
		return dst, err
	}
	emit := s.stages[len(s.stages)-1].emit
	dst = append(dst, '[')
	for first := true; ; first = false {
		x, ok, err := s.next(v, &w, emit != nil)
		if err != nil {
			return dst, err
		}
		if !ok {
			break
		}
		if !first {
			dst = append(dst, ',')
		}
		start := len(dst)
		if emit != nil {
			dst, err = emit(v, dst)
		} else {
			dst, err = v.appendVal(dst, &x)
		}
		if err == nil && len(dst) > v.most {
			err = errOutput
		}
		if err != nil {
			return dst, err
		}
		mark(marks, start, len(dst))
	}
	s.done(v)
	return append(dst, ']'), nil
}
