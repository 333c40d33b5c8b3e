package compile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/schema"
)

// checkSchema compiles a Topic's schema and gives it back as compact JSON.
func checkSchema(s *subject, declared *v1alpha1.TopicSchema) json.RawMessage {
	const field = "spec.schema.jsonSchema"
	if declared == nil {
		return nil
	}
	if declared.JSONSchema == nil || len(declared.JSONSchema.Raw) == 0 {
		s.refuse(field, v1alpha1.ReasonInvalid, "is required")
		return nil
	}
	raw := declared.JSONSchema.Raw
	if len(raw) > 4*maxPlanBytes {
		s.refuse(field, v1alpha1.ReasonPlanTooLarge, "the schema has %d bytes, and a plan may have %d: make it smaller", len(raw), maxPlanBytes)
		return nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		s.refuse(field, v1alpha1.ReasonInvalidSchema, "the schema is not JSON: %v", err)
		return nil
	}
	if _, err := schema.Compile(compact.Bytes()); err != nil {
		s.refuse(field, v1alpha1.ReasonInvalidSchema, "%s", schemaFault(err))
		return nil
	}
	return compact.Bytes()
}

// schemaFault says in our words what the schema library found.
func schemaFault(err error) string {
	if load := new(jsonschema.LoadURLError); errors.As(err, &load) {
		return fmt.Sprintf("the schema refers to %s, and it may refer only to parts of itself: copy that into $defs and write \"#/$defs/NAME\"", load.URL)
	}
	if invalid := new(jsonschema.SchemaValidationError); errors.As(err, &invalid) {
		if v := new(jsonschema.ValidationError); errors.As(invalid.Err, &v) {
			for len(v.Causes) > 0 {
				v = v.Causes[0]
			}
			at := "/" + strings.Join(v.InstanceLocation, "/")
			return fmt.Sprintf("this is not a valid JSON Schema: at %s, %s", at, lastLine(v.Error()))
		}
	}
	return "this is not a valid JSON Schema: " + strings.ReplaceAll(err.Error(), schema.URL, "")
}

// lastLine is the part of the library's report that says what is wrong, without the places it has been told before.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	last := strings.TrimPrefix(strings.TrimSpace(lines[len(lines)-1]), "- ")
	if _, what, ok := strings.Cut(last, "': "); ok {
		return what
	}
	return last
}
