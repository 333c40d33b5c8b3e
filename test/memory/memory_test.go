// Package memory overloads a `waybill run` in the ways that overload comes, and holds the physical memory of its process against bounds that
// follow from the windows and buffers that are documented in docs/verification.md. The broker is a process of its own, so that its memory is
// not counted; the program is built without the race detector, which would multiply it.
package memory

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/test/laptop"
	"github.com/waybill-dev/waybill/test/servers"
	"github.com/waybill-dev/waybill/test/verify"
)

var (
	backlog = flag.Int("memory.backlog", 10_000, "messages that wait for a subscriber that takes none")
	flood   = flag.Duration("memory.flood", 4*time.Second, "how long publishers send more than the broker takes")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(laptop.Main(m))
}

const mebibyte = 1 << 20

// What the bounds are made of, in MiB. The garbage collector lets the heap grow to twice what is held.
const (
	idle   = 64 // the program, and a few resources that do nothing
	window = 64 // of a flow, in bytes of messages that are held unsettled
	buffer = 64 // of a gateway, in bytes of requests that are not stored yet
)

// start runs documents on a nats-server of their own.
func start(t *testing.T, documents string) (*laptop.Laptop, *servers.NATS) {
	t.Helper()
	server := servers.StartFastNATS(t)
	l := laptop.New(t, "-f", laptop.Manifest(t, fmt.Sprintf("kind: Broker\nmetadata: {name: main}\nspec: {type: NATS, nats: {servers: [%q]}}\n---\n", server.URL())+documents),
		"--data", t.TempDir())
	l.Plain = true
	return l.Up(), server
}

// within reports the memory and fails where it is beyond the bound.
func within(t *testing.T, l *laptop.Laptop, what string, bound int) {
	t.Helper()
	now, peak := l.Memory()
	if now == 0 {
		t.Attr("not-exercised", "bounds of memory: the physical memory of a process is read from /proc, which this system does not have")
		return
	}
	text := fmt.Sprintf("memory: %s: %d MiB, at the most %d MiB of %d MiB", what, now/mebibyte, peak/mebibyte, bound)
	t.Attr("report", text)
	t.Log(text)
	if peak > bound*mebibyte {
		t.Errorf("%s took %d MiB of memory, more than %d MiB", what, peak/mebibyte, bound)
	}
}

// fill stores n messages on the stream of the Topic orders, as any client of the broker may.
func fill(t *testing.T, server *servers.NATS, n, size int, key func(i int) string) {
	t.Helper()
	c, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	js, err := jetstream.New(c, jetstream.WithPublishAsyncMaxPending(1024))
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), "default_orders")
	if err != nil {
		t.Fatal(err)
	}
	subject := s.CachedInfo().Config.Subjects[0]
	padding := bytes.Repeat([]byte(" "), size)
	for i := range n {
		k := key(i)
		data := fmt.Appendf(nil, `{"run":"memory","key":%q,"seq":%d}`, "k"+k, i+1)
		m := &nats.Msg{Subject: subject, Data: append(data, padding[:max(size-len(data), 0)]...), Header: nats.Header{
			"Ce-Specversion": {"1.0"}, "Ce-Id": {strconv.Itoa(i)}, "Ce-Source": {"/memory"}, "Ce-Type": {"memory"}, "Ce-Partitionkey": {k}, "Content-Type": {"application/json"},
		}}
		if _, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(5 * time.Minute):
		t.Fatal("the broker has not confirmed the backlog")
	}
}

// A counter is a subscriber that counts, and takes nothing until it is opened.
type counter struct {
	n    atomic.Int64
	open chan struct{}
	came chan struct{} // holds one when something has come
}

func (c *counter) mood(w http.ResponseWriter, r *http.Request, _ verify.Mark, _ func()) bool {
	select {
	case <-c.open:
	case <-r.Context().Done():
		return false
	}
	c.n.Add(1)
	select {
	case c.came <- struct{}{}:
	default:
	}
	w.WriteHeader(http.StatusNoContent)
	return false
}

func (c *counter) await(t *testing.T, n int) {
	t.Helper()
	deadline := time.After(10*time.Minute + time.Duration(n)*2*time.Millisecond)
	for int(c.n.Load()) < n {
		select {
		case <-c.came:
		case <-deadline:
			t.Fatalf("%d of %d messages have come", c.n.Load(), n)
		}
	}
}

// subscriber is where Subscriptions push to.
func subscriber(t *testing.T) (*counter, string) {
	t.Helper()
	c := &counter{open: make(chan struct{}), came: make(chan struct{}, 1)}
	d, err := verify.NewDestination("subscriber", new(verify.Record), c.mood)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Away)
	return c, d.URL()
}

const slow = `
kind: Topic
metadata: {name: orders}
spec: {brokerRef: {name: main}}
---
kind: Subscription
metadata: {name: slow}
spec: {topicRef: {name: orders}, startFrom: {position: Earliest}, ordering: %s, deliverTo: {uri: %q}, timeout: 10m}
`

