package expr

import (
	"fmt"
	"math"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/functions"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

const (
	// maxResult bounds the text that one call may make: cost is counted after a call, which could be too late for one that multiplies.
	maxResult = 8 << 20
	// maxPairs bounds the comparisons within one call.
	maxPairs = 1 << 20
)

const sumOverload = "waybill_list_sum"

// sumFunction declares list.sum(), which CEL lacks: the sum of a list of numbers, 0 of an empty one.
func sumFunction() cel.EnvOption {
	number := cel.TypeParamType("T")
	return cel.Function("sum", cel.MemberOverload(sumOverload, []*cel.Type{cel.ListType(number)}, number, cel.UnaryBinding(sum)))
}

func sum(v ref.Val) ref.Val {
	l, ok := v.(traits.Lister) // null comes through cel-go's own check of types
	if !ok {
		return types.MaybeNoSuchOverloadErr(v)
	}
	var total ref.Val = types.IntZero
	for it := l.Iterator(); it.HasNext() == types.True; {
		n := it.Next()
		if !numeric(n) {
			return types.NewErr("sum() takes numbers only")
		}
		if total = mix(total, n, add); types.IsError(total) {
			return total
		}
	}
	return total
}

func sumCost(args []ref.Val, _ ref.Val) *uint64 {
	n := uint64(size(args[0])) + 1
	return &n
}

var costs = cel.CostTrackerOptions(slices.Concat([]cost.TrackerOption{cost.OverloadTracker(sumOverload, sumCost)}, shapeCosts(), codecCosts(), calendarCosts())...)

// callCosts counts the calls of which cel-go learns only at run time which overload they are, for it takes those to be as cheap as any.
type callCosts struct{}

func (callCosts) CallCost(function, _ string, _ []ref.Val, result ref.Val) *uint64 {
	n := uint64(1)
	switch function {
	case "reverse", "sort", "@sortByAssociatedKeys", "format", operators.Add, "bytes", "string":
		switch {
		case text(result):
			n += uint64(size(result)) / 10
		case function != operators.Add: // which only notes the lists that it joins
			n += uint64(size(result))
		}
		return &n
	}
	return nil
}

func numeric(v ref.Val) bool {
	switch v.(type) {
	case types.Int, types.Uint, types.Double:
		return true
	}
	return false
}

func add(a, b ref.Val) ref.Val { return a.(traits.Adder).Add(b) }

// mix applies op to two values after giving them one type if they are numbers of two: int where both fit it, else double.
func mix(a, b ref.Val, op functions.BinaryOp) ref.Val {
	switch x := a.(type) {
	case types.Int:
		switch y := b.(type) {
		case types.Uint:
			if y <= math.MaxInt64 {
				return op(x, types.Int(y))
			}
			return op(types.Double(x), types.Double(y))
		case types.Double:
			return op(types.Double(x), y)
		}
	case types.Uint:
		switch y := b.(type) {
		case types.Int:
			if x <= math.MaxInt64 {
				return op(types.Int(x), y)
			}
			return op(types.Double(x), types.Double(y))
		case types.Double:
			return op(types.Double(x), y)
		}
	case types.Double:
		switch y := b.(type) {
		case types.Int:
			return op(x, types.Double(y))
		case types.Uint:
			return op(x, types.Double(y))
		}
	}
	return op(a, b)
}

// guard says before a call whether it would make or do too much.
type guard func(args []ref.Val) error

// guards stand before the functions whose work or result can be the product of the sizes of their arguments.
var guards = map[string]guard{
	"replace":          replaceGuard,
	"regex.replace":    regexGuard,
	"join":             joinGuard,
	"format":           formatGuard,
	"distinct":         func(args []ref.Val) error { return pairs(args[0], args[0]) },
	"sets.contains":    pairsGuard,
	"sets.equivalent":  pairsGuard,
	"sets.intersects":  pairsGuard,
	"hasAll":           pairsGuard,
	"hasAny":           pairsGuard,
	"hasExactly":       pairsGuard,
	"hasOnly":          pairsGuard,
	operators.Add:      nil,
	operators.Subtract: nil,
	operators.Multiply: nil,
	operators.Divide:   nil,
	operators.Modulo:   nil,
}

func size(v ref.Val) int {
	switch v := v.(type) {
	case types.String:
		return len(v)
	case types.Bytes:
		return len(v)
	case traits.Sizer:
		if n, ok := v.Size().(types.Int); ok {
			return int(n)
		}
	}
	return 1
}

func tooLong(function string) error {
	return saying(fmt.Sprintf("%s() would make a text of more than %d MiB", function, maxResult>>20))
}

// replaceGuard: there is no more than a place a byte of the old text to grow by the new one.
func replaceGuard(args []ref.Val) error {
	if len(args) < 3 {
		return nil
	}
	places := size(args[0])/max(size(args[1]), 1) + 1
	if places > (maxResult-min(size(args[0]), maxResult))/max(size(args[2]), 1) {
		return tooLong("replace")
	}
	return nil
}

// regexGuard: a pattern can match the empty text and so at each place.
func regexGuard(args []ref.Val) error {
	if len(args) < 3 {
		return nil
	}
	// A reference like \\1 in the new text brings in up to the whole old one.
	if (size(args[0]) + 1) > maxResult/(max(size(args[2]), 1)+1) {
		return tooLong("regex.replace")
	}
	return nil
}

func joinGuard(args []ref.Val) error {
	l, ok := args[0].(traits.Lister)
	if !ok {
		return nil
	}
	separator, total := 0, 0
	if len(args) > 1 {
		separator = size(args[1])
	}
	for it := l.Iterator(); it.HasNext() == types.True; {
		if total += size(it.Next()) + separator; total > maxResult {
			return tooLong("join")
		}
	}
	return nil
}

// formatGuard: each clause takes one argument once.
func formatGuard(args []ref.Val) error {
	if len(args) < 2 || size(args[0])+weight(args[1], 0) > maxResult {
		return tooLong("format")
	}
	return nil
}

// weight is about how many bytes v has in a text.
func weight(v ref.Val, depth int) int {
	switch v := v.(type) {
	case *object:
		return int(v.end - v.start)
	case *list:
		return int(v.end - v.start)
	case traits.Lister:
		if depth > maxDepth {
			return maxResult + 1
		}
		total := 0
		for it := v.Iterator(); it.HasNext() == types.True && total <= maxResult; {
			total += weight(it.Next(), depth+1) + 2
		}
		return total
	case traits.Mapper:
		if depth > maxDepth {
			return maxResult + 1
		}
		total := 0
		for it := v.Iterator(); it.HasNext() == types.True && total <= maxResult; {
			k := it.Next()
			total += weight(k, depth+1) + weight(v.Get(k), depth+1) + 4
		}
		return total
	case types.String, types.Bytes:
		return size(v)
	}
	return 24
}

func pairs(a, b ref.Val) error {
	if n, m := size(a), size(b); n > 0 && m > maxPairs/n {
		return saying(fmt.Sprintf("lists of these sizes would take more than %d comparisons", maxPairs))
	}
	return nil
}

func pairsGuard(args []ref.Val) error {
	if len(args) < 2 {
		return nil
	}
	return pairs(args[0], args[1])
}

// guarded gives the bounded, number-mixing implementations of an environment's functions.
func guarded(env *cel.Env) (cel.ProgramOption, error) {
	var all []*functions.Overload
	for name, g := range guards {
		f, ok := env.Functions()[name]
		if !ok {
			return nil, fmt.Errorf("CEL has no function %s to guard", name)
		}
		bindings, err := f.Bindings()
		if err != nil {
			return nil, err
		}
		for _, b := range bindings {
			if g == nil {
				all = append(all, mixed(b))
			} else {
				all = append(all, behind(g, b))
			}
		}
	}
	for name, change := range replaced {
		f, ok := env.Functions()[name]
		if !ok {
			return nil, fmt.Errorf("CEL has no function %s to replace", name)
		}
		bindings, err := f.Bindings()
		if err != nil {
			return nil, err
		}
		for _, b := range bindings {
			c := *b
			change(&c)
			all = append(all, &c)
		}
	}
	// To declare the functions again would mean to repeat the signatures of all their overloads.
	return cel.Functions(all...), nil //nolint:staticcheck // the only way to wrap an implementation and keep its declaration
}

func mixed(o *functions.Overload) *functions.Overload {
	c, op := *o, o.Binary
	c.Binary = func(a, b ref.Val) ref.Val {
		if text(a) && text(b) && size(a)+size(b) > maxResult {
			return types.WrapErr(errTooMuchText)
		}
		return mix(a, b, op)
	}
	return &c
}

var errTooMuchText = saying(fmt.Sprintf("+ would make a text of more than %d MiB", maxResult>>20))

func text(v ref.Val) bool {
	switch v.(type) {
	case types.String, types.Bytes:
		return true
	}
	return false
}

func behind(g guard, o *functions.Overload) *functions.Overload {
	c := *o
	if o.Unary != nil {
		c.Unary = func(v ref.Val) ref.Val {
			if err := g([]ref.Val{v}); err != nil {
				return types.WrapErr(err)
			}
			return o.Unary(v)
		}
	}
	if o.Binary != nil {
		c.Binary = func(a, b ref.Val) ref.Val {
			if err := g([]ref.Val{a, b}); err != nil {
				return types.WrapErr(err)
			}
			return o.Binary(a, b)
		}
	}
	if o.Function != nil {
		c.Function = func(args ...ref.Val) ref.Val {
			if err := g(args); err != nil {
				return types.WrapErr(err)
			}
			return o.Function(args...)
		}
	}
	return &c
}
