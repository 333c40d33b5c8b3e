package contract

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const topicSchema = `{"type":"object","required":["total"],"additionalProperties":false,"properties":{"total":{"type":"number","minimum":0},
  "lines":{"type":"array","items":{"$ref":"#/$defs/line"}},"a/b~c":{"const":1}},"$defs":{"line":{"type":"object","required":["sku"],"properties":{"sku":{"type":"string"}}}}}`

func TestTopic(t *testing.T) {
	t.Parallel()
	p := serve(t,
		"kind: Topic\nmetadata: {name: open}\nspec: {brokerRef: {name: main}}",
		"kind: Topic\nmetadata: {name: short}\nspec: {brokerRef: {name: main}, retention: {maxBytes: 4Ki}}",
		"kind: Topic\nmetadata: {name: strict}\nspec: {brokerRef: {name: main}, schema: {jsonSchema: "+topicSchema+"}}")

	t.Run("publish", func(t *testing.T) {
		t.Parallel()
		says(t, "T1", "T2", "A1", "A3", "A6")
		base := p.ready("Topic", "open").Address
		if !strings.HasSuffix(base, "/default/topics/open") {
			t.Error(base)
		}
		encoded := strings.Replace(base, "/topics/", "/%74opics/", 1)
		for i, url := range []string{base, base + "/", base + "?", base + "/?a=b&c=%2F", encoded, encoded + "/"} {
			for prefer, state := range map[string]string{"": "Stored", "respond-async": "Accepted", `wait=10, respond-async; x="y"`: "Accepted", "wait=no, Respond-Async": "Accepted", "return=minimal": "Stored"} {
				id := fmt.Sprint(i, prefer)
				a := post(t, url, "{}", "Idempotency-Key", id, "Prefer", prefer).want(202)
				var got struct{ ID, State string }
				if a.read(&got); got.ID != id || got.State != state || a.header.Get("Content-Type") != "application/json" {
					t.Errorf("%s with Prefer %q: %s %v", url, prefer, a.body, a.header)
				}
			}
		}
		for _, method := range []string{"PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
			a := send(t, method, base+"/", "")
			if a.problem(405, "MethodNotAllowed"); a.header.Get("Allow") != "POST, GET" {
				t.Errorf("%s: %v", method, a.header)
			}
		}
		if a := send(t, "HEAD", base, "").want(405); a.header.Get("Allow") != "POST, GET" {
			t.Error(a.header)
		}
		for _, path := range []string{"/x", "//", "/%2F", "/.", "/messages"} {
			post(t, base+path, "").problem(404, "NotFound")
		}
		for _, path := range []string{"x", "/", "/%2e%2e"} { // another Topic, or none
			post(t, strings.TrimSuffix(base, "open")+"o"+path, "").problem(404, "NotFound")
		}
	})

	t.Run("live", func(t *testing.T) {
		t.Parallel()
		says(t, "T3", "T4", "T5")
		topic := p.at("Topic", "short", "")
		publish := func(id, data string) {
			post(t, topic, data, "Idempotency-Key", id, "Content-Type", "application/json").want(202)
		}
		want := func(l *listener, id string) liveEvent {
			t.Helper()
			e := l.next()
			var event struct{ SpecVersion, ID, Source, Type string }
			if err := json.Unmarshal([]byte(e.data), &event); err != nil || event.ID != id || event.SpecVersion != "1.0" || event.Source != "/default/topics/short" || e.id == "" || e.event != "" {
				t.Fatalf("got %+v (%v), want %s", e, err, id)
			}
			return e
		}
		publish("before", "0")
		a, b := listen(t, topic, "Accept", "text/html, text/event-stream;q=0.5"), listen(t, topic+"/", "Accept", "*/*")
		publish("1", "{\r\n\"n\":\r1.0\n}")
		publish("2", "2")
		first := want(a, "1")
		if !strings.HasSuffix(first.data, ",\"data\":{\n\"n\":\n1.0\n}}") {
			t.Errorf("got %q", first.data)
		}
		second := want(a, "2")
		if same := want(b, "1"); same != first {
			t.Errorf("two readers got %+v and %+v", first, same)
		}
		a.cancel()
		publish("3", "3")
		again := listen(t, topic, "Last-Event-ID", first.id)
		want(again, "2")
		want(again, "3")
		publish("4", "4")
		want(again, "4")
		from2 := listen(t, topic, "Last-Event-ID", second.id)
		want(from2, "3")

		for i := range 8 {
			publish(fmt.Sprint("large-", i), `"`+strings.Repeat("x", 1000)+`"`)
		}
		late := listen(t, topic, "Last-Event-ID", first.id)
		gap := late.next()
		var bounds struct{ From, To string }
		if err := json.Unmarshal([]byte(gap.data), &bounds); err != nil || gap.event != "gap" || gap.id != "" || bounds.From != first.id {
			t.Fatalf("got %+v, want a gap", gap)
		}
		oldest := late.next()
		if oldest.id != bounds.To || !strings.Contains(oldest.data, `"id":"large-`) {
			t.Errorf("%+v follows the gap to %s", oldest, bounds.To)
		}
		if newest := listen(t, topic, "Last-Event-ID", oldest.id).next(); newest.event != "" {
			t.Errorf("a gap behind what is there: %+v", newest)
		}

		send(t, "GET", topic, "", "Accept", "application/json").problem(406, "NotAcceptable")
		send(t, "GET", topic, "", "Accept", "text/event-stream;q=0").problem(406, "NotAcceptable")
		send(t, "GET", topic, "", "Accept", "text/event-stream; q=0.00").problem(406, "NotAcceptable")
		for _, id := range []string{"x", "AA", first.id + "A", listen1(t, p.at("Topic", "open", ""))} {
			send(t, "GET", topic, "", "Accept", "text/event-stream", "Last-Event-ID", id).problem(400, "BadArgument")
		}
	})

	t.Run("schema", func(t *testing.T) {
		t.Parallel()
		says(t, "T6", "E6")
		topic := p.at("Topic", "strict", "")
		l := listen(t, topic)
		post(t, topic, `{"total":1.50,"lines":[{"sku":"a"}],"a/b~c":1.0}`, "Content-Type", "application/json", "Idempotency-Key", "good").want(202)
		type fault struct {
			Index        *int
			Path, Detail string
		}
		type refusal struct {
			ID     string
			Errors []fault
		}
		for _, c := range []struct{ body, paths string }{
			{`{"total":"S3CRET"}`, "/total"}, {`{"total":-1}`, "/total"}, {`{}`, ""}, {`[]`, ""}, {`{"total":1,"S3CRET":2}`, ""}, {`{"total":1,"a/b~c":"S3CRET"}`, "/a~1b~0c"},
			{`{"total":"S3CRET","lines":[{"sku":"a"},{"sku":7},{}]}`, "/lines/1/sku /lines/2 /total"}, {`{"total":`, ""}, {"\ufeff{}", ""}, {"", ""}, {`{"total":1e999999999}`, ""},
		} {
			a := post(t, topic, c.body, "Content-Type", "application/json", "Idempotency-Key", "bad")
			a.problem(422, "SchemaViolation")
			var r refusal
			a.read(&r)
			paths := map[string]bool{}
			for _, e := range r.Errors {
				paths[e.Path] = true
				if e.Detail == "" || e.Index != nil {
					t.Errorf("%s: %s", c.body, a.body)
				}
			}
			for path := range strings.SplitSeq(c.paths, " ") {
				if !paths[path] {
					t.Errorf("%s: %s is not named: %s", c.body, path, a.body)
				}
			}
			if len(paths) != len(strings.Split(c.paths, " ")) || strings.Contains(a.body, "S3CRET") || r.ID != "bad" {
				t.Errorf("%s: %s", c.body, a.body)
			}
		}
		post(t, topic, `{"total":1}`, "Content-Type", "text/plain").problem(422, "SchemaViolation")
		post(t, topic, structuredEvent("x", `,"data_base64":"AAE="`), "Content-Type", structuredType).problem(422, "SchemaViolation")

		var r refusal
		a := post(t, topic, "["+structuredEvent("0", `,"data":{"total":1}`)+","+structuredEvent("1", `,"data":{"total":"S3CRET"}`)+",{},"+structuredEvent("3", `,"data":{"total":1,"lines":[{}]}`)+"]", "Content-Type", batchedType)
		a.problem(422, "BadMember")
		a.read(&r)
		var at []string
		for _, e := range r.Errors {
			at = append(at, fmt.Sprint(*e.Index, e.Path))
		}
		if fmt.Sprint(at) != "[1/total 2 3/lines/0]" {
			t.Errorf("faults at %v: %s", at, a.body)
		}
		post(t, topic, "["+structuredEvent("0", `,"data":{"total":1}`)+","+structuredEvent("1", "")+"]", "Content-Type", batchedType).problem(422, "SchemaViolation")

		post(t, topic, `{"total":0}`, "Content-Type", "application/vnd.acme+json", "Idempotency-Key", "last").want(202)
		if e := l.next(); !strings.Contains(e.data, `"id":"good"`) {
			t.Errorf("got %+v", e)
		}
		if e := l.next(); !strings.Contains(e.data, `"id":"last"`) { // nothing between them was stored
			t.Errorf("got %+v", e)
		}
	})
}

