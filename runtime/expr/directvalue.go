package expr

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// What follows is the direct way: closures that work on nodes and unboxed values. They know only what goes well. Where a value is missing,
// has an unexpected type, or an operation fails, they are unsure, and cel-go evaluates that part again and says what is right.

// val is a value on the direct way.
type val struct {
	kind valKind
	num  uint64  // a vInt, the bits of a vDouble, 1 of a true vBool
	str  string  // a vString
	node *node   // where the value stands in the text, if it does
	ref  ref.Val // a vRef
}

type valKind uint8

const (
	unsure valKind = iota
	vNull
	vBool
	vInt
	vDouble
	vString
	vNode // a list or object of the text
	vRef  // any other value of cel-go's
)

func intVal(i int64) val      { return val{kind: vInt, num: uint64(i)} }
func doubleVal(f float64) val { return val{kind: vDouble, num: math.Float64bits(f)} }
func stringVal(s string) val  { return val{kind: vString, str: s} }

func boolVal(b bool) val {
	v := val{kind: vBool}
	if b {
		v.num = 1
	}
	return v
}

func (x *val) int() int64      { return int64(x.num) }
func (x *val) double() float64 { return math.Float64frombits(x.num) }

// direct decodes a node.
func (n *node) direct() val {
	x := val{node: n}
	switch n.kind {
	case kindNull:
		x.kind = vNull
	case kindFalse:
		x.kind = vBool
	case kindTrue:
		x.kind, x.num = vBool, 1
	case kindString:
		x.kind, x.str = vString, n.string()
	case kindList, kindObject:
		x.kind = vNode
	case kindInteger:
		if i, ok := integer(n.raw()); ok {
			x.kind, x.num = vInt, uint64(i)
			break
		}
		if u, ok := unsigned(n.raw()); ok {
			x.kind, x.ref = vRef, types.Uint(u)
			break
		}
		fallthrough
	default:
		x.kind, x.num = vDouble, math.Float64bits(n.float())
	}
	return x
}

// fromRef takes over a value of cel-go's that is none of a message.
func fromRef(r ref.Val) val {
	switch r := r.(type) {
	case types.Null:
		return val{kind: vNull}
	case types.Bool:
		return boolVal(bool(r))
	case types.Int:
		return intVal(int64(r))
	case types.Double:
		return doubleVal(float64(r))
	case types.String:
		return stringVal(string(r))
	case *list:
		return val{kind: vNode, node: (*node)(r)}
	case *object:
		return val{kind: vNode, node: (*node)(r)}
	}
	return val{kind: vRef, ref: r}
}

// native hands a value to cel-go.
func (x *val) native() any {
	if x.node != nil {
		return x.node.native()
	}
	switch x.kind {
	case vNull:
		return types.NullValue
	case vBool:
		return types.Bool(x.num == 1)
	case vInt:
		return types.Int(x.int())
	case vDouble:
		return types.Double(x.double())
	case vString:
		return types.String(x.str)
	default:
		return x.ref
	}
}

// appendVal appends a value as JSON; what stands in the text is copied.
func (v *View) appendVal(dst []byte, x *val) ([]byte, error) {
	if x.node != nil {
		return append(dst, x.node.raw()...), nil
	}
	switch x.kind {
	case vNull:
		return append(dst, "null"...), nil
	case vBool:
		return strconv.AppendBool(dst, x.num == 1), nil
	case vInt:
		return strconv.AppendInt(dst, x.int(), 10), nil
	case vDouble:
		f := x.double()
		if math.IsInf(f, 0) || math.IsNaN(f) {
			return dst, errNumber
		}
		return appendDouble(dst, f), nil
	case vString:
		return appendString(dst, x.str), nil
	default:
		return v.appendValue(dst, x.ref, 0)
	}
}

// truth is what a condition says on the direct way.
type truth uint8

const (
	open truth = iota // unsure
	no
	yes
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

func (x *val) truth() truth {
	if x.kind != vBool {
		return open
	}
	return truthOf(x.num == 1)
}

func (t truth) val() val {
	if t == open {
		return val{}
	}
	return boolVal(t == yes)
}

// order compares two values that have an order: -1, 0, 1. It is CEL's comparison, across numeric types too.
func order(a, b *val) (int, bool) {
	switch {
	case a.kind == vInt && b.kind == vInt:
		return compare(a.int(), b.int()), true
	case a.kind == vDouble && b.kind == vDouble:
		return orderDoubles(a.double(), b.double())
	case a.kind == vInt && b.kind == vDouble:
		return orderDoubles(float64(a.int()), b.double())
	case a.kind == vDouble && b.kind == vInt:
		return orderDoubles(a.double(), float64(b.int()))
	case a.kind == vString && b.kind == vString:
		return strings.Compare(a.str, b.str), true
	case a.kind == vBool && b.kind == vBool:
		return compare(int64(a.num), int64(b.num)), true
	}
	return 0, false
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func orderDoubles(a, b float64) (int, bool) {
	switch {
	case a < b:
		return -1, true
	case a > b:
		return 1, true
	case a == b:
		return 0, true
	}
	return 0, false // not a number
}

// equal is CEL's equality: values of different types differ, but for numbers.
func equal(a, b *val) truth {
	if a.kind == unsure || b.kind == unsure || a.kind >= vNode || b.kind >= vNode {
		return open
	}
	if a.kind == vNull && b.kind == vNull {
		return yes
	}
	if a.kind == b.kind || isNumber(a) && isNumber(b) {
		o, ok := order(a, b)
		if !ok {
			return open
		}
		return truthOf(o == 0)
	}
	return no
}

func isNumber(x *val) bool { return x.kind == vInt || x.kind == vDouble }

// calculate does arithmetic on numbers, and + on strings.
func calculate(op byte, a, b *val) val {
	switch {
	case a.kind == vInt && b.kind == vInt:
		return calculateInts(op, a.int(), b.int())
	case a.kind == vString && b.kind == vString && op == '+' && len(a.str)+len(b.str) < maxResult:
		return stringVal(a.str + b.str)
	case !isNumber(a) || !isNumber(b):
		return val{}
	}
	x, y := a.double(), b.double()
	if a.kind == vInt {
		x = float64(a.int())
	}
	if b.kind == vInt {
		y = float64(b.int())
	}
	switch op {
	case '+':
		x += y
	case '-':
		x -= y
	case '*':
		x *= y
	case '/':
		x /= y
	default:
		return val{}
	}
	return doubleVal(x)
}

func calculateInts(op byte, a, b int64) val {
	const half = 1 << 31
	switch op {
	case '+':
		if s := a + b; (s > a) == (b > 0) {
			return intVal(s)
		}
	case '-':
		if s := a - b; (s < a) == (b > 0) {
			return intVal(s)
		}
	case '*':
		if -half < a && a < half && -half < b && b < half {
			return intVal(a * b)
		}
	case '/':
		if b > 0 {
			return intVal(a / b)
		}
	case '%':
		if b > 0 {
			return intVal(a % b)
		}
	}
	return val{}
}

// length is CEL's size().
func length(x *val) val {
	switch x.kind {
	case vString:
		return intVal(int64(utf8.RuneCountInString(x.str)))
	case vNode:
		return intVal(int64(x.node.count))
	}
	return val{}
}
