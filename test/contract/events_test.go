package contract

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const (
	structuredType = "application/cloudevents+json"
	batchedType    = "application/cloudevents-batch+json"
	traceParent    = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
)

// binaryHeaders are the headers of an event in binary mode, and more.
func binaryHeaders(id string, more ...string) []string {
	return append([]string{"ce-specversion", "1.0", "ce-id", id, "ce-source", "/s", "ce-type", "t"}, more...)
}

func structuredEvent(id, more string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/s","type":"t"%s}`, id, more)
}

// An inbox is a Mailbox that a test publishes to and reads from.
type inbox struct {
	t       *testing.T
	address string
}

func (b inbox) send(body string, headers ...string) answer {
	b.t.Helper()
	return post(b.t, b.address+"/messages", body, headers...)
}

// next is the one message that lies there, as its JSON members.
func (b inbox) next() map[string]json.RawMessage {
	b.t.Helper()
	got := receive(b.t, b.address, "wait=10s")
	if len(got) != 1 {
		b.t.Fatalf("%d messages", len(got))
	}
	post(b.t, b.address+"/leases/"+got[0].Lease+"/ack", "").want(http.StatusNoContent)
	var e map[string]json.RawMessage
	if err := json.Unmarshal(got[0].Event, &e); err != nil {
		b.t.Fatal(err)
	}
	return e
}

// wants checks members of the next message; "" wants that there is none of the name.
func (b inbox) wants(pairs ...string) {
	b.t.Helper()
	e := b.next()
	for i := 0; i < len(pairs); i += 2 {
		if got := string(e[pairs[i]]); got != pairs[i+1] {
			b.t.Errorf("%s is %s, want %s", pairs[i], got, pairs[i+1])
		}
	}
}

func (b inbox) empty() {
	b.t.Helper()
	if got := receive(b.t, b.address, "wait=0s&max=100"); len(got) != 0 {
		b.t.Fatalf("%d messages lie there: %s", len(got), got[0].Event)
	}
}

// inboxes runs Mailboxes of these names.
func inboxes(t *testing.T, names ...string) (*process, []inbox) {
	t.Helper()
	var docs []string
	for _, n := range names {
		docs = append(docs, "kind: Mailbox\nmetadata: {name: "+n+"}\nspec: {brokerRef: {name: main}, ordering: None}")
	}
	p := serve(t, docs...)
	var all []inbox
	for _, n := range names {
		all = append(all, inbox{t, p.at("Mailbox", n, "")})
	}
	return p, all
}