// A backlog waits on the broker, not in the worker, while a subscriber takes nothing, and afterwards while it takes all.
func TestABacklogWaitsOnTheBroker(t *testing.T) {
	for _, ordering := range []string{"None", "Key"} {
		t.Run(ordering, func(t *testing.T) {
			sub, url := subscriber(t)
			l, server := start(t, fmt.Sprintf(slow, ordering, url))
			fill(t, server, *backlog, 300, func(i int) string { return strconv.Itoa(i % 100) })
			within(t, l, fmt.Sprintf("%d messages wait for a subscriber, ordering %s", *backlog, ordering), idle+2*window)
			close(sub.open)
			sub.await(t, *backlog)
			within(t, l, fmt.Sprintf("they were delivered, ordering %s", ordering), idle+2*window)
		})
	}
}

// What is held is bounded in bytes too.
func TestABacklogOfLargeMessagesWaitsOnTheBroker(t *testing.T) {
	for _, ordering := range []string{"None", "Key"} {
		t.Run(ordering, func(t *testing.T) {
			sub, url := subscriber(t)
			l, server := start(t, fmt.Sprintf(slow, ordering, url))
			const n = 400
			fill(t, server, n, 512<<10, strconv.Itoa)
			within(t, l, fmt.Sprintf("%d messages of 512 KiB wait for a subscriber, ordering %s", n, ordering), idle+3*window)
			close(sub.open)
			sub.await(t, n)
			within(t, l, fmt.Sprintf("they were delivered, ordering %s", ordering), idle+3*window)
		})
	}
}

// A key costs nothing once its messages are settled.
func TestIdleKeysAreForgotten(t *testing.T) {
	sub, url := subscriber(t)
	close(sub.open)
	l, server := start(t, fmt.Sprintf(slow, "Key", url))
	const n = 10_000
	fill(t, server, n, 300, strconv.Itoa)
	sub.await(t, n)
	within(t, l, fmt.Sprintf("%d idle keys", n), idle+window)
}

const inbound = `
kind: Topic
metadata: {name: orders}
spec: {brokerRef: {name: main}}
`

// Publishers that send more than the broker takes are refused, also while the broker is away.
func TestAFloodOfPublishersIsRefused(t *testing.T) {
	l, server := start(t, inbound)
	body := bytes.Repeat([]byte("x"), 64<<10)
	var answers [600]atomic.Int64
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), *flood)
	defer cancel()
	var publishers sync.WaitGroup
	for i := range 64 {
		publishers.Go(func() {
			for ctx.Err() == nil {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.Address("Topic", "orders"), bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				if i%2 == 0 {
					req.Header.Set("Prefer", "respond-async")
				}
				if resp, err := client.Do(req); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body) // its end is of no interest
					resp.Body.Close()
					answers[resp.StatusCode].Add(1)
				}
			}
		})
	}
	select {
	case <-time.After(*flood / 2):
	case <-t.Context().Done():
	}
	server.Kill()
	publishers.Wait()
	within(t, l, fmt.Sprintf("64 publishers of 64 KiB, the broker away half of the time: %d accepted or stored, %d refused", answers[202].Load(), answers[503].Load()), idle+3*buffer)
	if answers[202].Load() == 0 || answers[503].Load() == 0 {
		t.Errorf("answers: %d × 202, %d × 503: there was no overload", answers[202].Load(), answers[503].Load())
	}
	server.Start()
}

// A long poll costs its connection.
func TestOpenLongPolls(t *testing.T) {
	l, _ := start(t, `
kind: Mailbox
metadata: {name: letters}
spec: {brokerRef: {name: main}}
`)
	const n = 1000
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n}}
	defer client.CloseIdleConnections()
	before, _ := l.Memory()
	var polls sync.WaitGroup
	for range n {
		polls.Go(func() {
			resp, err := client.Post(l.Address("Mailbox", "letters")+"/messages/receive?wait=60s", "", http.NoBody)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("a long poll is answered %s", resp.Status)
			}
		})
	}
	address := l.Address("Mailbox", "letters")
	metrics := address[:len(address)-len("/default/mailboxes/letters")] + "/metrics"
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !bytes.Contains(get(t, client, metrics), fmt.Appendf(nil, `waybill_gateway_waiting_receivers{kind="Mailbox",name="letters",namespace="default"} %d`, n)); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not all polls wait after a minute:\n%s", get(t, client, metrics))
		}
	}
	within(t, l, fmt.Sprintf("%d open long polls (%d MiB before)", n, before/mebibyte), idle+64)
	if code, _ := l.Drain(); code != 0 {
		t.Errorf("the drain ended with %d", code)
	}
	polls.Wait()
}

func get(t *testing.T, client *http.Client, url string) []byte {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}
