package manifest

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Diagnostic is one fault, and where it stands.
type Diagnostic struct {
	File      string `json:"file"`
	Line      int    `json:"line"` // from 1
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Field is a Kubernetes path, such as spec.steps[2].filter.cel; empty where the fault is the object's or the file's.
	Field string `json:"field"`
	// Reason is one of the API's reasons.
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// String is the diagnostic as a person reads it: FILE:LINE: KIND NAMESPACE/NAME: FIELD: MESSAGE. It is one line, shows control characters as
// they are written in Go, and has of each part what Shorten leaves.
func (d Diagnostic) String() string {
	d.Namespace, d.Name, d.Field, d.Message = Shorten(d.Namespace), Shorten(d.Name), Shorten(d.Field), Shorten(d.Message)
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: ", d.File, d.Line)
	if d.Kind != "" {
		b.WriteString(d.Kind)
		if d.Name != "" {
			fmt.Fprintf(&b, " %s/%s", d.Namespace, d.Name)
		}
		b.WriteString(": ")
	}
	if d.Field != "" {
		fmt.Fprintf(&b, "%s: ", d.Field)
	}
	b.WriteString(d.Message)
	return Visible(b.String())
}

// Visible shows the control characters in s, which would move a terminal's cursor, or look like lines of somebody else's.
func Visible(s string) string {
	if strings.IndexFunc(s, unicode.IsControl) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsControl(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// What is shown of a long text: its begin, and its end, where a message says what would be right.
const (
	shownBegin = 640
	shownEnd   = 384
)

// Shorten cuts the middle out of what is longer than 1 KiB, for it repeats a value that is.
func Shorten(s string) string {
	if len(s) <= shownBegin+shownEnd {
		return s
	}
	begin, end := shownBegin, len(s)-shownEnd
	for begin > 0 && !utf8.RuneStart(s[begin]) {
		begin--
	}
	for end < len(s) && !utf8.RuneStart(s[end]) {
		end++
	}
	return s[:begin] + "…" + s[end:]
}
