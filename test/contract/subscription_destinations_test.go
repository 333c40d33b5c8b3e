package contract

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestTheFourDestinations(t *testing.T) {
	t.Parallel()
	says(t, "F10")
	subscriber := subscribe(t, nil)
	v6 := subscribeOn(t, "[::1]:0")
	to := func(name, destination string) string {
		return "kind: Subscription\nmetadata: {name: " + name + "}\nspec: {topicRef: {name: in}, deliverTo: {" + destination + "}}"
	}
	file := manifest(t, broker,
		"kind: Topic\nmetadata: {name: in}\nspec: {brokerRef: {name: main}}", "kind: Topic\nmetadata: {name: out}\nspec: {brokerRef: {name: main}}",
		"kind: Mailbox\nmetadata: {name: box}\nspec: {brokerRef: {name: main}}",
		to("uri", "uri: '"+subscriber.URL+"/uri/a%2Fb?q=1&r=%20'"), to("v6", "uri: '"+v6.URL+"/v6'"),
		to("service", "serviceRef: {name: billing, port: 8000, path: /events}"), to("defaults", "serviceRef: {name: plain}"),
		to("mailbox", "mailboxRef: {name: box}"), to("topic", "topicRef: {name: out}"),
		"kind: Subscription\nmetadata: {name: behind}\nspec: {topicRef: {name: out}, deliverTo: {uri: '"+subscriber.URL+"/behind'}}",
		// The same address elsewhere.
		"kind: Pipeline\nmetadata: {name: pipe}\nspec: {from: {topicRef: {name: in}}, steps: [{name: call, http: {uri: '"+subscriber.URL+"/step'}}], to: {http: {uri: '"+subscriber.URL+"/end'}}}",
		"kind: Pipeline\nmetadata: {name: pipe2}\nspec: {from: {topicRef: {name: in}}, steps: [{name: call, http: {serviceRef: {name: billing, port: 8000, path: /step2}}}], to: {http: {serviceRef: {name: plain, path: /end2}}}}",
	)
	p := start(t, "-f", file, "--ephemeral", "--service", "billing:8000="+subscriber.URL+"/base", "--service", "plain="+subscriber.URL).awaitUp()
	post(t, p.at("Topic", "in", "/"), "hello", "Idempotency-Key", "1", "Content-Type", "text/plain").want(http.StatusAccepted)
	paths := func() []string {
		var all []string
		for _, p := range subscriber.all() {
			all = append(all, p.path)
		}
		slices.Sort(all)
		return all
	}
	// A step that answers 204 drops the event: nothing comes to /end.
	want := []string{"/", "/base/events", "/base/step2", "/behind", "/step", "/uri/a/b"}
	eventually(t, fmt.Sprintf("pushes to %v", want), func() bool { return len(paths()) >= len(want) })
	if got := paths(); !slices.Equal(got, want) {
		t.Errorf("pushes to %v, want %v", got, want)
	}
	for _, got := range append(subscriber.all(), v6.await(1)...) {
		if got.header.Get("Ce-Id") != "1" || got.body != "hello" || got.header.Get("Ce-Source") != "/default/topics/in" {
			t.Errorf("%s got %q %q", got.path, got.header, got.body)
		}
	}
	if l := take(t, p.at("Mailbox", "box", ""), 1)[0]; l.attribute(t, "id") != "1" || l.attribute(t, "data") != "hello" || l.attribute(t, "source") != "/default/topics/in" {
		t.Errorf("the mailbox has %s", l.Event)
	}
}

func subscribeOn(t *testing.T, address string) *subscriber {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("this machine has no IPv6 loopback: %v", err)
	}
	s := subscribe(t, nil)
	second := httptest.NewUnstartedServer(s.Config.Handler)
	second.Listener.Close()
	second.Listener = l
	second.Start()
	t.Cleanup(second.Close)
	s.URL = second.URL
	return s
}

