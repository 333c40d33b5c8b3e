package verify_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/test/laptop"
	"github.com/waybill-dev/waybill/test/servers"
	"github.com/waybill-dev/waybill/test/verify"
)

// On a full disk nothing is answered as stored that is not, and once there is room again it goes on by itself.
func TestAFullDiskHeals(t *testing.T) {
	disk := servers.MountDisk(t, 64)
	if disk == nil {
		return
	}
	record := new(verify.Record)
	d, err := verify.NewDestination("pushed", record, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Away()
	l := laptop.Start(t, strings.ReplaceAll(`
kind: Broker
metadata: {name: main}
spec: {type: Embedded}
---
kind: Topic
metadata: {name: orders}
spec: {brokerRef: {name: main}}
---
kind: Subscription
metadata: {name: pushed}
spec: {topicRef: {name: orders}, startFrom: {position: Earliest}, ordering: Key, deliverTo: {uri: "URL"}}
`, "URL", d.URL()), "--data", disk.Dir())
	traffic := verify.Traffic{Run: "disk", Keys: 1, PerKey: 20, To: func() string { return l.Address("Topic", "orders") }}
	verify.Publish(t.Context(), record, traffic)
	disk.Fill()
	resp, err := http.Post(l.Address("Topic", "orders"), "text/plain", strings.NewReader(strings.Repeat("x", 100<<10)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a full disk is answered %s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	disk.Free()
	began := time.Now()
	traffic.Prefix = "after"
	verify.Publish(t.Context(), record, traffic)
	if err := verify.Await(t.Context(), record, "pushed"); err != nil {
		t.Fatal(err)
	}
	t.Logf("it went on %s after there was room", time.Since(began).Round(time.Millisecond))
	verdicts, _ := record.Verdicts()
	if broken := verdicts[0].Broken(); broken != "" {
		t.Error(broken)
	}
	if code, _ := l.Drain(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, l.Errors())
	}
}
