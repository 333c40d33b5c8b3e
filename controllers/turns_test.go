package controllers

import (
	"fmt"
	"testing"

	"github.com/waybill-dev/waybill/runtime/plan"
)

func TestTwentyHaveATurnAtATimeInTheOrderInWhichTheyAsked(t *testing.T) {
	r := func(i int) plan.Resource { return plan.Resource{Kind: "Topic", Namespace: "shop", Name: fmt.Sprint(i)} }
	var turns turns
	seeds := 0
	take := func(i int) bool {
		t.Helper()
		ok, err := turns.take(r(i), func() ([]plan.Resource, error) { seeds++; return []plan.Resource{r(100), r(101)}, nil })
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	for i := range 25 {
		if got, want := take(i), i < rollAtOnce-2; got != want { // two were on their way
			t.Errorf("%d has a turn: %v", i, got)
		}
	}
	if !take(0) || take(24) || seeds != 1 || !turns.waits(r(24)) || turns.waits(r(0)) {
		t.Error("a turn lasts until it is done, and the seed is asked once")
	}
	if next := turns.done(r(3)); len(next) != 1 || next[0] != r(18) {
		t.Errorf("next is %v", next)
	}
	if take(19) || !take(18) || take(19) {
		t.Error("who came later was first")
	}
	// One that waits and goes away is not waited for.
	turns.done(r(19))
	if next := turns.done(r(100)); len(next) != 1 || next[0] != r(20) || !take(20) {
		t.Errorf("next is %v", next)
	}
	if rolling, waiting := turns.counts(); rolling != rollAtOnce || waiting != 4 {
		t.Errorf("%d roll and %d wait", rolling, waiting)
	}
}
