package expr

import (
	"reflect"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/waybill-dev/waybill/runtime/message"
)

// attributes is the map of a message's extension attributes, those apart that serve Waybill alone.
type attributes []message.Attribute

func (a *attributes) FindStringKey(name string) (any, bool) {
	if v, ok := extension(*a, name); ok {
		return types.String(v), true
	}
	return nil, false
}

func extension(list []message.Attribute, name string) (string, bool) {
	for i := range list {
		if list[i].Name == name {
			return list[i].Value, !message.Internal(name)
		}
	}
	return "", false
}

// shown are the names.
func (a *attributes) shown() []ref.Val {
	names := make([]ref.Val, 0, len(*a))
	for i := range *a {
		if !message.Internal((*a)[i].Name) {
			names = append(names, types.String((*a)[i].Name))
		}
	}
	return names
}

func (a *attributes) Find(key ref.Val) (ref.Val, bool) {
	if name, ok := key.(types.String); ok {
		if v, ok := a.FindStringKey(string(name)); ok {
			return v.(ref.Val), true
		}
	}
	return nil, false
}

func (a *attributes) Get(key ref.Val) ref.Val {
	if v, ok := a.Find(key); ok {
		return v
	}
	return types.NewErr("no such key")
}

func (a *attributes) Contains(key ref.Val) ref.Val {
	_, ok := a.Find(key)
	return types.Bool(ok)
}

func (a *attributes) Size() ref.Val { return types.Int(len(a.shown())) }

func (a *attributes) Fold(f traits.Folder) {
	for _, name := range a.shown() {
		if !f.FoldEntry(name, a.Get(name)) {
			return
		}
	}
}

func (a *attributes) Iterator() traits.Iterator {
	return types.NewRefValList(values, a.shown()).Iterator()
}

func (a *attributes) Equal(other ref.Val) ref.Val {
	m, ok := other.(traits.Mapper)
	if !ok || m.Size() != a.Size() {
		return types.False
	}
	for _, name := range a.shown() {
		v, found := m.Find(name)
		if !found || types.Equal(v, a.Get(name)) != types.True {
			return types.False
		}
	}
	return types.True
}

func (a *attributes) IsZeroValue() bool                         { return a.Size() == types.IntZero }
func (a *attributes) ConvertToNative(reflect.Type) (any, error) { return nil, errNative }
func (a *attributes) ConvertToType(to ref.Type) ref.Val         { return convert(a, to) }
func (a *attributes) Type() ref.Type                            { return types.MapType }
func (a *attributes) Value() any                                { return a }
