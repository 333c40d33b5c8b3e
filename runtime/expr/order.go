package expr

import (
	"slices"

	"cel.dev/cel-go/common/functions"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// JSON does not tell 70 from 70.0, but CEL tells an int from a double. What CEL's libraries give for numbers of one type only is given here for
// numbers of either.

const errOrder = saying("sort() and sortBy() order numbers, or texts, or points in time, or durations, or true and false, and not a mixture of them")

// sorted stands for sort() and the function behind sortBy(): as cel-go's, but for numbers of several types, and elements that are alike keep
// their order.
func sorted(list, keys ref.Val) ref.Val {
	from, ok := list.(traits.Lister)
	if !ok {
		return types.MaybeNoSuchOverloadErr(list)
	}
	type pair struct{ key, value ref.Val }
	pairs := make([]pair, 0, size(list))
	var first ref.Val
	for e, k := from.Iterator(), keys.(traits.Lister).Iterator(); e.HasNext() == types.True && k.HasNext() == types.True; {
		key := k.Next()
		if _, ok := key.(traits.Comparer); !ok {
			return types.WrapErr(errOrder)
		}
		if first == nil {
			first = key
		}
		if key.Type() != first.Type() && !(numeric(key) && numeric(first)) {
			return types.WrapErr(errOrder)
		}
		pairs = append(pairs, pair{key, e.Next()})
	}
	slices.SortStableFunc(pairs, func(a, b pair) int {
		n, _ := a.key.(traits.Comparer).Compare(b.key).(types.Int)
		return int(n)
	})
	out := make([]ref.Val, len(pairs))
	for i, p := range pairs {
		out[i] = p.value
	}
	return types.NewRefValList(values, out)
}

// replaced are functions of cel-go's libraries with other implementations, by the name of the function.
var replaced = map[string]func(*functions.Overload){
	"sort":                  func(o *functions.Overload) { o.Unary = func(l ref.Val) ref.Val { return sorted(l, l) } },
	"@sortByAssociatedKeys": func(o *functions.Overload) { o.Binary = sorted },
	"math.round":            wholeAsItIs,
	"math.ceil":             wholeAsItIs,
	"math.floor":            wholeAsItIs,
	"math.trunc":            wholeAsItIs,
}

// wholeAsItIs gives whole numbers back as they are.
func wholeAsItIs(o *functions.Overload) {
	of := o.Unary
	o.Unary = func(v ref.Val) ref.Val {
		switch v.(type) {
		case types.Int, types.Uint:
			return v
		}
		return of(v)
	}
}
