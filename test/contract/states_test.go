package contract

import (
	"fmt"
	"net/http"
	"os"
	"testing"
)

func TestStoredOutlivesAKill(t *testing.T) {
	t.Parallel()
	says(t, "S1")
	data := t.TempDir()
	file := manifest(t, broker, "kind: Mailbox\nmetadata: {name: inbox}\nspec: {brokerRef: {name: main}}")
	p := start(t, "-f", file, "--data", data).awaitUp()
	for i := range 50 {
		post(t, p.at("Mailbox", "inbox", "/messages"), "hello", "Idempotency-Key", fmt.Sprint(i)).want(http.StatusAccepted)
	}
	p.signal(os.Kill)
	again := start(t, "-f", file, "--data", data).awaitUp()
	ids := map[string]bool{}
	eventually(t, "all fifty to be received", func() bool {
		for _, l := range receive(t, again.at("Mailbox", "inbox", ""), "max=100&wait=1s") {
			ids[l.attribute(t, "id")] = true
		}
		return len(ids) == 50
	})
}
