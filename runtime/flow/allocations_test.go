package flow

import (
	"context"
	"runtime"
	"testing"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// The loop itself, its counters and histograms included, makes no garbage: what a message costs is what its stages ask for.
func TestTheLoopAllocatesNothingAMessage(t *testing.T) {
	const messages = 50_000
	src := &fountain{left: messages, want: messages, all: make(chan struct{}), data: make([]byte, 300), keys: []string{"a", "b", "c"}}
	f := New(Config{
		Name: "Pipeline/test/test",
		Open: func(context.Context, func(context.Context, []driver.Claim), func([]driver.Claim)) (driver.Source, error) {
			return src, nil
		},
		Stages: []Stage{stageFunc(func(context.Context, *Batch) {})},
		Policy: Policy{Ordering: driver.Key, MaxInFlight: 1024, BatchSize: 256, Retry: Retry{MaxAttempts: 10}},
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	done := make(chan error, 1)
	go func() { done <- f.Run(t.Context()) }()
	<-src.all
	runtime.ReadMemStats(&after)
	f.Drain(t.Context())
	if err := <-done; err != nil {
		t.Error(err)
	}
	// The window and the workers are made once.
	if n := float64(after.Mallocs-before.Mallocs) / messages; n > 0.2 {
		t.Errorf("%.2f allocations a message", n)
	}
}
