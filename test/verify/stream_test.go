package verify_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/test/servers"
	"github.com/waybill-dev/waybill/test/verify"
)

const twoOrderings = `
kind: Broker
metadata: {name: main}
spec: {type: NATS, nats: {servers: [%q]}}
---
kind: Topic
metadata: {name: orders}
spec: {brokerRef: {name: main}}
---
kind: Subscription
metadata: {name: ordered}
spec: {topicRef: {name: orders}, startFrom: {position: Earliest}, ordering: Key, deliverTo: {uri: %q}}
---
kind: Subscription
metadata: {name: loose}
spec: {topicRef: {name: orders}, startFrom: {position: Earliest}, deliverTo: {uri: %q}}
`

// A stream that somebody deletes takes its messages with it. Whoever had a position in it stops and says so; it does not go on in another
// stream of the same name as if nothing had happened, neither at once nor after a restart.
func TestALostStreamStopsWhoReadIt(t *testing.T) {
	server := servers.StartNATS(t)
	r := newRig(t)
	ordered := r.destination("ordered", verify.Promise{Ordered: true}, nil)
	loose := r.destination("loose", verify.Promise{}, nil)
	r.start(fmt.Sprintf(twoOrderings, server.URL(), ordered.URL(), loose.URL()), "--data", t.TempDir())
	traffic := verify.Traffic{Run: "before", Keys: 2, PerKey: 20, To: r.address("Topic", "orders", "")}
	verify.Publish(t.Context(), r.record, traffic)
	for _, o := range r.observers {
		if err := verify.Await(t.Context(), r.record, o); err != nil {
			t.Fatal(err)
		}
	}

	js := streams(t, server)
	stream, err := js.Stream(t.Context(), "default_orders")
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), "default_orders"); err != nil {
		t.Fatal(err)
	}
	r.awaitStatus("ordered", "SourceDown: stream default_orders: the object does not exist on the broker")
	r.awaitStatus("loose", "SourceDown: stream default_orders: the object does not exist on the broker")
	resp, err := http.Post(r.laptop.Address("Topic", "orders"), "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a Topic without its stream answers %s", resp.Status)
	}

	if _, err := js.CreateStream(t.Context(), stream.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	traffic.Prefix = "again"
	verify.Publish(t.Context(), r.record, traffic)
	r.awaitStatus("ordered", "PositionLost")
	r.awaitStatus("loose", "PositionLost")
	for _, o := range r.observers {
		if missing, _ := r.record.Missing(o); len(missing) != 40 {
			t.Errorf("%s, whose position is lost, has seen some of the new stream: %v is left", o, missing)
		}
	}
	r.end()
	r.laptop.Up()
	r.awaitStatus("ordered", "PositionLost")
}

// awaitStatus waits until /status says this of a Subscription.
func (r *rig) awaitStatus(subscription, says string) {
	r.t.Helper()
	base, _, _ := strings.Cut(r.laptop.Address("Topic", "orders"), "/default")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); ; {
		last := status(r.t, base+"/status", subscription)
		if strings.Contains(last, says) {
			r.t.Log(last)
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("after 30 s the status of %s is %s", subscription, last)
		}
	}
}

func status(t *testing.T, url, subscription string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var all struct {
		Resources []struct{ Kind, Name, State, Condition, Message string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	for _, one := range all.Resources {
		if one.Kind == "Subscription" && one.Name == subscription {
			return fmt.Sprintf("%s %s: %s", one.State, one.Condition, one.Message)
		}
	}
	return "missing"
}

func streams(t *testing.T, server *servers.NATS) jetstream.JetStream {
	t.Helper()
	c, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return js
}
