package postgres

import (
	"encoding/binary"
	"strings"
)

// Quote makes an identifier of a name, whatever is in it.
func Quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// Literal makes a string literal of a text, whatever is in it.
func Literal(text string) string {
	if strings.Contains(text, `\`) {
		return ` E'` + strings.ReplaceAll(strings.ReplaceAll(text, `\`, `\\`), `'`, `''`) + `'`
	}
	return `'` + strings.ReplaceAll(text, `'`, `''`) + `'`
}

// OIDs of the types of parameters.
const (
	TextArray = 1009
	oidText   = 25
)

// AppendTextArray appends a text[] in the binary format: nothing needs to be escaped in it. nil elements are NULL.
func AppendTextArray(dst []byte, elements [][]byte) []byte {
	hasNull := uint32(0)
	size := 20
	for _, e := range elements {
		size += 4 + len(e)
		if e == nil {
			hasNull = 1
		}
	}
	if cap(dst)-len(dst) < size {
		dst = append(make([]byte, 0, len(dst)+size), dst...)
	}
	if len(elements) == 0 {
		dst = binary.BigEndian.AppendUint32(dst, 0)
		dst = binary.BigEndian.AppendUint32(dst, 0)
		return binary.BigEndian.AppendUint32(dst, oidText)
	}
	dst = binary.BigEndian.AppendUint32(dst, 1) // dimensions
	dst = binary.BigEndian.AppendUint32(dst, hasNull)
	dst = binary.BigEndian.AppendUint32(dst, oidText)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(elements)))
	dst = binary.BigEndian.AppendUint32(dst, 1) // the first index
	for _, e := range elements {
		if e == nil {
			dst = binary.BigEndian.AppendUint32(dst, 1<<32-1)
			continue
		}
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(e)))
		dst = append(dst, e...)
	}
	return dst
}
