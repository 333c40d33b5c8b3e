package sink

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/waybill-dev/waybill/runtime/message"
)

// A column of the table, as the database describes it.
type column struct {
	name     string
	declared string // its type as one would write it: numeric(10,2)
	cast     string // its type without precision, as an identifier
	kind     kind
	length   int   // of a varchar or char, in characters; 0: any
	element  *kind // of an array
}

// kind is how a JSON value becomes the text that PostgreSQL reads as a value of a type.
type kind int

const (
	other kind = iota // whatever has an input syntax: uuid, inet, an enum
	truth
	integer
	decimal
	words
	binaryString
	document // json, jsonb
	moment   // timestamp without time zone: UTC
	array
)

// kinds are by the names of PostgreSQL's own types.
var kinds = map[string]kind{
	"bool": truth, "int2": integer, "int4": integer, "int8": integer, "oid": integer,
	"numeric": decimal, "float4": decimal, "float8": decimal,
	"text": words, "varchar": words, "bpchar": words, "name": words, "citext": words,
	"bytea": binaryString, "json": document, "jsonb": document, "timestamp": moment,
}

// text appends what PostgreSQL reads of a JSON value; null: it is NULL. The errors name kinds of values, never a value.
func (c *column) text(dst, value []byte) (out []byte, null bool, err error) {
	if string(value) == "null" {
		return dst, true, nil
	}
	if c.kind == array {
		out, err = appendArray(dst, value, *c.element)
		return out, false, err
	}
	start := len(dst)
	out, err = appendText(dst, value, c.kind)
	if err == nil && c.length > 0 && utf8.RuneCount(bytes.TrimRight(out[start:], " ")) > c.length {
		return dst, false, fmt.Errorf("the text has %d characters and the column takes %d", utf8.RuneCount(out[start:]), c.length)
	}
	return out, false, err
}

func appendText(dst, value []byte, k kind) ([]byte, error) {
	if k == document {
		return append(dst, value...), nil
	}
	switch value[0] {
	case '{', '[':
		return dst, fmt.Errorf("the expression gave %s, and the column is no json or jsonb; make a string of it with json.encode( … )", article(value))
	case 't', 'f':
		if k != truth && k != words {
			return dst, misfit(value, k)
		}
		return append(dst, value...), nil
	case '"':
		return appendString(dst, value, k)
	}
	switch k {
	case integer:
		return appendInteger(dst, value)
	case decimal, words, other:
		return append(dst, value...), nil
	}
	return dst, misfit(value, k)
}

func appendString(dst, value []byte, k kind) ([]byte, error) {
	var s string
	if err := json.Unmarshal(value, &s); err != nil {
		return dst, errors.New("the expression gave a string that is not valid JSON")
	}
	if strings.ContainsRune(s, 0) {
		return dst, errors.New("the text holds the character U+0000, which PostgreSQL cannot keep")
	}
	switch k {
	case binaryString:
		raw, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return dst, errors.New("the expression gave a string that is not base64; for a bytea column make bytes of it with bytes( … )")
		}
		return hex.AppendEncode(append(dst, '\\', 'x'), raw), nil
	case moment:
		// The zone would be ignored otherwise.
		t, err := time.Parse(time.RFC3339Nano, s)
		if at, ok := message.ParseTime(s); ok {
			t, err = at, nil
		}
		if err == nil {
			return t.UTC().AppendFormat(dst, "2006-01-02 15:04:05.999999999"), nil
		}
	}
	return append(dst, s...), nil
}

// appendInteger writes a whole number without a point and an exponent, whatever it is spelt like.
func appendInteger(dst, value []byte) ([]byte, error) {
	if !bytes.ContainsAny(value, ".eE") {
		return append(dst, value...), nil
	}
	f, err := strconv.ParseFloat(string(value), 64)
	if err != nil || f < -1e19 || f > 1e19 {
		return dst, errors.New("the number is out of the column's range")
	}
	r, ok := new(big.Rat).SetString(string(value))
	if !ok || !r.IsInt() {
		return dst, errors.New("the number is not whole, and the column takes whole ones; round it with math.round( … )")
	}
	return r.Num().Append(dst, 10), nil
}

// appendArray writes the list as PostgreSQL spells an array. Lists in it are further dimensions.
func appendArray(dst, value []byte, element kind) ([]byte, error) {
	if value[0] == '"' { // PostgreSQL's own spelling
		return appendString(dst, value, words)
	}
	var list []json.RawMessage
	if value[0] != '[' || json.Unmarshal(value, &list) != nil {
		return dst, fmt.Errorf("the expression gave %s where the column takes a list", article(value))
	}
	dst = append(dst, '{')
	for i, e := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		switch e = bytes.TrimSpace(e); {
		case string(e) == "null":
			dst = append(dst, "NULL"...)
		case e[0] == '[' && element != document:
			if dst, err = appendArray(dst, e, element); err != nil {
				return dst, err
			}
		default:
			text, err := appendText(nil, e, element)
			if err != nil {
				return dst, fmt.Errorf("element %d: %w", i, err)
			}
			dst = append(dst, '"')
			for _, b := range text {
				if b == '"' || b == '\\' {
					dst = append(dst, '\\')
				}
				dst = append(dst, b)
			}
			dst = append(dst, '"')
		}
	}
	return append(dst, '}'), nil
}

func misfit(value []byte, k kind) error {
	return fmt.Errorf("the expression gave %s where the column takes %s", article(value), map[kind]string{
		truth: "true or false", integer: "a whole number", decimal: "a number", words: "a text", binaryString: "bytes", moment: "a time", other: "a text",
	}[k])
}

func article(value []byte) string {
	switch value[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 't', 'f':
		return "true or false"
	}
	return "a number"
}
