package contract

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
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

// natsServer is a NATS server of the test's own, which stop takes away.
func natsServer(t *testing.T) (url string, stop func()) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	url = s.ClientURL()
	stop = func() { s.Shutdown(); s.WaitForShutdown() }
	t.Cleanup(stop)
	return url, stop
}

// metric reads one figure of a resource; the figure may be a whole series.
func metric(t *testing.T, p *process, kind, name, figure string) string {
	t.Helper()
	root, _, _ := strings.Cut(p.at(kind, name, ""), "/default/")
	for line := range strings.Lines(send(t, http.MethodGet, root+"/metrics", "").want(http.StatusOK).body) {
		if (strings.HasPrefix(line, figure+"{") || strings.HasPrefix(line, figure+" ")) && strings.Contains(line, `"`+name+`"`) {
			return strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:])
		}
	}
	return ""
}

func TestAcceptedIsCountedWhenItIsLost(t *testing.T) {
	t.Parallel()
	says(t, "S2")
	p := serve(t, "kind: Mailbox\nmetadata: {name: small}\nspec: {brokerRef: {name: main}, retention: {maxMessages: 1}}")
	address := p.at("Mailbox", "small", "")
	async := []string{"Prefer", "respond-async"}
	if a := post(t, address+"/messages", "kept", async...).want(http.StatusAccepted); !strings.Contains(a.body, `"state":"Accepted"`) {
		t.Error(a.body)
	}
	eventually(t, "it to be stored", func() bool { return metric(t, p, "Mailbox", "small", "waybill_gateway_stored_total") == "1" })
	for range 3 { // the Mailbox is full: these can never be stored
		post(t, address+"/messages", "lost", async...).want(http.StatusAccepted)
	}
	eventually(t, "three to be counted", func() bool { return metric(t, p, "Mailbox", "small", "waybill_gateway_lost_total") == "3" })
	if got := receive(t, address, "wait=10s"); len(got) != 1 || got[0].attribute(t, "data_base64") != "a2VwdA==" {
		t.Errorf("got %v", got)
	}
}

func TestTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	says(t, "S2", "S4")
	url, stop := natsServer(t)
	p := start(t, "-f", manifest(t, broker,
		"kind: Topic\nmetadata: {name: events}\nspec: {brokerRef: {name: main}}",
		"kind: Mailbox\nmetadata: {name: inbox}\nspec: {brokerRef: {name: main}}"), "--ephemeral", "--broker", "main="+url, "--drain", "2s").awaitUp()
	topic := p.at("Topic", "events", "")
	post(t, topic, "x").want(http.StatusAccepted)
	stop()
	unavailable := func(a answer, reason string) {
		t.Helper()
		a.problem(http.StatusServiceUnavailable, reason)
		if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || seconds < 1 {
			t.Errorf("Retry-After: %v", a.header)
		}
	}
	eventually(t, "publishing to be refused at once", func() bool {
		began := time.Now()
		a := post(t, topic, "x")
		return a.status == http.StatusServiceUnavailable && time.Since(began) < time.Second
	})
	unavailable(post(t, topic, "x"), "BrokerAway")
	unavailable(post(t, topic, "["+structuredEvent("1", "")+"]", "Content-Type", batchedType), "BrokerAway")
	unavailable(send(t, http.MethodGet, topic, "", "Accept", "text/event-stream"), "BrokerAway")
	unavailable(post(t, p.at("Mailbox", "inbox", "/messages"), "x"), "BrokerAway")
	unavailable(post(t, p.at("Mailbox", "inbox", "/messages"), "x", "Prefer", "wait=1"), "BrokerAway")
	post(t, topic, "{", "Content-Type", structuredType).problem(http.StatusBadRequest, "MalformedEvent") // no outage excuses that

	// What is accepted waits in memory, of which it takes a bounded part.
	before, accepted := memory(t, p), 0
	large := strings.Repeat("x", 512<<10)
	for range 300 {
		a := post(t, topic, large, "Prefer", "respond-async")
		if a.status != http.StatusAccepted {
			unavailable(a, "BuffersFull")
			break
		}
		accepted++
	}
	if after := memory(t, p); accepted < 64 || accepted > 150 || after-before > 400<<20 {
		t.Errorf("%d accepted, from %d to %d MiB", accepted, before>>20, after>>20)
	}
	unavailable(post(t, topic, large, "Prefer", "respond-async"), "BuffersFull")
	p.signal(syscall.SIGTERM)
	if !strings.Contains(p.lines(), fmt.Sprintf(`"lost":%d`, accepted)) {
		t.Errorf("%d lost events are not counted:\n%s", accepted, p.lines())
	}
}

