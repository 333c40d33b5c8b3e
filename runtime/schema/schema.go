// Package schema holds the data of events against a Topic's JSON Schema.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/waybill-dev/waybill/runtime/message"
)

// maxViolations bounds what is named of one event.
const maxViolations = 20

// A Schema is a compiled JSON Schema (draft 2020-12 unless it names another). It is safe for concurrent use.
type Schema struct{ schema *jsonschema.Schema }

// A Violation is one thing that is wrong with the data. It never repeats them.
type Violation struct {
	Path   string // JSON pointer into the data, RFC 6901; "": the data as a whole
	Detail string
}

func (v Violation) String() string {
	if v.Path == "" {
		return "the data: " + v.Detail
	}
	return v.Path + ": " + v.Detail
}

// URL is what a schema is called in errors while it is compiled. Nothing is ever read from it.
const URL = "waybill:///schema.json"

// Compile reads a JSON Schema. References lead into the document itself only: nothing is loaded from anywhere. Errors wrap those of the
// jsonschema library.
func Compile(doc json.RawMessage) (*Schema, error) {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource(URL, v); err != nil {
		return nil, err
	}
	s, err := c.Compile(URL)
	if err != nil {
		return nil, err
	}
	return &Schema{s}, nil
}

type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("$ref to %s: only references within the schema are followed", url)
}

// Violations are the first twenty of an event; nil: it meets the schema.
func (s *Schema) Violations(m *message.Message) []Violation {
	if !message.HasJSON(m.DataContentType) {
		return []Violation{{Detail: "the data must be JSON; the content type says otherwise"}}
	}
	if hugeNumber(m.Data) {
		return []Violation{{Detail: "a number in the data is too large to be checked"}}
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(m.Data))
	if err != nil {
		return []Violation{{Detail: "the data are not JSON"}}
	}
	var bad *jsonschema.ValidationError
	if err := s.schema.Validate(v); err == nil {
		return nil
	} else if !errors.As(err, &bad) {
		return []Violation{{Detail: "the data cannot be checked"}}
	}
	return leaves(bad, nil)
}

// leaves are the faults that have no deeper cause.
func leaves(e *jsonschema.ValidationError, to []Violation) []Violation {
	if len(to) >= maxViolations {
		return to
	}
	if len(e.Causes) == 0 {
		return append(to, Violation{Path: pointer(e.InstanceLocation), Detail: describe(e.ErrorKind)})
	}
	for _, c := range e.Causes {
		to = leaves(c, to)
	}
	return to
}

// maxPath is what of a path is told, in bytes: it is made of names that the data may choose.
const maxPath = 256

// pointer is a JSON pointer, RFC 6901. The data as a whole are "".
func pointer(path []string) string {
	var b strings.Builder
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	for _, p := range path {
		b.WriteByte('/')
		if len(p) > maxPath {
			p = p[:maxPath]
		}
		_, _ = escape.WriteString(&b, p)
		if b.Len() > maxPath {
			return strings.ToValidUTF8(b.String()[:maxPath], "") + "…"
		}
	}
	return b.String()
}

// describe says in words of the schema what is wrong, and never repeats the data.
func describe(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return fmt.Sprintf("is a %s, must be %s", k.Got, strings.Join(k.Want, " or "))
	case *kind.Required:
		return "lacks " + strings.Join(k.Missing, ", ")
	case *kind.DependentRequired:
		return "lacks " + strings.Join(k.Missing, ", ")
	case *kind.AdditionalProperties:
		return fmt.Sprintf("has %d properties that are not allowed", len(k.Properties))
	case *kind.Enum:
		return "is none of the values that enum allows"
	case *kind.Const:
		return "is not the value that const asks for"
	case *kind.Pattern:
		return "does not match the pattern " + k.Want
	case *kind.Format:
		return "does not have the format " + k.Want
	case *kind.MinLength:
		return fmt.Sprintf("is shorter than minLength %d", k.Want)
	case *kind.MaxLength:
		return fmt.Sprintf("is longer than maxLength %d", k.Want)
	case *kind.MinItems:
		return fmt.Sprintf("has fewer items than minItems %d", k.Want)
	case *kind.MaxItems:
		return fmt.Sprintf("has more items than maxItems %d", k.Want)
	case *kind.Minimum:
		return "is less than minimum " + number(k.Want)
	case *kind.Maximum:
		return "is greater than maximum " + number(k.Want)
	case *kind.ExclusiveMinimum:
		return "must be greater than exclusiveMinimum " + number(k.Want)
	case *kind.ExclusiveMaximum:
		return "must be less than exclusiveMaximum " + number(k.Want)
	case *kind.MultipleOf:
		return "is no multiple of " + number(k.Want)
	}
	return "does not meet " + strings.Join(k.KeywordPath(), "/")
}

func number(r *big.Rat) string {
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// maxDigits bounds a number that is checked: the schema's arithmetic is exact, and its time grows with the square of the digits.
const maxDigits = 1000

// hugeNumber reports whether some number has more digits, or an exponent of more than three, which is written out.
func hugeNumber(data []byte) bool {
	inString, digits, exponent, length := false, 0, false, 0
	for i := 0; i < len(data); i++ {
		if c := data[i]; inString || (c < '0' || c > '9') && c != '.' {
			length = 0
		} else if length++; length > maxDigits {
			return true
		}
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == 'e' || c == 'E':
			exponent, digits = true, 0
		case exponent && (c == '+' || c == '-' || c == '0' && digits == 0):
		case exponent && c >= '0' && c <= '9':
			if digits++; digits > 3 {
				return true
			}
		default:
			exponent = false
		}
	}
	return false
}