func TestAddressesThatCannotBeCalledAreRefused(t *testing.T) {
	t.Parallel()
	says(t, "F10")
	validate := func(destination string) (code int, out string) {
		file := manifest(t, broker, "kind: Topic\nmetadata: {name: in}\nspec: {brokerRef: {name: main}}",
			"kind: Subscription\nmetadata: {name: s}\nspec:\n  topicRef: {name: in}\n  deliverTo: {"+destination+"}")
		code, out, _ = waybill(t, "validate", "-f", file, "-o", "json")
		return code, out
	}
	for uri, word := range map[string]string{
		"http://user:s3cret@example.com/":     "credentials",
		"http://s3cret@example.com/":          "credentials",
		"http://example.com/#fragment":        "fragment",
		"ftp://example.com/":                  "http or https",
		"example.com/events":                  "http or https",
		"http:/example.com":                   "http or https",
		"http://":                             "http or https",
		"http://:8080/":                       "http or https",
		"unix:///run/x.sock":                  "http or https",
		"file:///etc/passwd":                  "http or https",
		"http://example.com:0/":               "port",
		"http://example.com:99999/":           "port",
		"http://example.com:port/":            "",
		"http://[::1/":                        "",
		"http://exa mple.com/":                "",
		"http://example.com/%zz":              "",
		"//example.com/":                      "http or https",
		"javascript:alert(1)":                 "http or https",
		"http://" + strings.Repeat("x", 3000): "2048",
	} {
		code, out := validate("uri: '" + uri + "'")
		if code != 1 || !strings.Contains(out, `"field":"spec.deliverTo.uri"`) || !strings.Contains(out, word) || !strings.Contains(out, `"line":`) {
			t.Errorf("%.60s: %d: %s", uri, code, out)
		}
		if strings.Contains(out, "s3cret") {
			t.Errorf("the refusal of %s repeats its credentials: %s", uri, out)
		}
	}
	for _, uri := range []string{"http://example.com", "https://example.com:8443/a?b=c", "http://[::1]:8080/x", "http://[fe80::1%25eth0]/x", "http://127.0.0.1", "HTTP://EXAMPLE.com/"} {
		code, out := validate("uri: '" + uri + "'")
		if strings.HasPrefix(uri, "HTTP") { // schemes are written small in manifests
			if code != 1 || !strings.Contains(out, "http or https") {
				t.Errorf("%s: %d: %s", uri, code, out)
			}
			continue
		}
		if code != 0 {
			t.Errorf("%s: %d: %s", uri, code, out)
		}
	}
	for destination, field := range map[string]string{
		"": "spec.deliverTo", "uri: 'http://a', mailboxRef: {name: in}": "spec.deliverTo", "serviceRef: {name: x, port: 0}": "spec.deliverTo.serviceRef.port",
		"serviceRef: {name: x, path: events}": "spec.deliverTo.serviceRef.path", "topicRef: {name: in}": "spec.deliverTo.topicRef", "mailboxRef: {name: nobody}": "spec.deliverTo.mailboxRef",
	} {
		if code, out := validate(destination); code != 1 || !strings.Contains(out, `"field":"`+field+`"`) {
			t.Errorf("deliverTo {%s}: %d: %s", destination, code, out)
		}
	}
}

