package compile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// schemaURL is what a schema is called while it is compiled. Nothing is ever read from it.
const schemaURL = "waybill:///schema.json"

// closedLoader refuses every document: a schema may refer only to parts of itself.
type closedLoader struct{}

var errOutside = errors.New("it lies outside the schema")

func (closedLoader) Load(url string) (any, error) { return nil, fmt.Errorf("%w: %s", errOutside, url) }

// checkSchema compiles a Topic's schema and gives it back as compact JSON.
func checkSchema(s *subject, schema *v1alpha1.TopicSchema) json.RawMessage {
	const field = "spec.schema.jsonSchema"
	if schema == nil {
		return nil
	}
	if schema.JSONSchema == nil || len(schema.JSONSchema.Raw) == 0 {
		s.refuse(field, v1alpha1.ReasonInvalid, "is required")
		return nil
	}
	raw := schema.JSONSchema.Raw
	if len(raw) > 4*maxPlanBytes {
		s.refuse(field, v1alpha1.ReasonPlanTooLarge, "the schema has %d bytes, and a plan may have %d: make it smaller", len(raw), maxPlanBytes)
		return nil
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		s.refuse(field, v1alpha1.ReasonInvalidSchema, "the schema is not JSON: %v", err)
		return nil
	}
	if err := compileSchema(doc); err != nil {
		s.refuse(field, v1alpha1.ReasonInvalidSchema, "%s", schemaFault(err))
		return nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		s.refuse(field, v1alpha1.ReasonInvalidSchema, "the schema is not JSON: %v", err)
		return nil
	}
	return compact.Bytes()
}

func compileSchema(doc any) error {
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(closedLoader{})
	if err := compiler.AddResource(schemaURL, doc); err != nil {
		return err
	}
	_, err := compiler.Compile(schemaURL)
	return err
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
	return "this is not a valid JSON Schema: " + strings.ReplaceAll(err.Error(), schemaURL, "")
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