// listen1 is the id of a live event of a topic.
func listen1(t *testing.T, topic string) string {
	t.Helper()
	l := listen(t, topic)
	post(t, topic, "").want(202)
	return l.next().id
}

func TestSchemasReferToThemselvesOnly(t *testing.T) {
	t.Parallel()
	says(t, "T7")
	secret := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(secret, []byte(`{"type":"object"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := subscribe(t, func(w http.ResponseWriter, _ pushed) { _, _ = w.Write([]byte(`{}`)) })
	for _, ref := range []string{asked.URL + "/schema.json", "file://" + secret, "other.json", "urn:x:y", "#/$defs/none"} {
		code, out, errs := waybill(t, "validate", "-f", manifest(t, broker, `kind: Topic
metadata: {name: t}
spec: {brokerRef: {name: main}, schema: {jsonSchema: {properties: {a: {$ref: "`+ref+`"}}}}}`))
		if code != 1 || !strings.Contains(out+errs, "spec.schema.jsonSchema") {
			t.Errorf("%s: exit code %d, %s%s", ref, code, out, errs)
		}
	}
	if len(asked.all()) != 0 {
		t.Error("validate asked a server for a schema")
	}
	if code, out, errs := waybill(t, "validate", "-f", manifest(t, broker, "kind: Topic\nmetadata: {name: t}\nspec: {brokerRef: {name: main}, schema: {jsonSchema: "+topicSchema+"}}")); code != 0 {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}
