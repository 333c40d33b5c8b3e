package expr

import (
	"bytes"
	"math"
	"strconv"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// A JSON number without fraction and exponent is a CEL int when it fits one, else a uint when it fits one, so that identifiers beyond 2^53
// keep every digit. Every other number is a double.

// integer reads the text of an integer that fits an int64.
func integer(b []byte) (int64, bool) {
	neg := b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) > 19 {
		return 0, false
	}
	var u uint64
	for _, c := range b {
		u = u*10 + uint64(c-'0')
	}
	switch {
	case neg && u == 0:
		return 0, false // minus zero is a double
	case neg && u <= 1<<63:
		return -int64(u), true
	case !neg && u <= math.MaxInt64:
		return int64(u), true
	}
	return 0, false
}

// unsigned reads the text of an integer that fits a uint64.
func unsigned(b []byte) (uint64, bool) {
	u, err := strconv.ParseUint(alias(b), 10, 64)
	return u, err == nil
}

// number decodes a number of any kind.
func (n *node) number() ref.Val {
	if n.kind == kindInteger {
		if i, ok := integer(n.raw()); ok {
			return types.Int(i)
		}
		if u, ok := unsigned(n.raw()); ok {
			return types.Uint(u)
		}
	}
	f := n.float()
	if n.respelt(f) {
		return n.boxed(f)
	}
	return types.Double(f)
}

// float is the number's nearest double, infinite where it is too large for one.
func (n *node) float() float64 {
	f, _ := strconv.ParseFloat(alias(n.raw()), 64)
	return f
}

// respelt reports whether appendDouble might write f, the number's double, differently from how the number stands in the text.
func (n *node) respelt(f float64) bool {
	raw := n.raw()
	// Up to 15 significant digits survive the way through a double.
	return n.kind == kindInteger || len(raw) > 16 || raw[len(raw)-1] == '0' || bytes.ContainsAny(raw, "eE") || math.Abs(f) < 1e-6
}

// appendDouble writes the shortest text that reads back as f, in the form that encoding/json and ECMAScript use.
func appendDouble(dst []byte, f float64) []byte {
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	if n := len(dst); format == 'e' && n >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
		dst[n-2] = dst[n-1] // e-09 is e-9
		dst = dst[:n-1]
	}
	return dst
}
