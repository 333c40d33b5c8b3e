package workload

import (
	"maps"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A Deployment tells what it was built with, the manager's variables apart from the resource's own: with these it may have to be built again.
func TestADeploymentTellsItsImageAndTheManagersVariables(t *testing.T) {
	for _, env := range []map[string]string{nil, {"B": "2", "A": "1=\"x\""}} {
		s := settings
		s.Env = env
		seen := 0
		for _, built := range build(t, s, "testdata/gateways.in.yaml") {
			if built.set == nil {
				continue
			}
			for _, u := range built.set.Owned {
				if u.GetKind() != "Deployment" {
					continue
				}
				seen++
				if Image(u) != s.WorkerImage || !maps.Equal(Env(u, nil), env) {
					t.Errorf("%s: %s, %v", u.GetName(), Image(u), Env(u, nil))
				}
			}
		}
		if seen == 0 {
			t.Error("there is no Deployment")
		}
	}
}

// Before there was the annotation a Deployment did not tell the variables, and without any it has none: both are what their Pods have.
func TestADeploymentWithoutTheAnnotationHasTheManagersVariablesThatItsPodsHave(t *testing.T) {
	now := map[string]string{"STAGE": "new", "EMPTY": "", "TOKEN": "x", "GONE": "y"}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON([]byte(`{"kind": "Deployment", "spec": {"template": {"spec": {"containers": [{"env": [
		{"name": "GOMEMLIMIT", "value": "1"}, {"name": "STAGE", "value": "old"}, {"name": "EMPTY"},
		{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "token"}}}]}]}}}}`)); err != nil {
		t.Fatal(err)
	}
	if got, want := Env(u, now), map[string]string{"STAGE": "old", "EMPTY": ""}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	u.SetAnnotations(map[string]string{AnnotationEnv: `{"GONE":"z"}`})
	if got, want := Env(u, now), map[string]string{"GONE": "z"}; !maps.Equal(got, want) {
		t.Errorf("%v, want what the annotation says: %v", got, want)
	}
}
