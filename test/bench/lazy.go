package main

import (
	"strconv"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"github.com/valyala/fastjson"
)

// decodeLazily runs the pipeline's own expressions with cel-go on a tree that is parsed lazily, without a map of Go's in between.
func decodeLazily() convert {
	env, err := cel.NewEnv(cel.Variable("data", cel.DynType), cel.Function("sum", cel.MemberOverload("list_sum",
		[]*cel.Type{cel.ListType(cel.DynType)}, cel.DynType, cel.UnaryBinding(sumOf))))
	if err != nil {
		fatal(err)
	}
	program := func(source string) cel.Program {
		ast, issues := env.Compile(source)
		if issues.Err() != nil {
			fatal(issues.Err())
		}
		p, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize))
		if err != nil {
			fatal(err)
		}
		return p
	}
	filter := program(`data.type == "order.created" && data.total > 100`)
	transform := program(`{"id": data.id, "customer": data.customer, "total": data.total, "units": data.lines.map(l, l.qty).sum()}`)

	var parser fastjson.Parser
	data := &activation{}
	return func(raw []byte) ([]byte, bool, error) {
		v, err := parser.ParseBytes(raw)
		if err != nil {
			return nil, false, err
		}
		data.root = lazily(v)
		pass, _, err := filter.Eval(data)
		if err != nil || pass != types.True {
			return nil, false, err
		}
		made, _, err := transform.Eval(data)
		if err != nil {
			return nil, false, err
		}
		return appendValue(make([]byte, 0, 96), made), true, nil
	}
}

type activation struct{ root ref.Val }

func (a *activation) ResolveName(name string) (any, bool) { return a.root, name == "data" }
func (a *activation) Parent() cel.Activation              { return nil }

func sumOf(list ref.Val) ref.Val {
	var total ref.Val = types.IntZero
	for it := list.(traits.Lister).Iterator(); it.HasNext() == types.True; {
		total = it.Next().(traits.Adder).Add(total)
	}
	return total
}

func lazily(v *fastjson.Value) ref.Val {
	switch v.Type() {
	case fastjson.TypeObject:
		return &lazyObject{v: v}
	case fastjson.TypeArray:
		items, _ := v.Array() // it is one
		return &lazyArray{items: items}
	case fastjson.TypeString:
		b, _ := v.StringBytes() // it is one
		return types.String(b)
	case fastjson.TypeNumber:
		if n, err := v.Int64(); err == nil {
			return types.Int(n)
		}
		return types.Double(v.GetFloat64())
	case fastjson.TypeTrue:
		return types.True
	case fastjson.TypeFalse:
		return types.False
	default:
		return types.NullValue
	}
}

// The two have what these expressions ask of an object and a list; of the rest there is none.
type (
	lazyObject struct {
		traits.Mapper
		v *fastjson.Value
	}
	lazyArray struct {
		traits.Lister
		items []*fastjson.Value
	}
)

func (o *lazyObject) Find(key ref.Val) (ref.Val, bool) {
	if v := o.v.Get(string(key.(types.String))); v != nil {
		return lazily(v), true
	}
	return nil, false
}

func (o *lazyObject) Get(key ref.Val) ref.Val {
	if v, ok := o.Find(key); ok {
		return v
	}
	return types.NewErr("no such key: %v", key)
}

func (o *lazyObject) Type() ref.Type { return types.MapType }
func (o *lazyObject) Value() any     { return o.v }

func (a *lazyArray) Fold(f traits.Folder) {
	for i, v := range a.items {
		if !f.FoldEntry(types.Int(i), lazily(v)) {
			return
		}
	}
}

func (a *lazyArray) Size() ref.Val  { return types.Int(len(a.items)) }
func (a *lazyArray) Type() ref.Type { return types.ListType }
func (a *lazyArray) Value() any     { return a.items }

func appendValue(b []byte, v ref.Val) []byte {
	switch v := v.(type) {
	case types.Int:
		return strconv.AppendInt(b, int64(v), 10)
	case types.String:
		return strconv.AppendQuote(b, string(v))
	case traits.Mapper:
		b = append(b, '{')
		for it := v.Iterator(); it.HasNext() == types.True; {
			if b[len(b)-1] != '{' {
				b = append(b, ',')
			}
			key := it.Next()
			b = append(appendValue(b, key), ':')
			b = appendValue(b, v.Get(key))
		}
		return append(b, '}')
	default:
		return append(b, "null"...)
	}
}
