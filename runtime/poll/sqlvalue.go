package poll

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"
)

// Types of PostgreSQL, by the numbers that they have in every database.
const (
	oidBool        = 16
	oidBytea       = 17
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidOID         = 26
	oidJSON        = 114
	oidFloat4      = 700
	oidFloat8      = 701
	oidTimestamp   = 1114
	oidTimestampTZ = 1184
	oidNumeric     = 1700
	oidJSONB       = 3802
	oidText        = 25
)

// elements are the types of arrays' elements; those of other arrays are texts to us.
var elements = map[uint32]uint32{
	1000: oidBool, 1001: oidBytea, 1016: oidInt8, 1005: oidInt2, 1007: oidInt4, 1028: oidOID, 199: oidJSON, 1021: oidFloat4, 1022: oidFloat8,
	1115: oidTimestamp, 1185: oidTimestampTZ, 1231: oidNumeric, 3807: oidJSONB,
	1002: oidText, 1003: oidText, 1009: oidText, 1014: oidText, 1015: oidText, 1041: oidText, 651: oidText, 1182: oidText, 1183: oidText, 1270: oidText, 1187: oidText, 2951: oidText,
}

// appendValue appends a value, which is spelt as PostgreSQL does, as JSON: numbers digit by digit as they are, times by RFC 3339, bytes in
// base64, arrays as lists, JSON as it is, all else as a string.
func appendValue(dst, v []byte, oid uint32) []byte {
	if v == nil {
		return append(dst, "null"...)
	}
	switch oid {
	case oidBool:
		if string(v) == "t" {
			return append(dst, "true"...)
		}
		return append(dst, "false"...)
	case oidInt2, oidInt4, oidInt8, oidOID:
		return append(dst, v...)
	case oidFloat4, oidFloat8, oidNumeric:
		if c := v[len(v)-1]; c < '0' || c > '9' {
			return appendText(dst, string(v)) // NaN and Infinity are no numbers of JSON
		}
		return append(dst, v...)
	case oidJSON, oidJSONB:
		return append(dst, v...)
	case oidBytea:
		if raw, err := hex.DecodeString(strings.TrimPrefix(string(v), `\x`)); err == nil {
			dst = append(dst, '"')
			dst = base64.StdEncoding.AppendEncode(dst, raw)
			return append(dst, '"')
		}
	case oidTimestampTZ:
		if t, err := time.Parse("2006-01-02 15:04:05.999999-07", string(v)); err == nil {
			dst = append(dst, '"')
			return append(t.UTC().AppendFormat(dst, time.RFC3339Nano), '"')
		}
	case oidTimestamp:
		if len(v) > 10 && v[10] == ' ' {
			return appendText(dst, string(v[:10])+"T"+string(v[11:]))
		}
	}
	if element, ok := elements[oid]; ok {
		if out, ok := appendList(dst, v, element); ok {
			return out
		}
	}
	return appendText(dst, string(v))
}

func appendText(dst []byte, s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // a string always has a form
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// appendList reads PostgreSQL's spelling of an array: {1,NULL,"a \"b\""}, with further braces for further dimensions, and with bounds before it
// where they are unusual: [0:1]={1,2}.
func appendList(dst, v []byte, element uint32) ([]byte, bool) {
	if i := bytes.Index(v, []byte("={")); i >= 0 && v[0] == '[' {
		v = v[i+1:]
	}
	start := len(dst)
	l := lister{v: v, element: element}
	dst, ok := l.list(dst)
	if !ok || l.i != len(v) {
		return dst[:start], false
	}
	return dst, true
}

type lister struct {
	v       []byte
	i       int
	element uint32
}

func (l *lister) list(dst []byte) ([]byte, bool) {
	if l.i >= len(l.v) || l.v[l.i] != '{' {
		return dst, false
	}
	l.i++
	dst = append(dst, '[')
	for first := true; l.i < len(l.v); first = false {
		if l.v[l.i] == '}' {
			l.i++
			return append(dst, ']'), true
		}
		if !first {
			if l.v[l.i] != ',' {
				return dst, false
			}
			l.i++
			dst = append(dst, ',')
		}
		if l.i < len(l.v) && l.v[l.i] == '{' {
			var ok bool
			if dst, ok = l.list(dst); !ok {
				return dst, false
			}
			continue
		}
		dst = appendValue(dst, l.value(), l.element)
	}
	return dst, false
}

// value is one element: quoted, or up to the next comma or brace; nil for NULL.
func (l *lister) value() []byte {
	out := []byte{}
	if l.i < len(l.v) && l.v[l.i] == '"' {
		for l.i++; l.i < len(l.v) && l.v[l.i] != '"'; l.i++ {
			if l.v[l.i] == '\\' && l.i+1 < len(l.v) {
				l.i++
			}
			out = append(out, l.v[l.i])
		}
		l.i++
		return out
	}
	for ; l.i < len(l.v) && l.v[l.i] != ',' && l.v[l.i] != '}'; l.i++ {
		out = append(out, l.v[l.i])
	}
	if string(out) == "NULL" {
		return nil
	}
	return out
}
