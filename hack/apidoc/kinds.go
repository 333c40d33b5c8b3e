package main

import (
	"fmt"
	"reflect"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/config/crd"
)

// ordered are the kinds in the order of the page: what others refer to comes first.
var ordered = []any{v1alpha1.Broker{}, v1alpha1.Topic{}, v1alpha1.Subscription{}, v1alpha1.Mailbox{}, v1alpha1.Endpoint{}, v1alpha1.Poller{}, v1alpha1.Pipeline{}}

// A kind is one definition, its Go type beside its schema.
type kind struct {
	names        apiextensions.CustomResourceDefinitionNames
	columns      []apiextensions.CustomResourceColumnDefinition
	scaled       bool
	about        string
	spec, status field
}

// A field is a member of an object: what the schema says of it, and the Go type, which alone knows names of types and the order of members.
type field struct {
	name     string
	required bool
	schema   *apiextensions.JSONSchemaProps
	typ      reflect.Type
}

func readKinds() ([]kind, error) {
	var out []kind
	for _, v := range ordered {
		t := reflect.TypeOf(v)
		file := "bases/waybill.dev_" + plural(t.Name()) + ".yaml"
		data, err := crd.Bases.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var def apiextensions.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(data, &def); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		version := def.Spec.Versions[0]
		root := field{schema: version.Schema.OpenAPIV3Schema, typ: t}
		k := kind{names: def.Spec.Names, columns: version.AdditionalPrinterColumns, about: root.schema.Description,
			scaled: version.Subresources != nil && version.Subresources.Scale != nil}
		for _, m := range root.members() {
			switch m.name {
			case "spec":
				k.spec = m
			case "status":
				k.status = m
			}
		}
		out = append(out, k)
	}
	return out, nil
}

func plural(kind string) string {
	name := strings.ToLower(kind)
	if strings.HasSuffix(name, "x") {
		return name + "es"
	}
	return name + "s"
}

// members are the fields of an object, in the order of the Go type.
func (f field) members() []field {
	t := f.typ
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || f.schema == nil {
		return nil
	}
	var out []field
	for m := range t.Fields() {
		name, _, _ := strings.Cut(m.Tag.Get("json"), ",")
		if name == "" && m.Anonymous {
			out = append(out, field{typ: m.Type, schema: f.schema}.members()...)
			continue
		}
		s, ok := f.schema.Properties[name]
		if !ok {
			continue
		}
		required := false
		for _, r := range f.schema.Required {
			required = required || r == name
		}
		out = append(out, field{name, required, &s, m.Type})
	}
	return out
}

// element is what a list or a mapping has in it; ok is false for anything else.
func (f field) element() (e field, ok bool) {
	t := f.typ
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case f.schema.Items != nil && f.schema.Items.Schema != nil && t.Kind() == reflect.Slice:
		return field{schema: f.schema.Items.Schema, typ: t.Elem()}, true
	case f.schema.AdditionalProperties != nil && f.schema.AdditionalProperties.Schema != nil && t.Kind() == reflect.Map:
		return field{schema: f.schema.AdditionalProperties.Schema, typ: t.Elem()}, true
	}
	return f, false
}

// object is the struct of our API that a field, or each element of it, is; nil where it is none.
func (f field) object() reflect.Type {
	if e, ok := f.element(); ok {
		return e.object()
	}
	t := f.typ
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() == reflect.Struct && t.PkgPath() == reflect.TypeFor[v1alpha1.Broker]().PkgPath() && f.schema.Type == "object" {
		return t
	}
	return nil
}
