package broker_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
)

// BenchmarkTopicToTopicOverNATS carries what is stored in one Topic of an embedded server into another, in order of each key: published and
// then acknowledged, or both in one step.
func BenchmarkTopicToTopicOverNATS(b *testing.B) {
	for _, exactly := range []bool{false, true} {
		name := "AtLeastOnce"
		if exactly {
			name = "ExactlyOnce"
		}
		b.Run(name, func(b *testing.B) {
			conn, spec := embedded(b, driver.Key)
			spec.Window = driver.Window{Messages: 4096, Bytes: 64 << 20}
			out := driver.Ref{Kind: driver.Topic, Name: "default_lines"}
			admin, err := conn.Admin(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if _, err := admin.Ensure(b.Context(), driver.Object{Ref: out, Owner: "Topic/default/lines"}); err != nil {
				b.Fatal(err)
			}
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
			var stages []flow.Stage
			if exactly {
				spec.Into = out
			} else {
				stages = append(stages, publish{conn.Publisher(out)})
			}
			f := flow.New(flow.Config{
				Name: "Pipeline/bench/bench",
				Open: func(ctx context.Context, revoke func(context.Context, []driver.Claim), lost func([]driver.Claim)) (driver.Source, error) {
					spec := spec
					spec.Revoke, spec.Lost = revoke, lost
					return conn.Source(ctx, spec)
				},
				Stages: stages,
				Policy: flow.Policy{Ordering: driver.Key, Carries: exactly, MaxInFlight: 1024, BatchSize: 256, Window: spec.Window, AckWait: 30 * time.Second},
			})
			reader, err := conn.Source(b.Context(), driver.SourceSpec{
				Object: out, Live: &driver.Live{Start: driver.Start{Position: driver.Earliest}}, Window: spec.Window,
			})
			if err != nil {
				b.Fatal(err)
			}
			done := make(chan error, 1)
			b.ReportAllocs()
			b.ResetTimer()
			go func() { done <- f.Run(context.Background()) }()
			buf := make([]driver.Delivery, 512)
			for n := 0; n < b.N; {
				k, err := reader.Receive(b.Context(), buf)
				if err != nil {
					b.Fatal(err)
				}
				n += k
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			f.Drain(b.Context())
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			if err := reader.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

type publish struct{ to *broker.Publisher }

func (p publish) Process(ctx context.Context, b *flow.Batch) {
	ms := make([]message.Message, len(b.Events))
	for i := range b.Events {
		ms[i] = b.Events[i].Message
	}
	for i, err := range p.to.Publish(ctx, ms) {
		if err != nil {
			b.Fail(b.Events[i].Input, err)
		}
	}
}
