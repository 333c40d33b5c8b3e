package schema_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/schema"
)

func TestViolations(t *testing.T) {
	s, err := schema.Compile(json.RawMessage(`{"type":"object","required":["id"],"properties":{"total":{"type":"number","minimum":0},"a/b":{"const":1}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for data, want := range map[string]string{
		`{"id":1,"total":2}`:                               "",
		`{"total":-1}`:                                     "the data: lacks id",
		`{"id":1,"total":"S3CRET"}`:                        "/total: is a string, must be number",
		`{"id":1,"a/b":2}`:                                 "/a~1b: is not the value that const asks for",
		`{"id":1e99999}`:                                   "the data: a number in the data is too large to be checked",
		`{"id":"1e99999","total":1}`:                       "",
		`{"id":1,"n":` + strings.Repeat("7", 2000) + `}`:   "the data: a number in the data is too large to be checked",
		`{"id":1,"n":"` + strings.Repeat("7", 2000) + `"}`: "",
		`{"id"`: "the data: the data are not JSON",
	} {
		got := ""
		if v := s.Violations(&message.Message{DataContentType: "application/json", Data: []byte(data)}); v != nil {
			got = v[0].String()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", data, got, want)
		}
	}
	if v := s.Violations(&message.Message{DataContentType: "text/plain", Data: []byte(`{"id":1}`)}); v == nil {
		t.Error("text was held to be JSON")
	}
}

func TestPathsAreBounded(t *testing.T) {
	s, err := schema.Compile(json.RawMessage(`{"additionalProperties":{"additionalProperties":{"type":"string"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	data := `{"` + strings.Repeat("ä", 100_000) + `":{"a":1,"b":2}}`
	for _, v := range s.Violations(&message.Message{DataContentType: "application/json", Data: []byte(data)}) {
		if len(v.Path) > 300 || !utf8.ValidString(v.Path) {
			t.Errorf("a path of %d bytes", len(v.Path))
		}
	}
}

func TestReferencesLeadNowhereElse(t *testing.T) {
	for _, bad := range []string{`{`, `{"type":"nonsense"}`, `{"$ref":"https://example.com/schema.json"}`, `{"$ref":"file:///etc/hostname"}`} {
		if _, err := schema.Compile(json.RawMessage(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