func TestAnEventInTheAnswerGoesToTheReplyTopic(t *testing.T) {
	t.Parallel()
	says(t, "P21")
	write := func(contentType, body string) func(w http.ResponseWriter, p pushed, n int) {
		return func(w http.ResponseWriter, _ pushed, _ int) {
			w.Header().Set("Content-Type", contentType)
			_, _ = io.WriteString(w, body)
		}
	}
	const structured = `{"specversion":"1.0","id":"%s","source":"/billing","type":"billed","datacontenttype":"application/json","data":{"n": 1.0}}`
	reply := []string{"reply: {topicRef: {name: out}}", "retry: {maxAttempts: 2, " + soon + "}"}
	routes := []route{
		{name: "binary", spec: reply, answer: func(w http.ResponseWriter, _ pushed, _ int) {
			for k, v := range map[string]string{"Ce-Id": "binary", "Ce-Source": "/billing", "Ce-Type": "billed", "Ce-Specversion": "1.0", "Ce-Partitionkey": "k", "Ce-Color": "red", "Ce-Wbhops": "0", "Ce-Wbreason": "Terminal", "Content-Type": "application/x-bill"} {
				w.Header().Set(k, v)
			}
			_, _ = w.Write([]byte("\x00\xff"))
		}},
		{name: "structured", spec: reply, answer: write("application/cloudevents+json; charset=utf-8", fmt.Sprintf(structured, "structured"))},
		{name: "batch", spec: reply, answer: write("application/cloudevents-batch+json", "["+fmt.Sprintf(structured, "batch-0")+","+fmt.Sprintf(structured, "batch-1")+"]")},
		{name: "nobatch", spec: reply, answer: write("application/cloudevents-batch+json", "[]")},
		{name: "plain", spec: reply, answer: write("application/json", `{"ok":true}`)},
		{name: "huge", spec: reply, answer: write("text/plain", strings.Repeat("x", 3<<20))},
		{name: "empty", spec: reply, answer: always(204)},
		{name: "retried", spec: reply, answer: func(w http.ResponseWriter, p pushed, n int) {
			if n == 1 { // an event in an answer that is no 2xx is none
				w.Header().Set("Content-Type", "application/cloudevents+json")
				w.WriteHeader(500)
				_, _ = fmt.Fprintf(w, structured, "refused")
				return
			}
			write("application/cloudevents+json", fmt.Sprintf(structured, "retried"))(w, p, n)
		}},
		{name: "without", spec: reply[1:], answer: write("application/cloudevents+json", fmt.Sprintf(structured, "without"))},
		{name: "malformed", spec: reply, answer: write("application/cloudevents+json", `{"specversion":"1.0"}`)},
		{name: "xml", spec: reply, answer: write("application/cloudevents+xml", "<event/>")},
		{name: "zipped", spec: reply, answer: func(w http.ResponseWriter, _ pushed, _ int) {
			w.Header().Set("Content-Type", "application/cloudevents+json")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = fmt.Fprintf(z, structured, "zipped")
			_ = z.Close()
		}},
		{name: "cut", spec: reply, answer: func(w http.ResponseWriter, _ pushed, _ int) {
			w.Header().Set("Content-Length", "1000")
			write("application/cloudevents+json", `{"specversion"`)(w, pushed{}, 0)
		}},
		{name: "toolarge", spec: reply, answer: write("application/cloudevents+json", fmt.Sprintf(`{"specversion":"1.0","id":"l","source":"/s","type":"t","data":"%s"}`, strings.Repeat("x", 2<<20)))},
	}
	r := push(t, routes, "kind: Topic\nmetadata: {name: out}\nspec: {brokerRef: {name: main}}", "kind: Mailbox\nmetadata: {name: out}\nspec: {brokerRef: {name: main}}",
		"kind: Subscription\nmetadata: {name: out}\nspec: {topicRef: {name: out}, deliverTo: {mailboxRef: {name: out}}}")
	for _, to := range routes {
		r.publish(to.name, "1")
	}
	for _, to := range routes {
		switch s := r.outcome(to.name); to.name {
		case "malformed", "xml", "cut", "toolarge":
			d := r.dead(to.name, 1)[0]
			if d.attribute(t, "wbreason") != "AttemptsExhausted" || len(r.pushes(to.name)) != 2 {
				t.Errorf("%s: %d pushes, dead-lettered as %s", to.name, len(r.pushes(to.name)), d.Event)
			}
		default:
			if s.Counts.Out != 1 || s.Counts.DeadLettered != 0 {
				t.Errorf("%s: %+v", to.name, s)
			}
		}
	}
	got := map[string]lent{}
	for _, l := range take(t, r.at("Mailbox", "out", ""), 6) {
		got[l.attribute(t, "id")] = l
	}
	for _, id := range []string{"binary", "structured", "batch-0", "batch-1", "retried", "zipped"} {
		if l, ok := got[id]; !ok || l.attribute(t, "source") != "/billing" || l.attribute(t, "type") != "billed" || id != "binary" && l.attribute(t, "data") != `{"n": 1.0}` {
			t.Errorf("the reply topic has of %s: %s", id, l.Event)
		}
	}
	if b := got["binary"]; b.attribute(t, "data_base64") != "AP8=" || b.attribute(t, "partitionkey") != "k" || b.attribute(t, "color") != "red" || b.attribute(t, "datacontenttype") != "application/x-bill" || b.attribute(t, "wbreason") != "" {
		t.Errorf("a reply in binary mode is %s", b.Event)
	}
	if len(got) != 6 {
		t.Errorf("the reply topic has %d events, want 6: %v", len(got), got)
	}
	r.signal(os.Interrupt)
}
