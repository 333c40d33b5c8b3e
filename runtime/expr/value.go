package expr

import (
	"errors"
	"reflect"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// object and list are nodes as CEL sees them. Selecting a member or walking over elements gives nodes again, which the adapter turns into
// CEL values only where an operation needs one.
type (
	object node
	list   node
)

func (n *node) raw() []byte { return n.view.text[n.start:n.end] }

// name is the member's name, decoded.
func (n *node) name() string {
	b := n.view.text[n.nameStart:n.nameEnd]
	if n.nameEscaped {
		return unescape(b)
	}
	return alias(b)
}

// string is the text of a string, decoded.
func (n *node) string() string {
	b := n.view.text[n.start+1 : n.end-1]
	if n.escaped {
		return unescape(b)
	}
	return alias(b)
}

// child is the first member or element.
func (n *node) child() *node { return n.at(1) }

// next is the sibling after n; only for a node that has one.
func (n *node) next() *node { return n.at(n.skip) }

// at is the node that stands by nodes after n.
func (n *node) at(by uint32) *node { return &n.view.nodes[n.index+by] }

// value is n as a CEL value. Those of objects and lists are n itself.
func (n *node) value() ref.Val {
	switch n.kind {
	case kindNull:
		return types.NullValue
	case kindFalse:
		return types.False
	case kindTrue:
		return types.True
	case kindString:
		return types.String(n.string())
	case kindList:
		return (*list)(n)
	case kindObject:
		return (*object)(n)
	default:
		return n.number()
	}
}

// native is what CEL's attribute resolution passes on: the node, or for an aggregate the CEL value that can be asked further.
func (n *node) native() any {
	switch n.kind {
	case kindList:
		return (*list)(n)
	case kindObject:
		return (*object)(n)
	default:
		return n
	}
}

// scanned is how many members or elements are looked at one after the other before an index is made.
const scanned = 16

// member finds the member called name: the last one where a name is repeated, as in encoding/json. nil: there is none.
func (n *node) member(name string) *node {
	if n.count > scanned {
		return n.view.members(n)[name]
	}
	var found *node
	text := n.view.text
	m := n
	by := uint32(1)
	for range n.count {
		m = m.at(by)
		by = m.skip
		if m.nameEscaped {
			if m.name() == name {
				found = m
			}
		} else if int(m.nameEnd-m.nameStart) == len(name) && string(text[m.nameStart:m.nameEnd]) == name {
			found = m
		}
	}
	return found
}

// element finds the element at i. nil: there is none.
func (n *node) element(i int64) *node {
	if i < 0 || i >= int64(n.count) {
		return nil
	}
	if n.count > scanned {
		return n.view.elements(n)[i]
	}
	e := n.child()
	for range i {
		e = e.next()
	}
	return e
}

// each calls f for every member or element until f returns false.
func (n *node) each(f func(*node) bool) {
	m, by := n, uint32(1)
	for range n.count {
		m = m.at(by)
		by = m.skip
		if !f(m) {
			return
		}
	}
}

// adapter makes CEL values of nodes, and of everything else as CEL does.
type adapter struct{ types.Adapter }

func (a adapter) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case *node:
		return v.value()
	case ref.Val:
		return v
	case string:
		return types.String(v)
	}
	return a.Adapter.NativeToValue(v)
}

var values = adapter{types.DefaultTypeAdapter}

// errNative is what a conversion to a Go value gives: nothing here asks for one, and a map would be made on the way.
var errNative = errors.New("a JSON value of a message has no other form")

func convert(v ref.Val, to ref.Type) ref.Val {
	switch to {
	case types.TypeType:
		return v.Type().(*types.Type)
	case v.Type():
		return v
	}
	return types.NewErr("type conversion error from '%s' to '%s'", v.Type(), to)
}

func (o *object) FindStringKey(name string) (any, bool) {
	if m := (*node)(o).member(name); m != nil {
		return m.native(), true
	}
	return nil, false
}

func (o *object) Find(key ref.Val) (ref.Val, bool) {
	if name, ok := key.(types.String); ok {
		if m := (*node)(o).member(string(name)); m != nil {
			return m.value(), true
		}
	}
	return nil, false
}

func (o *object) Get(key ref.Val) ref.Val {
	if v, ok := o.Find(key); ok {
		return v
	}
	return types.NewErr("no such key")
}

func (o *object) Contains(key ref.Val) ref.Val {
	_, ok := o.Find(key)
	return types.Bool(ok)
}

func (o *object) Size() ref.Val { return types.Int(o.count) }

func (o *object) Fold(f traits.Folder) {
	(*node)(o).each(func(m *node) bool { return f.FoldEntry(types.String(m.name()), m.native()) })
}

