package crd_test

import (
	"context"
	"io/fs"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/config/crd"
)

func files(t *testing.T) map[string][]byte {
	t.Helper()
	names, err := fs.Glob(crd.Bases, "bases/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, name := range names {
		data, err := crd.Bases.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = data
	}
	if len(out) != 7 {
		t.Fatalf("%d definitions are embedded, and there are seven kinds", len(out))
	}
	return out
}

// The API server refuses a definition whose schema is not structural, or whose rules might cost too much to evaluate.
func TestAPIServerAcceptsDefinitions(t *testing.T) {
	for name, data := range files(t) {
		t.Run(name, func(t *testing.T) {
			var v1 apiextensionsv1.CustomResourceDefinition
			if err := yaml.UnmarshalStrict(data, &v1); err != nil {
				t.Fatal(err)
			}
			apiextensionsv1.SetDefaults_CustomResourceDefinition(&v1)
			apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&v1.Spec)
			v1.Status.StoredVersions = []string{"v1alpha1"}
			var internal apiextensions.CustomResourceDefinition
			if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&v1, &internal, nil); err != nil {
				t.Fatal(err)
			}
			for _, err := range validation.ValidateCustomResourceDefinition(context.Background(), &internal) {
				t.Error(err)
			}
		})
	}
}

// The definitions are to stay small together: every client that lists them, and every process that embeds them, pays for each byte.
func TestSize(t *testing.T) {
	const limit = 256 << 10
	total := 0
	for _, data := range files(t) {
		total += len(data)
	}
	if total > limit {
		t.Errorf("all definitions together have %d bytes, over the limit of %d", total, limit)
	}
	t.Logf("all definitions together have %d bytes of %d", total, limit)
}
