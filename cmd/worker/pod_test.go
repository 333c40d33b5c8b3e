package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

type savesWith struct {
	checkpoint.Store
	err error
}

func (s savesWith) Save(context.Context, []byte) error { return s.err }

// Two pollers that run as one: whoever finds out ends, and started anew goes on from what the other wrote. Other faults end nobody.
func TestAConflictOfCheckpointsEndsTheWorker(t *testing.T) {
	failed := make(chan error, 1)
	conflict := fmt.Errorf("checkpoint: %w", checkpoint.ErrConflict)
	for _, err := range []error{nil, errors.New("the API server answers 503"), conflict, conflict} {
		if got := (&soleWriter{savesWith{err: err}, failed}).Save(t.Context(), nil); !errors.Is(got, err) {
			t.Errorf("Save: %v; want %v", got, err)
		}
	}
	if err := <-failed; !errors.Is(err, checkpoint.ErrConflict) || len(failed) != 0 {
		t.Errorf("the worker ends with %v", err)
	}
}

func TestLeaseKeysAreReadAtEachUse(t *testing.T) {
	dir := t.TempDir()
	secrets := secret.Dir(dir)
	keys := func(want ...string) {
		t.Helper()
		got, err := leaseKeys(secrets)
		var texts []string
		for _, k := range got {
			texts = append(texts, string(k))
		}
		if err != nil || strings.Join(texts, " ") != strings.Join(want, " ") {
			t.Errorf("%q, %v; want %q", texts, err, want)
		}
	}
	keys() // a Pod that hands out no leases
	put(t, filepath.Join(dir, plan.LeaseKeySecret, "current"), "one")
	put(t, filepath.Join(dir, plan.LeaseKeySecret, "next"), "two")
	keys("one", "two")
	put(t, filepath.Join(dir, plan.LeaseKeySecret, "current"), "two")
	if err := os.Rename(filepath.Join(dir, plan.LeaseKeySecret, "next"), filepath.Join(dir, plan.LeaseKeySecret, "previous")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, plan.LeaseKeySecret, "previous"), "one")
	keys("two", "one")
}

func TestWrongFlagsAreNamed(t *testing.T) {
	c := config{checkpoints: "memory"}
	if _, err := c.checkpointStores(slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), "file or configmap") {
		t.Errorf("got %v", err)
	}
	if err := serveBroker(t.Context(), brokerConfig{data: t.TempDir()}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "--secret") {
		t.Errorf("got %v", err)
	}
}
