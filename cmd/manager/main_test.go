package main

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// A slowManager takes its time to end. Its caches have been read, or have not.
type slowManager struct {
	ctrl.Manager

	caches caches
	ended  atomic.Bool
}

type caches struct {
	cache.Cache

	read atomic.Bool
}

func (m *slowManager) Start(ctx context.Context) error {
	<-ctx.Done()
	time.Sleep(5 * time.Second)
	m.ended.Store(true)
	return nil
}

func (m *slowManager) GetCache() cache.Cache { return &m.caches }

func (c *caches) WaitForCacheSync(ctx context.Context) bool {
	if !c.read.Load() {
		<-ctx.Done()
	}
	return c.read.Load()
}

// What a manager has begun it may end, whatever it waits to read by then.
func TestAManagerEndsInOrderOnceItHasReadItsCluster(t *testing.T) {
	for _, read := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m := new(slowManager)
			m.caches.read.Store(read)
			ctx, stop := context.WithCancel(t.Context())
			result := make(chan error, 1)
			go func() { result <- start(ctx, m) }()
			synctest.Wait()
			m.caches.read.Store(false) // it has begun to read one kind more
			stop()
			if err := <-result; (err == nil) != read || m.ended.Load() != read {
				t.Errorf("caches were read: %v; it ended: %v, %v", read, m.ended.Load(), err)
			}
			time.Sleep(time.Minute)
		})
	}
}
