package main

import (
	"bytes"
	"context"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/flow"
)

// A terminal is what a person sees of a run in this process.
type terminal struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (s *terminal) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.text.Write(b)
}

func (s *terminal) seen() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// untilUp runs the command, does what is to be done once it is up, drains, and returns all that it printed.
func untilUp(t *testing.T, do func(origin string), args ...string) string {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, ended := &terminal{more: make(chan struct{}, 1)}, make(chan int, 1)
	go func() { ended <- Main(ctx, append([]string{"run", "--port", "0"}, args...), out, out) }()
	up := regexp.MustCompile(`; (http://[^/]+)/status`)
	for late := time.After(time.Minute); !up.MatchString(out.seen()); {
		select {
		case <-out.more:
		case code := <-ended:
			t.Fatalf("ended with %d before it was up:\n%s", code, out.seen())
		case <-late:
			t.Fatalf("not up after a minute:\n%s", out.seen())
		}
	}
	do(up.FindStringSubmatch(out.seen())[1])
	stop()
	<-ended
	return out.seen()
}

func TestWhatAPersonIsTold(t *testing.T) {
	path := write(t, embedded+`---
apiVersion: waybill.dev/v1alpha1
kind: Mailbox
metadata: {name: dead}
spec: {brokerRef: {name: main}}
---
apiVersion: waybill.dev/v1alpha1
kind: Subscription
metadata: {name: declared}
spec: {topicRef: {name: orders}, deliverTo: {uri: 'http://127.0.0.1:1/'}, deadLetter: {mailboxRef: {name: dead}}}
---
apiVersion: waybill.dev/v1alpha1
kind: Subscription
metadata: {name: own}
spec: {topicRef: {name: orders}, deliverTo: {uri: 'http://127.0.0.1:1/'}}
---
apiVersion: waybill.dev/v1alpha1
kind: Subscription
metadata: {name: latest}
spec: {topicRef: {name: orders}, deliverTo: {serviceRef: {name: nowhere}}}
---
apiVersion: waybill.dev/v1alpha1
kind: Subscription
metadata: {name: earliest}
spec: {topicRef: {name: orders}, startFrom: {position: Earliest}, deliverTo: {serviceRef: {name: nowhere}}}
`)
	publish := func(origin string) {
		for range 3 {
			resp, err := http.Post(origin+"/default/topics/orders", "text/plain", strings.NewReader("hello"))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusAccepted {
				t.Fatal(resp.Status)
			}
		}
	}
	ephemeral := untilUp(t, publish, "-f", path, "--ephemeral")
	kept := untilUp(t, publish, "-f", path, "--data", t.TempDir())

	const latest = "what is published before its first start does not reach it (startFrom Latest)"
	for what, c := range map[string]struct{ text, part string }{
		"a dead letter of its own":               {ephemeral, "  Subscription/default/own  "},
		"what misses a resource for ever":        {ephemeral, latest + "\n"},
		"where it may have run before":           {kept, latest + "; if it ran before, it goes on from where it was\n"},
		"what reaches it later":                  {ephemeral, "what is published before it starts is delivered then"},
		"what is gone with a temporary folder":   {ephemeral, "dead letters, positions and 6 undelivered messages (one counts for each of its readers) are gone"},
		"what is handed back for another run":    {kept, "handed back for the next run"},
		"that nothing is kept, before it begins": {ephemeral, "; keeps nothing; "},
	} {
		if !strings.Contains(c.text, c.part) {
			t.Errorf("%s: %q is not told:\n%s", what, c.part, c.text)
		}
	}
	for what, c := range map[string]struct{ text, part string }{
		"another Mailbox on a declared one's object": {ephemeral, "  Subscription/default/declared  default_"},
		"a next run that cannot have it":             {ephemeral, "next run"},
		"a folder that stays":                        {kept, "are gone"},
	} {
		if strings.Contains(c.text, c.part) {
			t.Errorf("%s: %q is told:\n%s", what, c.part, c.text)
		}
	}
}

func TestWhatADrainTells(t *testing.T) {
	cut := engine.Drained{Drained: flow.Drained{Finished: 1, Cancelled: 6, Released: 2, Lost: 4}, Cut: true}
	for _, c := range []struct {
		complete, gone bool
		want           string
	}{
		{true, false, "Drained: 1 in flight finished, 2 handed back for the next run, 4 lost that had no promise to be kept (accepted, or at most once)\n"},
		{false, false, "everything had ended: what was cut off comes again with the next run, but for what was lost. --drain"},
		{false, true, "everything had ended: what was cut off is gone. --drain"},
	} {
		var out strings.Builder
		(&speaker{out: &out}).drained([]engine.Drained{cut}, c.complete, c.gone, 0)
		if !strings.Contains(out.String(), c.want) {
			t.Errorf("%q is not told:\n%s", c.want, out.String())
		}
	}
}
