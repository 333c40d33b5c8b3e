package broker_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
)

// BenchmarkFlowOverNATS reads what is stored in an embedded server through the portable layer and a flow, in order of each key, to a sink
// that does nothing.
func BenchmarkFlowOverNATS(b *testing.B) {
	for _, ordering := range []driver.Ordering{driver.Key, driver.None} {
		b.Run(string(ordering), func(b *testing.B) {
			conn, spec := embedded(b, ordering)
			spec.Window = driver.Window{Messages: 4096, Bytes: 64 << 20}
			data := make([]byte, 300)
			for i := 0; i < b.N; i += 1000 {
				ms := make([]message.Message, min(1000, b.N-i))
				for j := range ms {
					ms[j] = message.Message{ID: fmt.Sprint(i + j), Source: "/bench", Type: "order.created", Key: fmt.Sprint("key-", j), Data: data}
				}
				if errs := conn.Publisher(spec.Object).Publish(b.Context(), ms); errs != nil {
					b.Fatal(errs)
				}
			}
			s := &counter{want: int64(b.N), all: make(chan struct{})}
			f := flow.New(flow.Config{
				Name: "Pipeline/bench/bench",
				Open: func(ctx context.Context, revoke func(context.Context, []driver.Claim), lost func([]driver.Claim)) (driver.Source, error) {
					spec := spec
					spec.Revoke, spec.Lost = revoke, lost
					return conn.Source(ctx, spec)
				},
				Stages: []flow.Stage{s},
				Policy: flow.Policy{Ordering: ordering, MaxInFlight: 1024, BatchSize: 256, Window: spec.Window, AckWait: 30 * time.Second},
			})
			done := make(chan error, 1)
			b.ReportAllocs()
			b.ResetTimer()
			go func() { done <- f.Run(context.Background()) }()
			<-s.all
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			f.Drain(b.Context())
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}

type counter struct {
	n    atomic.Int64
	want int64
	all  chan struct{}
}

func (c *counter) Process(_ context.Context, b *flow.Batch) {
	n := int64(len(b.Events))
	if now := c.n.Add(n); now >= c.want && now-n < c.want {
		close(c.all)
	}
}
