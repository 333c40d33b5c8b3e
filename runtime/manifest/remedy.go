package manifest

import (
	"cmp"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// What the schema says of a value holds for all wrong ones. These functions look at the one that is there and add how it is written right.

// remedied is a diagnostic of a field with what is to be written there, as far as that can be told.
func (o *object) remedied(d Diagnostic, s *schema.Structural) Diagnostic {
	n := nodeAt(o.node, d.Field)
	if n == nil || n.Kind != yaml.ScalarNode {
		return d
	}
	switch v := n.Value; {
	case strings.Contains(v, "{{"):
		d.Message = notRendered
	case variable.MatchString(v):
		d.Message = notReplaced
	case d.Field == "metadata.name":
		if name := asName(v); name != "" {
			d.Message += ", such as " + name
		}
	case s == nil:
	case s.XIntOrString:
		if right := asAmount(v); right != "" {
			d.Message += fmt.Sprintf("; %q is written %s", v, right)
		}
	case strings.HasPrefix(d.Message, "must be a duration "):
		d.Message += rightDuration(v, d.Message)
	case strings.HasPrefix(d.Message, "must be a path "):
		d.Message += wrongInPath(v)
	case s.Type == "integer" && n.ShortTag() == "!!str":
		if number := strings.TrimSpace(strings.TrimSuffix(v, "%")); digits.MatchString(number) {
			d.Message = "must be a whole number: write " + number + map[bool]string{true: ", without the %", false: ", without quotes"}[number != v]
		}
	}
	return d
}

var (
	variable = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\}|\$\([A-Za-z_][A-Za-z0-9_]*\)`)
	digits   = regexp.MustCompile(`^-?\d+$`)
	notName  = regexp.MustCompile(`[^a-z0-9]+`)
	inUnits  = regexp.MustCompile(`^\s*(\d+)\s*([A-Za-z]*)\s*$`)
	iso      = regexp.MustCompile(`(?i)^PT?(\d)`)
	amount   = regexp.MustCompile(`^[\s,T]*(\d*[.,]?\d+)\s*([A-SU-Za-z]*)`) // a T divides ISO's
	fraction = regexp.MustCompile(`(?:^|\d)[.,]\d`)
	written  = regexp.MustCompile(`^(\d{1,5}(h|m|s|ms)){1,4}$`) // as the CRDs have it
	inRange  = regexp.MustCompile(`^must be a duration from (\w+) to (\w+),`)
)

// notInPath is a character that a path cannot have, or a % that is followed by no two digits.
var notInPath = regexp.MustCompile(`[^A-Za-z0-9._~!$&()*+,;=:@/%-]|%(?:[^0-9A-Fa-f]|.[^0-9A-Fa-f]|.?$)`)

// wrongInPath names the first thing that a path cannot have.
func wrongInPath(v string) string {
	wrong := notInPath.FindString(v)
	switch {
	case !strings.HasPrefix(v, "/"):
		return "; it starts with something else"
	case wrong == "?":
		return "; a query (?) is no part of it: remove it, for requests may have any"
	case wrong == "{", wrong == "}":
		return "; there are no variables in it: it is served as it is written"
	case wrong == "" || wrong[0] == '%':
		return "; after a % it has something else"
	}
	return fmt.Sprintf("; %q is written %s", wrong, url.PathEscape(wrong))
}

// asName is the name nearest to a wrong one; "" when nothing would be left of it.
func asName(v string) string {
	name := strings.Trim(notName.ReplaceAllString(strings.ToLower(v), "-"), "-0123456789")
	if len(name) > 48 {
		name = strings.Trim(name[:48], "-")
	}
	if name == v {
		return ""
	}
	return name
}

// rightDuration says of a wrong duration how it is written, or that it is out of the range that the message names.
func rightDuration(v, message string) string {
	if written.MatchString(v) {
		return "; it is " + v
	}
	right := asDuration(v)
	is, err := time.ParseDuration(right)
	if err != nil {
		return "; write whole numbers of h, m, s and ms"
	}
	if m := inRange.FindStringSubmatch(message); m != nil {
		least, _ := time.ParseDuration(m[1])
		most, _ := time.ParseDuration(m[2])
		switch {
		case is < least:
			return fmt.Sprintf("; %q is %s, which is less than %s", v, right, m[1])
		case is > most:
			return fmt.Sprintf("; %q is %s, which is more than %s", v, right, m[2])
		}
	}
	if fraction.MatchString(v) {
		return fmt.Sprintf("; %q is written %s, without a fraction", v, right)
	}
	return fmt.Sprintf("; %q is written %s", v, right)
}

// A unit of time, the words for it and its milliseconds.
type unit struct {
	words string
	is    float64
}

// units begin with the largest. Kubernetes knows those from hours on.
var units = []unit{
	{"w week weeks", 7 * 24 * 3600e3},
	{"d day days", 24 * 3600e3},
	{"h hr hrs hour hours", 3600e3},
	{"m min mins minute minutes", 60e3},
	{"s sec secs second seconds", 1e3},
	{"ms milli millis millisecond milliseconds", 1},
}

const hours, seconds = 2, 4

// asDuration writes a duration as Kubernetes takes it: "5 minutes" is 5m, 7d is 168h, 1.5h and 1h30 are 1h30m, and 30 is 30s. It is "" where
// that cannot be told.
func asDuration(v string) string {
	rest := iso.ReplaceAllString(strings.TrimSpace(v), "$1")
	total, first, at := 0.0, -1, seconds-1
	for first < 0 || rest != "" {
		m := amount.FindStringSubmatch(rest)
		if m == nil {
			return ""
		}
		at++ // a number without a unit has the next one
		if m[2] != "" {
			at = slices.IndexFunc(units, func(u unit) bool { return slices.Contains(strings.Fields(u.words), strings.ToLower(m[2])) })
		}
		n, err := strconv.ParseFloat(strings.Replace(m[1], ",", ".", 1), 64)
		if at < 0 || at == len(units) || err != nil {
			return ""
		}
		if first < 0 {
			first = max(at, hours)
		}
		total, rest = total+n*units[at].is, rest[len(m[0]):]
	}
	left := math.Round(total)
	if math.Abs(left-total) > 1e-6 || left > 1<<40 {
		return ""
	}
	if left >= 1e5*units[first].is {
		first = hours // a number has five digits at most
	}
	var right strings.Builder
	for _, u := range units[first:] {
		if n := math.Floor(left / u.is); n > 0 {
			name, _, _ := strings.Cut(u.words, " ")
			fmt.Fprintf(&right, "%.0f%s", n, name)
			left -= n * u.is
		}
	}
	return cmp.Or(right.String(), "0s")
}

// asAmount writes a size as Kubernetes takes it: "10GB" is 10G.
func asAmount(v string) string {
	m := inUnits.FindStringSubmatch(v)
	if m == nil {
		return ""
	}
	unit := strings.ToLower(m[2])
	binary := strings.Contains(unit, "i")
	unit = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(unit, "ytes"), "yte"), "b")
	prefix := map[string]string{"": "", "k": "k", "kilo": "k", "m": "M", "mega": "M", "g": "G", "giga": "G", "t": "T", "tera": "T", "ki": "Ki", "mi": "Mi", "gi": "Gi", "ti": "Ti"}
	right, ok := prefix[unit]
	if !ok {
		return ""
	}
	if binary || right == "" {
		return m[1] + right
	}
	return fmt.Sprintf("%s%s, or %s%si in powers of 1024", m[1], right, m[1], strings.ToUpper(right))
}

const invalid = string(v1alpha1.ReasonInvalid)

// octal is a whole number that YAML reads in base 8, although few who write it mean that.
var octal = regexp.MustCompile(`^[-+]?0\d+$`)

// readings refuses what is read as something else than it looks like: keys and values that YAML 1.1, and so Kubernetes, takes for true and
// false, and numbers in base 8. free: nothing says of which type a value is, as in a JSON Schema.
func (o *object) readings(n *yaml.Node, path string, free bool) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if as, old := oldBools[k.Value]; old && k.Style == 0 {
				o.refuse(Diagnostic{Line: k.Line, Field: join(path, k.Value), Reason: invalid,
					Message: fmt.Sprintf("Kubernetes reads the key %s as %t: write %q, in quotes", k.Value, as, k.Value)})
			}
			o.readings(n.Content[i+1], join(path, k.Value), free)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			o.readings(item, fmt.Sprintf("%s[%d]", path, i), free)
		}
	case yaml.ScalarNode:
		if !free && strings.HasPrefix(path, "spec.") && strings.Contains(n.Value, "{{") && !strings.HasSuffix(path, ".cel") {
			o.refuse(Diagnostic{Line: n.Line, Field: path, Reason: invalid, Message: notRendered})
		}
		if n.Style != 0 {
			return
		}
		if as, old := oldBools[n.Value]; old && free {
			o.refuse(Diagnostic{Line: n.Line, Field: path, Reason: invalid,
				Message: fmt.Sprintf("Kubernetes reads %s without quotes as %t: write %q, in quotes, or %t", n.Value, as, n.Value, as)})
		}
		if v, f := scalar(n); f == nil && octal.MatchString(n.Value) {
			if i, ok := v.(int64); ok {
				plain := strings.TrimLeft(n.Value, "+-0")
				o.refuse(Diagnostic{Line: n.Line, Field: path, Reason: invalid,
					Message: fmt.Sprintf("YAML reads %s in base 8, as %d: write %s, or %q in quotes if it is text", n.Value, i, orZero(plain), n.Value)})
			}
		}
	}
}

func orZero(digits string) string {
	if digits == "" {
		return "0"
	}
	return digits
}

// present says of a rule about what may stand together what stands there: the members of a union in the order of the rule's own list, or
// whether one is missing or too much.
func (o *object) present(d Diagnostic) Diagnostic {
	n := nodeAt(o.node, d.Field)
	if strings.Contains(d.Message, " is required with ") && strings.Contains(d.Message, " and refused with ") {
		d.Message += "; " + map[bool]string{true: "set it", false: "remove it"}[n == nil]
		return d
	}
	rest, ok := strings.CutPrefix(d.Message, "exactly one of ")
	if !ok {
		return d
	}
	listed, _, _ := strings.Cut(rest, " must be set")
	var set []string
	for _, name := range strings.FieldsFunc(listed, func(r rune) bool { return r == ' ' || r == ',' }) {
		if v := child(n, name); name != "and" && v != nil && v.ShortTag() != "!!null" {
			set = append(set, name)
		}
	}
	if len(set) == 0 {
		d.Message += "; none is"
	} else {
		d.Message += "; here are " + inProse(set)
	}
	return d
}

// inProse joins words as prose does, in their order.
func inProse(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
