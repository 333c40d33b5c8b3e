package expr

import (
	"reflect"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/waybill-dev/waybill/runtime/message"
)

// attributes is the map of a message's extension attributes.
type attributes []message.Attribute

func (a *attributes) FindStringKey(name string) (any, bool) {
	for i := range *a {
		if (*a)[i].Name == name {
			return types.String((*a)[i].Value), true
		}
	}
	return nil, false
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

func (a *attributes) Size() ref.Val { return types.Int(len(*a)) }

func (a *attributes) Fold(f traits.Folder) {
	for i := range *a {
		if !f.FoldEntry(types.String((*a)[i].Name), types.String((*a)[i].Value)) {
			return
		}
	}
}

func (a *attributes) Iterator() traits.Iterator {
	names := make([]ref.Val, len(*a))
	for i := range *a {
		names[i] = types.String((*a)[i].Name)
	}
	return types.NewRefValList(values, names).Iterator()
}

func (a *attributes) Equal(other ref.Val) ref.Val {
	m, ok := other.(traits.Mapper)
	if !ok || m.Size() != a.Size() {
		return types.False
	}
	for i := range *a {
		v, found := m.Find(types.String((*a)[i].Name))
		if !found || types.Equal(v, types.String((*a)[i].Value)) != types.True {
			return types.False
		}
	}
	return types.True
}

func (a *attributes) IsZeroValue() bool                         { return len(*a) == 0 }
func (a *attributes) ConvertToNative(reflect.Type) (any, error) { return nil, errNative }
func (a *attributes) ConvertToType(to ref.Type) ref.Val         { return convert(a, to) }
func (a *attributes) Type() ref.Type                            { return types.MapType }
func (a *attributes) Value() any                                { return a }
