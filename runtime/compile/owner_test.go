package compile

import (
	"reflect"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// What a resource reserves is what it owns once it has a plan, and it is told of a refused one too: what was made before may have to go.
func TestARefusedResourceStillTellsWhatItMade(t *testing.T) {
	seen := 0
	for path, text := range samples(t) {
		in, err := decode(text)
		if err != nil {
			t.Fatal(err)
		}
		before := map[string]Outcome{}
		for _, o := range Compile(in).Outcomes {
			before[o.Resource.String()] = o
			if o.Plan != nil && !reflect.DeepEqual(o.Reserved, o.Owned()) {
				t.Errorf("%s: %s reserves %v and owns %v", path, o.Resource, o.Reserved, o.Owned())
			}
		}
		for i := range in.Subscriptions {
			s := in.Subscriptions[i].DeepCopy()
			s.Spec.Filter = &v1alpha1.Expression{CEL: "no expression ("}
			in.Subscriptions[i] = s
		}
		for _, o := range Compile(in).Outcomes {
			if was := before[o.Resource.String()]; o.Resource.Kind == "Subscription" && was.Plan != nil {
				seen++
				if o.Plan != nil || o.Owned() != nil || !reflect.DeepEqual(o.Reserved, was.Reserved) {
					t.Errorf("%s: %s reserved %v and reserves %v", path, o.Resource, was.Reserved, o.Reserved)
				}
			}
		}
	}
	if seen == 0 {
		t.Error("no sample has a Subscription")
	}
}

// Two clusters on one broker must not take each other's objects for their own.
func TestTheHostIsInEveryOwnerMark(t *testing.T) {
	for path, text := range samples(t) {
		in, err := decode(text)
		if err != nil {
			t.Fatal(err)
		}
		bare := Compile(in)
		in.Host = "cluster-1"
		for i, o := range Compile(in).Outcomes {
			was := bare.Outcomes[i]
			if len(o.Owned()) != len(was.Owned()) || (o.Plan == nil) != (was.Plan == nil) {
				t.Errorf("%s: %s owns %v with a host and %v without", path, o.Resource, o.Owned(), was.Owned())
			}
			if o.Plan == nil {
				continue
			}
			for j, obj := range o.Plan.Objects {
				if obj.Owner != "cluster-1/"+was.Plan.Objects[j].Owner || !strings.HasPrefix(obj.Owner, "cluster-1/") {
					t.Errorf("%s: %s has the mark %q", path, obj.Name, obj.Owner)
				}
			}
		}
	}
}
