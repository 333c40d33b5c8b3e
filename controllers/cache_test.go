package controllers

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/waybill-dev/waybill/controllers/workload"
)

// Secrets of others are read by name when they are needed, and kept nowhere.
func TestTheCacheHoldsNoSecretOfOthers(t *testing.T) {
	found := false
	for object, by := range cacheOptions().ByObject {
		if _, ok := object.(*corev1.Secret); !ok {
			continue
		}
		found = true
		if by.Label == nil || by.Label.Matches(labels.Set{"app": "shop"}) || by.Label.Matches(labels.Set{}) {
			t.Errorf("Secrets are cached by %v", by.Label)
		}
		if !by.Label.Matches(labels.Set{workload.LabelManagedBy: workload.ManagedBy}) {
			t.Errorf("our own are not: %v", by.Label)
		}
	}
	if !found {
		t.Error("Secrets are cached without a selector")
	}
}