func TestEventsIn(t *testing.T) {
	t.Parallel()
	_, boxes := inboxes(t, "modes", "plain", "bad", "batch", "twice", "attributes", "bodies")
	in := func(t *testing.T, i int) inbox { return inbox{t, boxes[i].address} }

	t.Run("modes", func(t *testing.T) {
		t.Parallel()
		says(t, "E1", "E2", "E16", "E17", "E19")
		b := in(t, 0)
		b.send("[1]", binaryHeaders("b", "Content-Type", "application/json")...).want(202)
		b.wants("id", `"b"`, "source", `"/s"`, "type", `"t"`, "data", "[1]", "datacontenttype", `"application/json"`)
		for i, ct := range []string{structuredType, "Application/CloudEvents+JSON", structuredType + "; charset=utf-8", structuredType + ` ;charset="UTF-8"`} {
			b.send(structuredEvent(fmt.Sprint("s", i), `,"data":{"n":1.0}`), "Content-Type", ct).want(202)
			b.wants("id", fmt.Sprintf(`"s%d"`, i), "data", `{"n":1.0}`, "datacontenttype", `"application/json"`)
		}
		b.send(structuredEvent("text", `,"datacontenttype":"text/plain","data":"ä"`), "Content-Type", structuredType).want(202)
		b.wants("data", `"ä"`, "datacontenttype", `"text/plain"`)
		b.send("["+structuredEvent("x", "")+"]", "Content-Type", strings.ToUpper(batchedType)+"; charset=utf-8").want(202)
		b.wants("id", `"x"`, "data", "", "datacontenttype", "")
		for _, ct := range []string{"application/cloudevents", "application/cloudevents+xml", "application/cloudevents+avro", "application/cloudevents-batch+xml", "application/cloudevents-batch",
			structuredType + "; charset=iso-8859-1", batchedType + "; charset=utf-16"} {
			b.send(structuredEvent("no", ""), "Content-Type", ct).problem(415, "UnsupportedMediaType")
		}
		for _, coding := range []string{"gzip", "br", "deflate, gzip", "x-own"} {
			if a := b.send("\x1f\x8b", "Content-Encoding", coding, "Content-Type", "application/json"); a.problem(415, "UnsupportedMediaType") == "" || a.header.Get("Accept-Encoding") != "identity" {
				t.Errorf("%s: %v", coding, a.header)
			}
		}
		for _, ct := range []string{"text/plain; name=Grüße", "日/本"} {
			for _, a := range []answer{
				b.send("x", "Content-Type", ct), b.send("x", binaryHeaders("no", "Content-Type", ct)...),
				b.send(structuredEvent("no", `,"datacontenttype":"`+ct+`"`), "Content-Type", structuredType),
			} {
				if d := a.problem(400, "MalformedEvent"); !strings.Contains(d, "datacontenttype") {
					t.Error(d)
				}
			}
		}
		b.send("x", "Content-Type", `x-own/%41 (odd);;"`).want(202)
		b.wants("datacontenttype", `"x-own/%41 (odd);;\""`)
		b.send("plain", "Content-Encoding", "identity").want(202)
		b.wants("data_base64", `"cGxhaW4="`)
		if d := b.send(structuredEvent("no", `,"datacontenttype":"application/cloudevents+json","data":{}`), "Content-Type", structuredType).problem(400, "MalformedEvent"); !strings.Contains(d, "datacontenttype") {
			t.Error(d)
		}
		b.empty()
	})

	t.Run("plain bodies", func(t *testing.T) {
		t.Parallel()
		says(t, "E3", "E4", "E11")
		b := in(t, 1)
		var got struct{ ID, State string }
		b.send("a,ü", "Content-Type", "text/csv; charset=utf-8").want(202).read(&got)
		b.wants("id", fmt.Sprintf("%q", got.ID), "type", `"dev.waybill.message"`, "source", `"/default/mailboxes/plain"`, "datacontenttype", `"text/csv; charset=utf-8"`, "data", `"a,ü"`)
		first := got.ID
		b.send("again").want(202).read(&got)
		if b.next(); got.ID == "" || got.ID == first || got.State != "Stored" {
			t.Errorf("generated %q and %q", first, got.ID)
		}
		for key, id := range map[string]string{"order 1/ü": "order 1/ü", `"quoted"`: "quoted", `"a\"b\\"`: `a"b\`, "%41": "%41"} {
			if b.send("{}", "Idempotency-Key", key, "Content-Type", "application/json").want(202).read(&got); got.ID != id {
				t.Errorf("key %s became %q", key, got.ID)
			}
			b.wants("id", fmt.Sprintf("%q", id), "data", "{}")
		}
		for ct, member := range map[string]string{
			"": "data_base64", "application/octet-stream": "data_base64", "application/json; charset=latin1": "data_base64", "text/plain; charset=iso-8859-1": "data_base64",
			"text/plain": "data", "application/xml": "data", "image/svg+xml": "data", "application/problem+json": "data", "Application/JSON;charset=UTF-8": "data",
		} {
			headers := []string{"Content-Type", ct}
			if ct == "" {
				headers = nil
			}
			body := "7.0 and"
			if strings.Contains(strings.ToLower(ct), "json") {
				body = "7.0"
			}
			b.send(body, headers...).want(202)
			if e := b.next(); e[member] == nil || len(e[member]) == 3 && string(e[member]) != "7.0" {
				t.Errorf("%s: %s %s", ct, e["data"], e["data_base64"])
			}
		}
		b.send("\xff", "Content-Type", "text/plain").want(202)
		b.wants("data", "", "data_base64", `"/w=="`)
		b.send("", "Content-Type", "text/plain").want(202)
		b.wants("data", "", "data_base64", "", "datacontenttype", `"text/plain"`)
		b.send("x", "Idempotency-Key", "").problem(400, "MalformedEvent")
		b.send("x", "Idempotency-Key", "a", "Idempotency-Key", "b").problem(400, "MalformedEvent")
		b.send("x", "Content-Type", "json").problem(400, "MalformedEvent")
		b.empty()
	})

	t.Run("malformed", func(t *testing.T) {
		t.Parallel()
		says(t, "E5", "E14")
		b := in(t, 2)
		long := strings.Repeat("x", 16<<10)
		for _, c := range []struct {
			names   string
			headers []string
			body    string
		}{
			{"id", []string{"ce-specversion", "1.0", "ce-source", "/s", "ce-type", "t"}, ""},
			{"source", []string{"ce-specversion", "1.0", "ce-id", "1", "ce-type", "t"}, ""},
			{"type", []string{"ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s"}, ""},
			{"specversion", []string{"ce-id", "1", "ce-source", "/s", "ce-type", "t"}, ""},
			{"specversion", []string{"ce-specversion", "0.3", "ce-id", "1", "ce-source", "/s", "ce-type", "t"}, ""},
			{"source", []string{"ce-specversion", "1.0", "ce-id", "1", "ce-source", "a b", "ce-type", "t"}, ""},
			{"time", binaryHeaders("1", "ce-time", "yesterday"), ""},
			{"time", binaryHeaders("1", "ce-time", "2026-01-01T00:00:00,5Z"), ""},
			{"time", binaryHeaders("1", "ce-time", "2026-01-01T0:00:00Z"), ""},
			{"expirytime", binaryHeaders("1", "ce-expirytime", "2026-01-01T00:00:00+24:00"), ""},
			{"subject", binaryHeaders("1", "ce-subject", ""), ""},
			{"A_b", binaryHeaders("1", "ce-a_b", "x"), ""},
			{"data", binaryHeaders("1", "ce-data", "x"), ""},
			{"datacontenttype", binaryHeaders("1", "ce-datacontenttype", "text/plain"), ""},
			{"x", binaryHeaders("1", "ce-x", "%ff"), ""},
			{"id: is given twice", binaryHeaders("1", "Ce-Id", "1"), ""},
			{"x: is given twice", binaryHeaders("1", "ce-x", "a", "CE-X", "b"), ""},
			{"x: contains a control character", binaryHeaders("1", "ce-x", "a%0d%0aEvil: b"), ""},
			{"x: contains a control character", binaryHeaders("1", "ce-x", "%C2%85"), ""},
			{"attributes", binaryHeaders("1", extensions(61)...), ""},
			{"attributes", binaryHeaders("1", "ce-x", long), ""},
			{"not JSON", []string{"Content-Type", structuredType}, "{"},
			{"byte order mark", []string{"Content-Type", structuredType}, "\ufeff" + structuredEvent("1", "")},
			{"not UTF-8", []string{"Content-Type", structuredType}, structuredEvent("1", ",\"subject\":\"\xff\"")},
			{"JSON object", []string{"Content-Type", structuredType}, "[]"},
			{"JSON array", []string{"Content-Type", batchedType}, "{}"},
			{"id: is given twice", []string{"Content-Type", structuredType}, structuredEvent("1", `,"id":"2"`)},
			{"subject: contains a control character", []string{"Content-Type", structuredType}, structuredEvent("1", `,"subject":"a\nb"`)},
			{"subject: has half of a surrogate pair", []string{"Content-Type", structuredType}, structuredEvent("1", `,"subject":"\ud800"`)},
			{"x", []string{"Content-Type", structuredType}, structuredEvent("1", `,"x":1.5`)},
			{"data_base64", []string{"Content-Type", structuredType}, structuredEvent("1", `,"data":1,"data_base64":"MQ=="`)},
			{"attributes", []string{"Content-Type", structuredType}, structuredEvent("1", members(61))},
			{"attributes", []string{"Content-Type", structuredType}, structuredEvent("1", `,"x":"`+long+`"`)},
		} {
			if d := b.send(c.body, c.headers...).problem(400, "MalformedEvent"); !strings.Contains(d, c.names) || strings.Contains(d, "yesterday") {
				t.Errorf("want something of %q, got %q", c.names, d)
			}
		}
		b.empty()
		for _, at := range []string{"2016-12-31T23:59:60Z", "2026-01-01t00:00:00.50z"} {
			b.send("", binaryHeaders(at, "ce-time", at, "ce-expirytime", at)...).want(202)
			b.wants("time", `"`+at+`"`, "expirytime", `"`+at+`"`)
		}
		// As much as there may be: id, source, type and 61 more; the names and values of these take 16 KiB.
		b.send("", binaryHeaders("n60", extensions(60)...)...).want(202)
		if e := b.next(); string(e["ext59"]) != `"v"` {
			t.Error(e)
		}
		b.send("", binaryHeaders("n61", append(extensions(60), "ce-last", "v")...)...).want(202)
		b.next()
		again := append(extensions(60), "ce-last", "v", "traceparent", traceParent, "tracestate", "a=1", "ce-expirytime", "2026-01-01T00:00:00Z")
		for i := range 10 { // and what comes of a dead letter
			again = append(again, fmt.Sprint("ce-wb", i), "v")
		}
		b.send("", binaryHeaders("n61 again", again...)...).want(202)
		if e := b.next(); string(e["last"]) != `"v"` || string(e["traceparent"]) != `"`+traceParent+`"` || e["wb0"] != nil {
			t.Error(e)
		}
		room := 16<<10 - len("id1source/stypet") - len("x") // and their names
		b.send("", binaryHeaders("1", "ce-x", strings.Repeat("x", room))...).want(202)
		b.next()
		b.send("", binaryHeaders("1", "ce-x", strings.Repeat("x", room+1))...).problem(400, "MalformedEvent")
		b.send("", binaryHeaders("2", "ce-x", strings.Repeat("%20", room))...).want(202) // the decoded value counts
		if e := b.next(); len(e["x"]) != room+2 {
			t.Error(len(e["x"]))
		}
		b.empty()
	})

	t.Run("batches", func(t *testing.T) {
		t.Parallel()
		says(t, "E6", "E7")
		b := in(t, 3)
		var got struct {
			State string
			IDs   []string
		}
		b.send(" [ ] ", "Content-Type", batchedType).want(202).read(&got)
		if got.State != "Stored" || got.IDs == nil || len(got.IDs) != 0 {
			t.Errorf("an empty batch: %+v", got)
		}
		b.send("[]", "Content-Type", batchedType, "Prefer", "respond-async").want(202).read(&got)
		if got.State != "Accepted" {
			t.Errorf("an empty batch: %+v", got)
		}
		a := b.send("["+structuredEvent("0", "")+`,{"specversion":"1.0"},7,`+structuredEvent("3", `,"data":"`+strings.Repeat("x", 512<<10)+`"`)+","+structuredEvent("4", "")+","+structuredEvent("5", `,"x":{}`)+"]",
			"Content-Type", batchedType)
		a.problem(422, "BadMember")
		var p struct {
			Errors []struct {
				Index  *int
				Detail string
			}
		}
		a.read(&p)
		var indexes []int
		for _, e := range p.Errors {
			if e.Index == nil || e.Detail == "" {
				t.Fatal(a.body)
			}
			indexes = append(indexes, *e.Index)
		}
		if fmt.Sprint(indexes) != "[1 2 3 5]" {
			t.Errorf("faults at %v: %s", indexes, a.body)
		}
		b.empty()
		b.send("["+structuredEvent("a", "")+"\n,"+structuredEvent("b", "")+"]", "Content-Type", batchedType).want(202).read(&got)
		if got.State != "Stored" || fmt.Sprint(got.IDs) != "[a b]" {
			t.Errorf("got %+v", got)
		}
		b.next()
		b.next()
		var many []string
		for i := range 10_001 {
			many = append(many, structuredEvent(fmt.Sprint("m", i), ""))
		}
		b.send("["+strings.Join(many, ",")+"]", "Content-Type", batchedType).problem(413, "BatchTooLarge")
		b.empty()
	})

	t.Run("the same again", func(t *testing.T) {
		t.Parallel()
		says(t, "E9")
		b := in(t, 4)
		b.send("first", binaryHeaders("1")...).want(202)
		b.send("second", binaryHeaders("1")...).want(202)
		b.send(structuredEvent("1", `,"data":3`), "Content-Type", structuredType).want(202)
		b.send("["+structuredEvent("1", "")+","+structuredEvent("2", `,"data":4`)+","+structuredEvent("2", `,"data":5`)+"]", "Content-Type", batchedType).want(202)
		b.send("plain", "Idempotency-Key", "1").want(202) // another source
		b.send("plain again", "Idempotency-Key", "1").want(202)
		b.send("x", "ce-specversion", "1.0", "ce-id", "s", "ce-source", "1/", "ce-type", "t").want(202) // no mixture of source and id is the same
		b.send("x", "ce-specversion", "1.0", "ce-id", "/s", "ce-source", "1", "ce-type", "t").want(202)
		var seen []string
		for range 5 {
			e := b.next()
			seen = append(seen, string(e["source"])+string(e["id"])+string(e["data"])+string(e["data_base64"]))
		}
		want := map[string]bool{`"/s""1""Zmlyc3Q="`: true, `"/s""2"4`: true, `"/default/mailboxes/twice""1""cGxhaW4="`: true, `"1/""s""eA=="`: true, `"1""/s""eA=="`: true}
		for _, s := range seen {
			if !want[s] {
				t.Errorf("got %s", s)
			}
			delete(want, s)
		}
		b.empty()
	})

	t.Run("attributes", func(t *testing.T) {
		t.Parallel()
		says(t, "E8", "E12", "E13")
		b := in(t, 5)
		b.send("", binaryHeaders("1", "ce-partitionkey", "k%20%C3%BC", "ce-flag", "true", "ce-time", "2026-03-01T09:12:44.100+01:00", "ce-subject", `"a \"b\""`, "ce-dataschema", "/x#y",
			"ce-wbreason", "Terminal", "ce-wbreplyto", "_INBOX.x", "ce-wb", "x", "X-Own", "no", "baggage", "user=7", "ce-baggage", "a=1")...).want(202)
		b.wants("partitionkey", `"k ü"`, "flag", `"true"`, "time", `"2026-03-01T09:12:44.100+01:00"`, "subject", `"a \"b\""`, "dataschema", `"/x#y"`,
			"wbreason", "", "wbreplyto", "", "wb", "", "xown", "", "baggage", `"a=1"`)
		b.send(structuredEvent("2", `,"partitionkey":"k","n":-7,"off":false,"gone":null,"wborigin":"x","wbhops":17`), "Content-Type", structuredType, "baggage", "user=7").want(202)
		b.wants("partitionkey", `"k"`, "n", `"-7"`, "off", `"false"`, "gone", "", "wborigin", "", "wbhops", "", "baggage", "")
		other := strings.Replace(traceParent, "0af", "fff", 1)
		for _, c := range []struct {
			id, body string
			headers  []string
		}{
			{"3", "", binaryHeaders("3")}, {"4", "", nil}, {"5", structuredEvent("5", ""), []string{"Content-Type", structuredType}},
			{"6", "[" + structuredEvent("6", "") + "]", []string{"Content-Type", batchedType}},
		} {
			b.send(c.body, append(c.headers, "traceparent", traceParent, "tracestate", "a=1", "tracestate", "b=2")...).want(202)
			b.wants("traceparent", `"`+traceParent+`"`, "tracestate", `"a=1,b=2"`)
		}
		b.send("", binaryHeaders("7", "traceparent", traceParent, "tracestate", "a=1", "ce-traceparent", other)...).want(202)
		b.wants("traceparent", `"`+other+`"`, "tracestate", "")
		b.send("", "traceparent", "nonsense", "tracestate", "a=1").want(202)
		b.wants("traceparent", "", "tracestate", "")
		b.empty()
	})

	t.Run("bodies", func(t *testing.T) {
		t.Parallel()
		says(t, "E18")
		b := in(t, 6)
		url := b.address + "/messages"
		if a := raw(t, url, "POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n", false); a.StatusCode != 202 {
			t.Error(a.Status)
		}
		b.wants("data", "[1,2]")
		if a := raw(t, url, "POST %s HTTP/1.0\r\nContent-Length: 3\r\nContent-Type: application/json\r\n\r\n[1]", false); a.StatusCode != 202 {
			t.Error(a.Status)
		}
		b.wants("data", "[1]")
		if a := raw(t, url, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nshort", true); a.StatusCode != 400 || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Error(a.Status, a.Header)
		}
		if a := raw(t, url, "POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", true); a.StatusCode != 400 || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Error(a.Status, a.Header)
		}
		if a := raw(t, url, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\nabcdefg", false); a.StatusCode != 202 {
			t.Error(a.Status)
		}
		b.wants("data", `"abc"`)
		b.empty()
	})
}

func extensions(n int) []string {
	var h []string
	for i := range n {
		h = append(h, fmt.Sprint("ce-ext", i), "v")
	}
	if n > 60 {
		h = append(h, "ce-last", "v")
	}
	return h
}

func members(n int) string {
	var b strings.Builder
	for i := range n + 1 {
		fmt.Fprintf(&b, `,"ext%d":"v"`, i)
	}
	return b.String()
}