func (o *object) Iterator() traits.Iterator {
	return &iterator{at: (*node)(o), by: 1, left: o.count, names: true}
}

func (o *object) Equal(other ref.Val) ref.Val {
	m, ok := other.(traits.Mapper)
	if !ok || m.Size() != o.Size() {
		return types.False
	}
	equal, twice := true, false
	(*node)(o).each(func(member *node) bool {
		// A name that stands there twice means what Find gives for it, on both sides. Only that is looked at: to compare it once for each
		// time that its name stands there would double the work at each level.
		name := member.name()
		if (*node)(o).member(name) != member {
			twice = true
			return true
		}
		v, found := m.Find(types.String(name))
		equal = found && types.Equal(member.value(), v) == types.True
		return equal
	})
	return types.Bool(equal && (!twice || o.names(m)))
}

// names reports whether o has all names that m has. Where one stands twice in o, their sizes do not tell.
func (o *object) names(m traits.Mapper) bool {
	for it := m.Iterator(); it.HasNext() == types.True; {
		if _, found := o.Find(it.Next()); !found {
			return false
		}
	}
	return true
}

func (o *object) IsZeroValue() bool                         { return o.count == 0 }
func (o *object) ConvertToNative(reflect.Type) (any, error) { return nil, errNative }
func (o *object) ConvertToType(to ref.Type) ref.Val         { return convert(o, to) }
func (o *object) Type() ref.Type                            { return types.MapType }
func (o *object) Value() any                                { return o }

func (l *list) GetInt64Index(i int64) (any, bool) {
	if e := (*node)(l).element(i); e != nil {
		return e.native(), true
	}
	return nil, false
}

func (l *list) Get(index ref.Val) ref.Val {
	i, err := types.GetOrError(index)
	if err != nil {
		return types.NewErr("a list's index must be a whole number")
	}
	if e := (*node)(l).element(int64(i)); e != nil {
		return e.value()
	}
	return types.NewErr("index out of bounds")
}

func (l *list) Contains(v ref.Val) ref.Val {
	found := false
	(*node)(l).each(func(e *node) bool {
		found = types.Equal(e.value(), v) == types.True
		return !found
	})
	return types.Bool(found)
}

func (l *list) Add(other ref.Val) ref.Val {
	o, ok := other.(traits.Lister)
	if !ok {
		return types.MaybeNoSuchOverloadErr(other)
	}
	if l.count == 0 {
		return o
	}
	return types.NewRefValList(values, l.vals()).Add(o)
}

func (l *list) vals() []ref.Val {
	vals := make([]ref.Val, 0, l.count)
	(*node)(l).each(func(e *node) bool { vals = append(vals, e.value()); return true })
	return vals
}

func (l *list) Size() ref.Val { return types.Int(l.count) }

func (l *list) Fold(f traits.Folder) {
	i := types.Int(-1)
	(*node)(l).each(func(e *node) bool { i++; return f.FoldEntry(i, e.native()) })
}

func (l *list) Iterator() traits.Iterator {
	return &iterator{at: (*node)(l), by: 1, left: l.count}
}

func (l *list) Equal(other ref.Val) ref.Val {
	o, ok := other.(traits.Lister)
	if !ok || o.Size() != l.Size() {
		return types.False
	}
	equal, theirs := true, o.Iterator()
	(*node)(l).each(func(e *node) bool {
		equal = types.Equal(e.value(), theirs.Next()) == types.True
		return equal
	})
	return types.Bool(equal)
}

func (l *list) IsZeroValue() bool                         { return l.count == 0 }
func (l *list) ConvertToNative(reflect.Type) (any, error) { return nil, errNative }
func (l *list) ConvertToType(to ref.Type) ref.Val         { return convert(l, to) }
func (l *list) Type() ref.Type                            { return types.ListType }
func (l *list) Value() any                                { return l }

// iterator walks over the elements of a list or the names of an object.
type iterator struct {
	at       *node
	by, left uint32
	names    bool
}

func (it *iterator) HasNext() ref.Val { return types.Bool(it.left > 0) }

func (it *iterator) Next() ref.Val {
	if it.left == 0 {
		return nil
	}
	it.at = it.at.at(it.by)
	it.by = it.at.skip
	it.left--
	if it.names {
		return types.String(it.at.name())
	}
	return it.at.value()
}

func (it *iterator) Equal(ref.Val) ref.Val                     { return types.False }
func (it *iterator) ConvertToNative(reflect.Type) (any, error) { return nil, errNative }
func (it *iterator) ConvertToType(to ref.Type) ref.Val         { return convert(it, to) }
func (it *iterator) Type() ref.Type                            { return types.IteratorType }
func (it *iterator) Value() any                                { return it }
