package controllers

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// A pass that reads from a cache what was before the last status would tell the same again, with its events.
func TestWhatTheCachesShowLateIsNotToldTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := plan.Resource{Kind: "Topic", Namespace: "default", Name: "orders"}
		c := &Controller{wrote: map[plan.Resource]version{}}
		outdated := func(resourceVersion string) bool {
			o := &v1alpha1.Topic{}
			o.ResourceVersion = resourceVersion
			return c.outdated(r, o)
		}
		wrote := func(resourceVersion string) { c.wrote[r] = version{of: resourceVersion, at: time.Now()} }
		if outdated("9") {
			t.Error("nothing was written yet")
		}
		wrote("100")
		for range 2 {
			if !outdated("99") {
				t.Error("99 is before what was written")
			}
		}
		if outdated("100") {
			t.Error("it shows what was written")
		}
		if wrote("100"); outdated("101") {
			t.Error("it shows what somebody else wrote after it")
		}
		if wrote("100"); outdated("not-a-number") {
			t.Error("a version that cannot be compared stops nothing")
		}
		wrote("100")
		time.Sleep(catchesUp)
		if outdated("20") {
			t.Error("versions that went back, as after a restore, stop nothing for long")
		}
	})
}
