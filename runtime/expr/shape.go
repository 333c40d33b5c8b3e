package expr

import (
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	celparser "cel.dev/cel-go/parser"
)

// What JSON is shaped with and neither CEL nor its libraries have. Objects that come out of these functions keep the order of their members,
// and what is taken over from the message is copied as it stands there.

const (
	mergeOverload = "waybill_map_merge"
	pickOverload  = "waybill_map_pick"
	omitOverload  = "waybill_map_omit"
	nullsOverload = "waybill_omit_nulls"
	groupOverload = "waybill_list_group_by"
	groupFunction = "@groupByKeys"
)

func shapeFunctions() []cel.EnvOption {
	anyMap, names := cel.MapType(cel.StringType, cel.DynType), cel.ListType(cel.StringType)
	element := cel.TypeParamType("T")
	options := []cel.EnvOption{
		cel.Function("merge", cel.MemberOverload(mergeOverload, []*cel.Type{anyMap, anyMap}, anyMap, cel.BinaryBinding(merge))),
		cel.Function("pick", cel.MemberOverload(pickOverload, []*cel.Type{anyMap, names}, anyMap, cel.BinaryBinding(choose(true)))),
		cel.Function("omit", cel.MemberOverload(omitOverload, []*cel.Type{anyMap, names}, anyMap, cel.BinaryBinding(choose(false)))),
		// One overload for objects and lists: cel-go counts the cost of a call only where it knows the overload beforehand.
		cel.Function("omitNulls", cel.MemberOverload(nullsOverload, []*cel.Type{cel.DynType}, cel.DynType, cel.UnaryBinding(omitNulls))),
		cel.Function(groupFunction, cel.MemberOverload(groupOverload, []*cel.Type{cel.ListType(element), cel.ListType(cel.DynType)},
			cel.MapType(cel.StringType, cel.ListType(element)), cel.BinaryBinding(group))),
		cel.Macros(cel.ReceiverMacro("groupBy", 2, groupBy)),
	}
	coalesces := []cel.FunctionOpt{}
	for n := 2; n <= 5; n++ {
		args := make([]*cel.Type, n)
		for i := range args {
			args[i] = cel.DynType
		}
		binding := cel.FunctionBinding(coalesce)
		if n == 2 {
			binding = cel.BinaryBinding(func(a, b ref.Val) ref.Val { return coalesce(a, b) })
		}
		coalesces = append(coalesces, cel.Overload("waybill_coalesce_"+string(rune('0'+n)), args, cel.DynType, binding))
	}
	return append(options, cel.Function("coalesce", coalesces...))
}

// merge gives the members of both objects; where both have one, the second's value in the place of the first's.
func merge(a, b ref.Val) ref.Val {
	out := newRecord(size(a) + size(b))
	for _, v := range []ref.Val{a, b} {
		m, ok := v.(traits.Mapper) // null comes through cel-go's own check of types
		if !ok {
			return types.MaybeNoSuchOverloadErr(v)
		}
		if !members(m, out.set) {
			return types.WrapErr(errKey)
		}
	}
	return out
}

// choose gives the members with the names in a list, or those without.
func choose(named bool) func(m, names ref.Val) ref.Val {
	return func(m, names ref.Val) ref.Val {
		from, isMap := m.(traits.Mapper)
		list, isList := names.(traits.Lister)
		if !isMap || !isList {
			return types.MaybeNoSuchOverloadErr(m)
		}
		of := make(map[string]bool, size(names))
		for it := list.Iterator(); it.HasNext() == types.True; {
			name, ok := it.Next().(types.String)
			if !ok {
				return types.WrapErr(errOverload)
			}
			of[string(name)] = true
		}
		out := newRecord(size(m))
		if !members(from, func(name string, value any) {
			if of[name] == named {
				out.set(name, value)
			}
		}) {
			return types.WrapErr(errKey)
		}
		return out
	}
}

// omitNulls leaves out the members that are null, of objects at any depth. Elements of lists stay: their place may mean something.
func omitNulls(v ref.Val) ref.Val { return values.NativeToValue(withoutNulls(v, 0)) }

// withoutNulls takes and gives a *node or a CEL value.
func withoutNulls(v any, depth int) any {
	if depth > maxDepth {
		return types.WrapErr(errDeep)
	}
	switch x := v.(type) {
	case *object:
		v = (*node)(x)
	case *list:
		v = (*node)(x)
	}
	if n, ok := v.(*node); ok {
		if !n.holdsNull() {
			return n
		}
		v = n.value()
	}
	switch v := v.(type) {
	case traits.Mapper:
		return recordWithoutNulls(v, depth)
	case traits.Lister:
		out := make([]ref.Val, 0, size(v))
		for it := v.Iterator(); it.HasNext() == types.True; {
			e := values.NativeToValue(withoutNulls(it.Next(), depth+1))
			if types.IsError(e) {
				return e
			}
			out = append(out, e)
		}
		return types.NewRefValList(values, out)
	}
	return v
}

