package verify_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/test/verify"
)

const neighbours = `
kind: Broker
metadata: {name: main}
spec: {type: Embedded}
---
kind: Topic
metadata: {name: orders}
spec: {brokerRef: {name: main}}
---
kind: Subscription
metadata: {name: away}
spec: {topicRef: {name: orders}, startFrom: {position: Earliest}, deliverTo: {uri: %q}}
---
kind: Subscription
metadata: {name: hanging}
spec: {topicRef: {name: orders}, startFrom: {position: Earliest}, ordering: Key, deliverTo: {uri: %q}}
---
kind: Subscription
metadata: {name: loose}
spec: {topicRef: {name: orders}, startFrom: {position: Earliest}, deliverTo: {uri: %q}}
---
kind: Subscription
metadata: {name: ordered}
spec: {topicRef: {name: orders}, startFrom: {position: Earliest}, ordering: Key, deliverTo: {uri: %q}}
`

// What one subscriber does not take stalls no other, and after an orderly end nobody is given anything again that he had taken.
func TestAFailingSinkStallsNoOtherAndARestartRepeatsNothing(t *testing.T) {
	r := newRig(t)
	away, hanging := new(verify.Record), new(verify.Record)
	gone, err := verify.NewDestination("away", away, nil)
	if err != nil {
		t.Fatal(err)
	}
	gone.Away()
	hangs, err := verify.NewDestination("hanging", hanging, verify.Slow(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Away()
	loose := r.destination("loose", verify.Promise{ExactlyOnce: true}, nil)
	ordered := r.destination("ordered", verify.Promise{Ordered: true, ExactlyOnce: true}, nil)
	r.start(fmt.Sprintf(neighbours, gone.URL(), hangs.URL(), loose.URL(), ordered.URL()), "--data", t.TempDir(), "--drain", "1s")
	await := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, o := range r.observers {
			if err := verify.Await(ctx, r.record, o); err != nil {
				t.Fatal(err)
			}
		}
	}
	traffic := verify.Traffic{Run: "one", Keys: 4, PerKey: 50, To: r.address("Topic", "orders", "")}
	verify.Publish(t.Context(), r.record, traffic)
	await()
	r.end()
	r.laptop.Up()
	traffic.Run, traffic.Prefix = "two", "again"
	verify.Publish(t.Context(), r.record, traffic)
	await()
	r.report()
	for name, one := range map[string]*verify.Record{"away": away, "hanging": hanging} {
		if n, _ := one.Seen(name); n != 0 {
			t.Errorf("%s has taken %d messages: the test has tested nothing", name, n)
		}
	}
}
