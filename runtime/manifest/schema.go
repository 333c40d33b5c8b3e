package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/config/crd"
)

// rules are what a CustomResourceDefinition says about its objects.
type rules struct {
	kind       string
	bare       *schema.Structural // as the definition has it
	structural *schema.Structural // with the fields of metadata, which a definition leaves to the API server
	values     validation.SchemaValidator
	texts      map[string][]string // CEL rules by their messages
}

// schemas are the rules by kind, read when a kind is first met.
var schemas = map[string]func() (*rules, error){
	"Broker":       load("brokers"),
	"Topic":        load("topics"),
	"Subscription": load("subscriptions"),
	"Mailbox":      load("mailboxes"),
	"Poller":       load("pollers"),
	"Endpoint":     load("endpoints"),
	"Pipeline":     load("pipelines"),
}

var kinds = slices.Sorted(maps.Keys(schemas))

func load(plural string) func() (*rules, error) {
	return sync.OnceValues(func() (*rules, error) {
		r, err := parse(plural)
		if err != nil {
			return nil, fmt.Errorf("definition of %s: %w", plural, err)
		}
		return r, nil
	})
}

func parse(plural string) (*rules, error) {
	data, err := crd.Bases.ReadFile("bases/waybill.dev_" + plural + ".yaml")
	if err != nil {
		return nil, err
	}
	var definition apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(data, &definition); err != nil {
		return nil, err
	}
	var props apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(definition.Spec.Versions[0].Schema.OpenAPIV3Schema, &props, nil); err != nil {
		return nil, err
	}
	bare, err := schema.NewStructural(&props)
	if err != nil {
		return nil, err
	}
	props.Properties["metadata"] = metadata
	props.Required = append(props.Required, "metadata")
	full, err := schema.NewStructural(&props)
	if err != nil {
		return nil, err
	}
	values, _, err := validation.NewSchemaValidator(&props)
	if err != nil {
		return nil, err
	}
	r := &rules{kind: definition.Spec.Names.Kind, bare: bare, structural: full, values: values, texts: map[string][]string{}}
	visitor := schema.Visitor{Structural: func(s *schema.Structural) bool {
		for _, rule := range s.XValidations {
			r.texts[rule.Message] = append(r.texts[rule.Message], rule.Rule)
		}
		return false
	}}
	visitor.Visit(bare.DeepCopy())
	return r, nil
}

// metadata is the schema of ObjectMeta, as far as people write it.
var metadata = func() apiextensions.JSONSchemaProps {
	text := apiextensions.JSONSchemaProps{Type: "string"}
	texts := apiextensions.JSONSchemaProps{Type: "object", AdditionalProperties: &apiextensions.JSONSchemaPropsOrBool{Allows: true, Schema: &text}}
	anything := true
	s := apiextensions.JSONSchemaProps{Type: "object", Required: []string{"name"}, Properties: map[string]apiextensions.JSONSchemaProps{
		"name": text, "namespace": text, "generateName": text, "labels": texts, "annotations": texts,
	}}
	for set := range strings.FieldsSeq("creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generation managedFields ownerReferences resourceVersion selfLink uid") {
		s.Properties[set] = apiextensions.JSONSchemaProps{XPreserveUnknownFields: &anything}
	}
	return s
}()