func recordWithoutNulls(m traits.Mapper, depth int) ref.Val {
	out := newRecord(size(m))
	var failed ref.Val
	ok := members(m, func(name string, value any) {
		if isNull(value) {
			out.unset(name) // of a name that stands twice the last one counts
			return
		}
		value = withoutNulls(value, depth+1)
		if err, ok := value.(*types.Err); ok {
			failed = err
		}
		out.set(name, value)
	})
	switch {
	case !ok:
		return types.WrapErr(errKey)
	case failed != nil:
		return failed
	}
	out.compact()
	return out
}

func isNull(v any) bool {
	n, ok := v.(*node)
	return ok && n.kind == kindNull || v == types.NullValue
}

// holdsNull reports whether there is a null in n. Nodes lie in the order of the text, so that all of n's lie together.
func (n *node) holdsNull() bool {
	for i := uint32(1); i < n.skip; i++ {
		if n.at(i).kind == kindNull {
			return true
		}
	}
	return false
}

// coalesce gives the first of its arguments that is there: no absent optional and not null. Without one it is null.
func coalesce(args ...ref.Val) ref.Val {
	for _, v := range args {
		if o, ok := v.(*types.Optional); ok {
			if !o.HasValue() {
				continue
			}
			v = o.GetValue()
		}
		if v != types.NullValue {
			return v
		}
	}
	return types.NullValue
}

// groupBy makes of list.groupBy(x, key) the call of a function that takes the list and the list of the elements' keys.
func groupBy(meh cel.MacroExprFactory, target ast.Expr, args []ast.Expr) (ast.Expr, *cel.Error) {
	input := meh.NewIdent("@__groupBy_input__")
	keys, err := celparser.MakeMap(meh, meh.Copy(input), args)
	if err != nil {
		return nil, err
	}
	return meh.NewComprehension(meh.NewList(), "#unused", input.AsIdent(), target, meh.NewLiteral(types.False), input,
		meh.NewMemberCall(groupFunction, meh.Copy(input), keys)), nil
}

// group gives an object of lists: the elements that have a key, in their order, under that key's name; names in the order of their first element.
func group(elements, keys ref.Val) ref.Val {
	from, ok := elements.(traits.Lister)
	if !ok {
		return types.MaybeNoSuchOverloadErr(elements)
	}
	groups := make(map[string]int)
	var names []string
	var lists [][]ref.Val
	all, of := from.Iterator(), keys.(traits.Lister).Iterator()
	for all.HasNext() == types.True && of.HasNext() == types.True {
		name, ok := memberName(of.Next())
		if !ok {
			return types.WrapErr(errKey)
		}
		i, known := groups[name]
		if !known {
			i = len(names)
			groups[name] = i
			names, lists = append(names, name), append(lists, nil)
		}
		lists[i] = append(lists[i], all.Next())
	}
	out := newRecord(len(names))
	for i, name := range names {
		out.set(name, types.NewRefValList(values, lists[i]))
	}
	return out
}

// shapeCosts counts the members and elements that these functions look at; to make an object of them is dearer than to look.
func shapeCosts() []cost.TrackerOption {
	sized := func(args []ref.Val, _ ref.Val) *uint64 {
		n := uint64(1)
		for _, v := range args {
			n += 3 * uint64(size(v))
		}
		return &n
	}
	var options []cost.TrackerOption
	for _, overload := range []string{mergeOverload, pickOverload, omitOverload, groupOverload} {
		options = append(options, cost.OverloadTracker(overload, sized))
	}
	return append(options, cost.OverloadTracker(nullsOverload, func(args []ref.Val, _ ref.Val) *uint64 {
		n := uint64(weigh(args[0], 0))
		return &n
	}))
}

// weigh counts the values in v.
func weigh(v any, depth int) int {
	switch v := v.(type) {
	case *node:
		return int(v.skip)
	case *object:
		return int(v.skip)
	case *list:
		return int(v.skip)
	}
	n := 1
	if depth > maxDepth {
		return n
	}
	switch v := v.(type) {
	case traits.Mapper:
		members(v, func(_ string, value any) { n += weigh(value, depth+1) })
	case traits.Lister:
		for it := v.Iterator(); it.HasNext() == types.True; {
			n += weigh(it.Next(), depth+1)
		}
	}
	return n
}
