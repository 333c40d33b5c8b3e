package flow

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// fountain is a source that always has more, up to a number, and counts what is settled.
type fountain struct {
	left    int
	next    int
	keys    []string
	data    []byte
	settled atomic.Int64
	want    int64
	all     chan struct{}
}

func (*fountain) Settling() driver.Settling { return driver.PerMessage }
func (s *fountain) Receive(ctx context.Context, into []driver.Delivery) (int, error) {
	if s.left == 0 {
		<-ctx.Done()
		return 0, nil
	}
	n := min(s.left, len(into), 256)
	s.left -= n
	for i := range n {
		s.next++
		into[i] = driver.Delivery{
			Message:  message.Message{ID: "id", Source: "/bench", Type: "order.created", Key: s.keys[s.next%len(s.keys)], Data: s.data},
			Position: int64(s.next),
		}
	}
	return n, nil
}
func (s *fountain) Settle(_ context.Context, list []driver.Settlement) []error {
	if s.settled.Add(int64(len(list))) == s.want {
		close(s.all)
	}
	return nil
}
func (*fountain) Extend(context.Context, []*driver.Delivery) []error { return nil }
func (*fountain) Drain()                                             {}
func (*fountain) Close(context.Context) error                        { return nil }

// BenchmarkFlow measures what the loop itself costs a message: no step, a sink that does nothing.
func BenchmarkFlow(b *testing.B) {
	for _, ordering := range []driver.Ordering{driver.None, driver.Key, driver.Strict} {
		for _, size := range []int{1, 256} {
			if ordering == driver.Strict && size > 1 {
				continue
			}
			b.Run(fmt.Sprintf("%s/batch=%d", ordering, size), func(b *testing.B) {
				src := &fountain{left: b.N, want: int64(b.N), all: make(chan struct{}), data: make([]byte, 300)}
				for i := range 1000 {
					src.keys = append(src.keys, fmt.Sprintf("key-%d", i))
				}
				f := New(Config{
					Name: "Pipeline/bench/bench",
					Open: func(context.Context, func(context.Context, []driver.Claim), func([]driver.Claim)) (driver.Source, error) {
						return src, nil
					},
					Stages: []Stage{stageFunc(func(context.Context, *Batch) {})},
					Policy: Policy{Ordering: ordering, MaxInFlight: max(64, 4*size), BatchSize: size, Retry: Retry{MaxAttempts: 10}},
				})
				b.ReportAllocs()
				b.ResetTimer()
				done := make(chan error, 1)
				go func() { done <- f.Run(context.Background()) }()
				<-src.all
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
				f.Drain(context.Background())
				if err := <-done; err != nil {
					b.Error(err)
				}
			})
		}
	}
}
