package expr

import (
	"math"
	"strconv"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

const (
	errOutput = saying("the expression gives more JSON than the 16 MiB allowed; let it copy less, or fewer times")
	errDeep   = saying("the result is nested deeper than the 256 levels allowed")
	errNumber = saying("the result holds a number that JSON cannot write (infinite, or not a number)")
	errForm   = saying("the result holds a value that JSON cannot write")
	errKey    = saying("the result holds an object with a member's name that is no string")
)

// appendValue appends v as JSON. Values of the message are copied as they stand; the members of an object that the expression made are
// sorted by name.
func (v *View) appendValue(dst []byte, val ref.Val, depth int) ([]byte, error) {
	if depth > maxDepth {
		return dst, errDeep
	}
	switch x := val.(type) {
	case *object:
		return append(dst, (*node)(x).raw()...), nil
	case *list:
		return append(dst, (*node)(x).raw()...), nil
	case types.String:
		return appendString(dst, string(x)), nil
	case types.Int:
		return strconv.AppendInt(dst, int64(x), 10), nil
	case types.Double:
		return v.appendDouble(dst, val, float64(x))
	case types.Bool:
		return strconv.AppendBool(dst, bool(x)), nil
	case types.Null:
		return append(dst, "null"...), nil
	case types.Uint:
		return strconv.AppendUint(dst, uint64(x), 10), nil
	case types.Bytes:
		return appendBase64(dst, x), nil
	case types.Timestamp:
		return appendString(dst, x.Time.UTC().Format(time.RFC3339Nano)), nil
	case types.Duration:
		return appendString(dst, strconv.FormatFloat(x.Seconds(), 'f', -1, 64)+"s"), nil
	case *types.Optional:
		if !x.HasValue() {
			return append(dst, "null"...), nil
		}
		return v.appendValue(dst, x.GetValue(), depth+1)
	case *types.Err:
		return dst, x
	case *record:
		return v.appendRecord(dst, x, depth)
	case traits.Mapper:
		return v.appendMap(dst, x, depth)
	case traits.Lister:
		return v.appendList(dst, x, depth)
	}
	return dst, errForm
}

// appendDouble appends f, which is val: as the message spells it, if it is a number of the message's.
func (v *View) appendDouble(dst []byte, val ref.Val, f float64) ([]byte, error) {
	if n := v.origin(val); n != nil {
		return append(dst, n.raw()...), nil
	}
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return dst, errNumber
	}
	return appendDouble(dst, f), nil
}

func (v *View) appendList(dst []byte, l traits.Lister, depth int) ([]byte, error) {
	var err error
	dst = append(dst, '[')
	for it, first := l.Iterator(), true; it.HasNext() == types.True; first = false {
		if len(dst) > v.most {
			return dst, errOutput
		}
		if !first {
			dst = append(dst, ',')
		}
		if dst, err = v.appendValue(dst, it.Next(), depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func (v *View) appendMap(dst []byte, m traits.Mapper, depth int) ([]byte, error) {
	r := newRecord(size(m))
	if !members(m, r.set) {
		return dst, errKey
	}
	return v.appendRecord(dst, r, depth)
}

func (v *View) appendRecord(dst []byte, r *record, depth int) ([]byte, error) {
	var err error
	dst = append(dst, '{')
	for i, name := range r.names {
		if len(dst) > v.most {
			return dst, errOutput
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, name), ':')
		if n, ok := r.values[i].(*node); ok {
			dst = append(dst, n.raw()...)
		} else if dst, err = v.appendValue(dst, r.values[i].(ref.Val), depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// memberName is a map's key as the name of an object's member, as protobuf's JSON mapping writes it.
func memberName(key ref.Val) (string, bool) {
	switch k := key.(type) {
	case types.String:
		return string(k), true
	case types.Int:
		return strconv.FormatInt(int64(k), 10), true
	case types.Uint:
		return strconv.FormatUint(uint64(k), 10), true
	case types.Bool:
		return strconv.FormatBool(bool(k)), true
	}
	return "", false
}
