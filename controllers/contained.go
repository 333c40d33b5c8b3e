package controllers

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/waybill-dev/waybill/controllers/workload"
)

// inPlace reports whether applying desired would change nothing: everything it says is so in live, and it says all that was said the last
// time. An apply that changes nothing would be a request all the same.
func inPlace(desired, live *unstructured.Unstructured) bool {
	return live.GetAnnotations()[workload.AnnotationApplied] == desired.GetAnnotations()[workload.AnnotationApplied] &&
		contained(desired.Object, live.Object)
}

// contained reports whether all of desired is found in live, which may hold more: defaults, and what others have added.
func contained(desired, live any) bool {
	switch d := desired.(type) {
	case map[string]any:
		l, ok := live.(map[string]any)
		if !ok {
			return len(d) == 0 && live == nil
		}
		for k, v := range d {
			if !contained(v, l[k]) {
				return false
			}
		}
		return true
	case []any:
		l, ok := live.([]any)
		if !ok {
			return len(d) == 0 && live == nil
		}
		if named(d) {
			return allNamed(d, l)
		}
		if len(d) != len(l) {
			return false
		}
		for i := range d {
			if !contained(d[i], l[i]) {
				return false
			}
		}
		return true
	}
	if d, ok := number(desired); ok {
		l, ok := number(live)
		return ok && d == l
	}
	return desired == live
}

// named reports whether a list is one whose entries are told apart by their names, to which others may add theirs.
func named(list []any) bool {
	for _, e := range list {
		if m, ok := e.(map[string]any); !ok || m["name"] == nil {
			return false
		}
	}
	return len(list) > 0
}

func allNamed(desired, live []any) bool {
	byName := map[any]any{}
	for _, e := range live {
		if m, ok := e.(map[string]any); ok {
			byName[m["name"]] = m
		}
	}
	for _, e := range desired {
		if !contained(e, byName[e.(map[string]any)["name"]]) {
			return false
		}
	}
	return true
}

// number reads what may be an integer here and a float there.
func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int64:
		return float64(n), true
	case float64:
		return n, true
	case int:
		return float64(n), true
	}
	return 0, false
}
