package laptop_test

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/test/laptop"
)

func TestMain(m *testing.M) { os.Exit(laptop.Main(m)) }

func TestALaptopIsStartedEndedAndStartedAgain(t *testing.T) {
	l := laptop.New(t, "-f", laptop.Manifest(t, `
kind: Broker
metadata: {name: main}
spec: {type: Embedded}
---
kind: Topic
metadata: {name: orders}
spec: {brokerRef: {name: main}}
`), "--data", t.TempDir()).Up()
	post := func() {
		t.Helper()
		resp, err := http.Post(l.Address("Topic", "orders"), "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 202 {
			t.Fatal(resp.Status)
		}
	}
	post()
	if now, peak := l.Memory(); now < 1<<20 || peak < now {
		t.Errorf("it holds %d bytes now, %d at the most", now, peak)
	}
	if l.Kill(); l.ExitCode() != -1 {
		t.Errorf("a killed process ended with %d", l.ExitCode())
	}
	l.Up()
	post()
	if code, drained := l.Drain(); code != 0 || !drained.Complete {
		t.Errorf("it drained with %d: %+v", code, drained)
	}
	if !strings.Contains(l.Output(), `"up"`) || l.Address("Topic", "missing") != "" {
		t.Errorf("it said\n%s", l.Output())
	}
}
