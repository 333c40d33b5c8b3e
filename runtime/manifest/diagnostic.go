package manifest

import (
	"fmt"
	"strings"
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

// String is the diagnostic as a person reads it: FILE:LINE: KIND NAMESPACE/NAME: FIELD: MESSAGE.
func (d Diagnostic) String() string {
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
	return b.String()
}
