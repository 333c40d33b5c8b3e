package workload

import (
	"reflect"
	"testing"
)

// A Deployment that keeps its image for now must be the very one that was applied before, or it would be applied again.
func TestAnotherImageGivesTheObjectThatWouldHaveBeenBuilt(t *testing.T) {
	next := settings
	next.WorkerImage = "registry.example.com/waybill/worker:2"
	now, later := build(t, settings, "testdata/gateways.in.yaml"), build(t, next, "testdata/gateways.in.yaml")
	seen := 0
	for i := range now {
		if now[i].set == nil {
			continue
		}
		for j, u := range now[i].set.Owned {
			if Image(u) == "" {
				continue
			}
			seen++
			back, err := WithImage(later[i].set.Owned[j], Image(u))
			if err != nil || Image(later[i].set.Owned[j]) != next.WorkerImage || !reflect.DeepEqual(back.Object, u.Object) {
				t.Errorf("%s: %v\n%v\n%v", u.GetName(), err, back.Object, u.Object)
			}
		}
	}
	if seen == 0 {
		t.Error("nothing has an image")
	}
}