// memory is what a process has of it, in bytes.
func memory(t *testing.T, p *process) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// Clients that announce much and send nothing take no room from those that send.
func TestSlowClientsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	says(t, "S4")
	p := serve(t, "kind: Topic\nmetadata: {name: events}\nspec: {brokerRef: {name: main}}")
	topic := p.at("Topic", "events", "/")
	before := memory(t, p)
	for i := range 400 {
		length := "Content-Length: 524288"
		if i%2 == 0 {
			length = "Transfer-Encoding: chunked"
		}
		slow(t, topic, "POST %s HTTP/1.1\r\nHost: x\r\n"+length+"\r\n\r\n400\r\nx")
	}
	for range 20 {
		post(t, topic, strings.Repeat("x", 512<<10)).want(http.StatusAccepted)
	}
	if after := memory(t, p); after-before > 300<<20 {
		t.Errorf("from %d to %d MiB", before>>20, after>>20)
	}
}

func TestEachErrorIsAProblem(t *testing.T) {
	t.Parallel()
	says(t, "S3")
	p := serve(t,
		"kind: Topic\nmetadata: {name: events}\nspec: {brokerRef: {name: main}, maxMessageBytes: 1Ki, auth: {bearer: {secretRef: {name: token}}}}",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData: {token: sesame}",
		"kind: Mailbox\nmetadata: {name: inbox}\nspec: {brokerRef: {name: main}}")
	topic, inbox := p.at("Topic", "events", "/"), p.at("Mailbox", "inbox", "")
	root := strings.TrimSuffix(topic, "/default/topics/events/")
	in := []string{"Authorization", "Bearer sesame"}
	for _, c := range []struct {
		a      answer
		status int
		reason string
	}{
		{post(t, root+"/nowhere", ""), 404, "NotFound"}, {send(t, "GET", root+"/", ""), 404, "NotFound"}, {post(t, root+"/default/topics/other/", ""), 404, "NotFound"},
		{post(t, root+"/default/topics/%65vents/x", ""), 404, "NotFound"}, {send(t, "PUT", topic, "", in...), 405, "MethodNotAllowed"},
		{post(t, topic, ""), 401, "Unauthorized"}, {post(t, topic, "", "Authorization", "Bearer x"), 401, "Unauthorized"},
		{post(t, topic, "{", append(in, "Content-Type", structuredType)...), 400, "MalformedEvent"}, {post(t, topic, "", append(in, "Content-Type", "application/cloudevents+x")...), 415, "UnsupportedMediaType"},
		{post(t, topic, strings.Repeat("x", 1025), in...), 413, "TooLarge"}, {send(t, "GET", topic, "", append(in, "Accept", "image/png")...), 406, "NotAcceptable"},
		{post(t, inbox+"/nowhere", ""), 404, "NotFound"}, {send(t, "GET", inbox+"/messages", ""), 405, "MethodNotAllowed"}, {post(t, inbox+"/messages/receive?max=0", ""), 400, "BadArgument"},
		{post(t, inbox+"/messages%2Freceive", ""), 404, "NotFound"}, {post(t, inbox+"%2fmessages", ""), 404, "NotFound"}, {post(t, root+"/default%2Ftopics/events/", "", in...), 404, "NotFound"},
		{post(t, root+"/default/topics/events%2F", "", in...), 404, "NotFound"}, {post(t, inbox+"/messages/receive?max=1;wait=1s", ""), 400, "BadArgument"},
		{post(t, inbox+"/messages/receive?wait=%zz", ""), 400, "BadArgument"}, {post(t, inbox+"/messages/receive?wait=0.2", ""), 400, "BadArgument"},
		{post(t, inbox+"/leases/x/reply?status=500;x", ""), 400, "BadArgument"}, {post(t, inbox+"/leases/x/nack?delay=%zz", ""), 400, "BadArgument"}, {post(t, inbox+"/leases/x/reject?reason=%", ""), 400, "BadArgument"},
		{post(t, inbox+"/leases/x/ack", ""), 410, ""}, {post(t, inbox+"/messages", "[]", "Content-Type", batchedType, "Prefer", "wait=1"), 400, "OneEventOnly"},
	} {
		c.a.problem(c.status, c.reason)
		var members map[string]any
		if c.a.read(&members); members["type"] != "about:blank" || members["title"] != http.StatusText(c.status) {
			t.Errorf("got %s", c.a.body)
		}
	}
}
