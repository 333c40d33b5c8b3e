package workload

import (
	"maps"
	"testing"
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
				if Image(u) != s.WorkerImage || !maps.Equal(Env(u), env) {
					t.Errorf("%s: %s, %v", u.GetName(), Image(u), Env(u))
				}
			}
		}
		if seen == 0 {
			t.Error("there is no Deployment")
		}
	}
}
