package expr

import (
	"reflect"
	"slices"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// A record is an object that a function has made. Unlike a map of cel-go's it keeps the order of its members, and those that it took over
// from a message as they stand there.
type record struct {
	names  []string
	values []any // *node or ref.Val
	places map[string]int
}

func newRecord(size int) *record {
	return &record{names: make([]string, 0, size), values: make([]any, 0, size), places: make(map[string]int, size)}
}

// set adds a member at the end, or gives the one of that name another value.
func (r *record) set(name string, value any) {
	if i, ok := r.places[name]; ok {
		r.values[i] = value
		return
	}
	r.places[name] = len(r.names)
	r.names, r.values = append(r.names, name), append(r.values, value)
}

// unset marks the member of a name as taken out, until compact does so.
func (r *record) unset(name string) {
	if at, ok := r.places[name]; ok {
		r.values[at] = nil
	}
}

// compact takes out what unset has marked, all at once.
func (r *record) compact() {
	kept := 0
	for i, name := range r.names {
		if r.values[i] == nil {
			delete(r.places, name)
			continue
		}
		r.names[kept], r.values[kept], r.places[name] = name, r.values[i], kept
		kept++
	}
	r.names, r.values = r.names[:kept], r.values[:kept]
}

// members walks through an object: in the order in which the message or a function has its members, and sorted by name where cel-go has made
// it and knows no order. It reports whether all members' names are ones that JSON can write.
func members(m traits.Mapper, f func(name string, value any)) bool {
	switch m := m.(type) {
	case *object:
		(*node)(m).each(func(n *node) bool { f(n.name(), n); return true })
		return true
	case *record:
		for i, name := range m.names {
			f(name, m.values[i])
		}
		return true
	}
	type member struct {
		name string
		key  ref.Val
	}
	var all []member
	for it := m.Iterator(); it.HasNext() == types.True; {
		key := it.Next()
		name, ok := memberName(key)
		if !ok {
			return false
		}
		all = append(all, member{name, key})
	}
	slices.SortFunc(all, func(a, b member) int { return strings.Compare(a.name, b.name) })
	for _, mb := range all {
		f(mb.name, m.Get(mb.key))
	}
	return true
}

func (r *record) FindStringKey(name string) (any, bool) {
	if i, ok := r.places[name]; ok {
		return r.values[i], true
	}
	return nil, false
}

func (r *record) Find(key ref.Val) (ref.Val, bool) {
	if name, ok := key.(types.String); ok {
		if i, ok := r.places[string(name)]; ok {
			return values.NativeToValue(r.values[i]), true
		}
	}
	return nil, false
}

func (r *record) Get(key ref.Val) ref.Val {
	if v, ok := r.Find(key); ok {
		return v
	}
	return types.NewErr("no such key")
}

func (r *record) Contains(key ref.Val) ref.Val {
	_, ok := r.Find(key)
	return types.Bool(ok)
}

func (r *record) Size() ref.Val { return types.Int(len(r.names)) }

func (r *record) Fold(f traits.Folder) {
	for i, name := range r.names {
		if !f.FoldEntry(types.String(name), r.values[i]) {
			return
		}
	}
}

func (r *record) Iterator() traits.Iterator {
	names := make([]ref.Val, len(r.names))
	for i, name := range r.names {
		names[i] = types.String(name)
	}
	return types.NewRefValList(values, names).Iterator()
}

func (r *record) Equal(other ref.Val) ref.Val {
	m, ok := other.(traits.Mapper)
	if !ok || m.Size() != r.Size() {
		return types.False
	}
	for i, name := range r.names {
		v, found := m.Find(types.String(name))
		if !found || types.Equal(values.NativeToValue(r.values[i]), v) != types.True {
			return types.False
		}
	}
	return types.True
}

func (r *record) IsZeroValue() bool                         { return len(r.names) == 0 }
func (r *record) ConvertToNative(reflect.Type) (any, error) { return nil, errNative }
func (r *record) ConvertToType(to ref.Type) ref.Val         { return convert(r, to) }
func (r *record) Type() ref.Type                            { return types.MapType }
func (r *record) Value() any                                { return r }
