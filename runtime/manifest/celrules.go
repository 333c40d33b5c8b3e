package manifest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// The API server compiles all rules of a definition when it is installed. A process that starts to read a few files has no such moment, and
// compiling a kind takes longer than reading all files: here the rules of a field are compiled when the first object sets that field, and
// fields with the same rules share them. The compiler and the evaluation are the API server's own.

// compiled are validators of one field each, by what tells fields apart.
var compiled sync.Map // string → func() *cel.Validator

// obey applies the rules to a value of the schema and to everything in it.
func (r *rules) obey(value any, s *schema.Structural, path *field.Path, at string) field.ErrorList {
	if value == nil || s == nil {
		return nil
	}
	var errs field.ErrorList
	if v := r.validator(s, at); v != nil {
		errs, _ = v.Validate(context.Background(), path, s, value, nil, celconfig.RuntimeCELCostBudget)
	}
	switch value := value.(type) {
	case []any:
		for i, item := range value {
			errs = append(errs, r.obey(item, s.Items, path.Index(i), at+"[]")...)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(value)) {
			if p, ok := s.Properties[k]; ok {
				errs = append(errs, r.obey(value[k], &p, path.Child(k), at+"."+k)...)
			} else if s.AdditionalProperties != nil {
				errs = append(errs, r.obey(value[k], s.AdditionalProperties.Structural, path.Key(k), at+"{}")...)
			}
		}
	}
	return errs
}

// validator gives the compiled rules of one field, those of its own fields apart, or nil. Rules about changes are left out: a file has no
// state before.
func (r *rules) validator(s *schema.Structural, at string) *cel.Validator {
	own := slices.DeleteFunc(slices.Clone(s.XValidations), func(rule apiextensionsv1.ValidationRule) bool { return strings.Contains(rule.Rule, "oldSelf") })
	if len(own) == 0 {
		return nil
	}
	key := r.kind + at
	if s.Type != "object" && s.Type != "array" {
		key = s.Type // a plain value: its place does not matter
		for _, rule := range own {
			key += "\n" + rule.Rule + "\n" + rule.Message
		}
	}
	compile, _ := compiled.LoadOrStore(key, sync.OnceValue(func() *cel.Validator {
		only := s.DeepCopy()
		visitor := schema.Visitor{Structural: func(s *schema.Structural) bool {
			s.XValidations = nil
			return true
		}}
		visitor.Visit(only)
		only.XValidations = own
		return cel.NewValidator(only, at == "", celconfig.PerCallLimit)
	}))
	return compile.(func() *cel.Validator)()
}
