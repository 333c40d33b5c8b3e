package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/gateway"
	"github.com/waybill-dev/waybill/runtime/plan"
)

const batchType = "application/cloudevents-batch+json"

func (r *rig) topic(change ...func(*plan.Topic)) (*gateway.Topic, *served) {
	r.t.Helper()
	p := plan.Topic{Object: r.ensure(driver.Object{Ref: driver.Ref{Kind: driver.Topic, Name: "orders"}, Owner: "test"}), MaxMessageBytes: 4096}
	for _, c := range change {
		c(&p)
	}
	h, err := gateway.NewTopic(p, r.deps("Topic", "orders"))
	if err != nil {
		r.t.Fatal(err)
	}
	return h, r.serve(h)
}

func TestTopicPublish(t *testing.T) {
	r := newRig(t)
	h, s := r.topic()
	for _, c := range []struct {
		name, body, want string
		headers          []string
	}{
		{"binary", `{"a":1}`, `{"id":"1","state":"Stored"}`, []string{"ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "t", "Content-Type", "application/json"}},
		{"structured", structured("2", "[1]"), `{"id":"2","state":"Stored"}`, []string{"Content-Type", "application/cloudevents+json"}},
		{"batched", "[" + structured("3", "1") + "]", `{"state":"Stored","ids":["3"]}`, []string{"Content-Type", batchType}},
		{"an empty batch", "[]", `{"state":"Stored","ids":[]}`, []string{"Content-Type", batchType}},
		{"plain", "hello", `{"id":"4","state":"Stored"}`, []string{"Content-Type", "text/plain", "Idempotency-Key", "4"}},
		{"respond-async", "hello", `{"id":"5","state":"Accepted"}`, []string{"Idempotency-Key", "5", "Prefer", "respond-async"}},
		{"no body", "", `{"id":"6","state":"Stored"}`, []string{"Idempotency-Key", "6"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if g := s.post("/", c.body, c.headers...).want(http.StatusAccepted); strings.TrimSpace(g.body) != c.want || g.header.Get("Content-Type") != "application/json" {
				t.Fatalf("got %s %v", g.body, g.header)
			}
		})
	}
	eventually(t, "all to be stored", func() bool { return h.Stats().Stored == 6 })
}

func TestTopicRefusals(t *testing.T) {
	r := newRig(t)
	h, s := r.topic()
	s.post("/", "{}", "Content-Type", "application/cloudevents+xml").problem(http.StatusUnsupportedMediaType, "UnsupportedMediaType")
	s.post("/", "{}", "Content-Type", "application/cloudevents-batch+avro").problem(http.StatusUnsupportedMediaType, "UnsupportedMediaType")
	s.post("/", "{}", "Content-Encoding", "gzip").problem(http.StatusUnsupportedMediaType, "UnsupportedMediaType")
	s.post("/", "{", "Content-Type", "application/cloudevents+json").problem(http.StatusBadRequest, "MalformedEvent")
	s.post("/", "{}", "Content-Type", batchType).problem(http.StatusBadRequest, "MalformedEvent")
	s.post("/", "x", "ce-id", "1").problem(http.StatusBadRequest, "MalformedEvent")
	s.post("/", "x", "ce-specversion", "1.0", "ce-id", "1", "ce-id", "2", "ce-source", "/s", "ce-type", "t").problem(http.StatusBadRequest, "MalformedEvent")
	s.post("/", strings.Repeat("x", 4097)).problem(http.StatusRequestEntityTooLarge, "TooLarge")
	s.post("/", structured("1", `"`+strings.Repeat("x", 4096)+`"`), "Content-Type", "application/cloudevents+json").problem(http.StatusRequestEntityTooLarge, "TooLarge")
	p := s.post("/", "["+structured("1", "1")+`,{"specversion":"1.0"},3]`, "Content-Type", batchType).problem(http.StatusUnprocessableEntity, "BadMember")
	if e := fmt.Sprint(p["errors"]); !strings.Contains(e, "index:1") || !strings.Contains(e, "index:2") {
		t.Fatalf("got %v", e)
	}
	if p := s.post("/x", "x").problem(http.StatusNotFound, "NotFound"); !strings.Contains(p["detail"].(string), "POST and GET") {
		t.Error(p["detail"])
	}
	if g := s.call(http.MethodDelete, "/", ""); g.header.Get("Allow") != "POST, GET" {
		t.Fatalf("Allow: %v", g.header)
	}
	if st := h.Stats(); st.Stored != 0 || st.Bytes != 0 || st.Refused[400] != 4 || st.Refused[415] != 3 {
		t.Fatalf("something was stored or is held: %+v", st)
	}
}

func TestTopicBatchOfLargeMembersNamesTheIndex(t *testing.T) {
	r := newRig(t)
	_, s := r.topic()
	p := s.post("/", "["+structured("1", "1")+","+structured("2", `"`+strings.Repeat("x", 5000)+`"`)+"]", "Content-Type", batchType).problem(http.StatusUnprocessableEntity, "BadMember")
	if e := fmt.Sprint(p["errors"]); !strings.Contains(e, "index:1") || !strings.Contains(e, "4096") || !strings.Contains(e, "spec.maxMessageBytes") {
		t.Fatalf("got %v", p)
	}
}

const schema = `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","required":["total"],"additionalProperties":false,
	"properties":{"total":{"type":"number","minimum":0},"lines":{"type":"array","items":{"$ref":"#/$defs/line"}}},
	"$defs":{"line":{"type":"object","required":["sku"],"properties":{"sku":{"type":"string","pattern":"^[a-z]+$"},"a/b":{"const":1}}}}}`

func TestTopicSchemaViolationIs422WithThePath(t *testing.T) {
	r := newRig(t)
	h, s := r.topic(func(p *plan.Topic) { p.Schema = json.RawMessage(schema) })
	s.post("/", `{"total":1.5,"lines":[{"sku":"a"}]}`, "Content-Type", "application/json").want(http.StatusAccepted)
	for _, c := range []struct{ body, path, detail string }{
		{`{"total":"S3CRET"}`, "/total", "is a string, must be number"},
		{`{"total":-1}`, "/total", "is less than minimum 0"},
		{`{"total":1,"lines":[{"sku":"a"},{"sku":"S3CRET"}]}`, "/lines/1/sku", "does not match the pattern ^[a-z]+$"},
		{`{"total":1,"lines":[{"sku":"a","a/b":"S3CRET"}]}`, "/lines/0/a~1b", "is not the value that const asks for"},
		{`{}`, "", "lacks total"},
		{`{"total":1,"S3CRET":1}`, "", "has 1 properties that are not allowed"},
		{`{"total":`, "", "the data are not JSON"},
		{`{"total":1e999999999}`, "", "a number in the data is too large to be checked"},
	} {
		g := s.post("/", c.body, "Content-Type", "application/json")
		p := g.problem(http.StatusUnprocessableEntity, "SchemaViolation")
		e := p["errors"].([]any)[0].(map[string]any)
		if path, _ := e["path"].(string); path != c.path || e["detail"] != c.detail || strings.Contains(g.body, "S3CRET") {
			t.Errorf("%s: got %s", c.body, g.body)
		}
	}
	s.post("/", `{"total":1}`, "Content-Type", "text/plain").problem(http.StatusUnprocessableEntity, "SchemaViolation")
	p := s.post("/", "["+structured("1", `{"total":1}`)+","+structured("2", `{"total":null}`)+"]", "Content-Type", batchType).problem(http.StatusUnprocessableEntity, "SchemaViolation")
	if e := fmt.Sprint(p["errors"]); !strings.Contains(e, "index:1") || !strings.Contains(e, "path:/total") {
		t.Fatalf("got %v", e)
	}
	if h.Stats().Stored != 1 {
		t.Fatal("something that breaks the schema was stored")
	}
}

func TestTopicSchemaThatCannotBeUsed(t *testing.T) {
	r := newRig(t)
	for _, bad := range []string{`{`, `{"type":"nonsense"}`, `{"$ref":"https://example.com/schema.json"}`, `{"$ref":"file:///etc/hostname"}`} {
		if _, err := gateway.NewTopic(plan.Topic{Schema: json.RawMessage(bad)}, r.deps("Topic", "x")); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// sse reads a stream of live events.
type sse struct {
	t      testing.TB
	lines  chan string
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

type liveEvent struct{ id, event, data string }

func (s *served) live(headers ...string) *sse {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/", http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		s.t.Fatalf("got %s %v", res.Status, res.Header)
	}
	e := &sse{t: s.t, lines: make(chan string, 1000), cancel: cancel}
	e.wg.Go(func() {
		defer res.Body.Close()
		defer close(e.lines)
		for scan := bufio.NewScanner(res.Body); scan.Scan(); {
			e.lines <- scan.Text()
		}
	})
	s.t.Cleanup(e.close)
	return e
}

func (e *sse) close() {
	e.cancel()
	e.wg.Wait()
}

// next is the next event; ok is false at the stream's end.
func (e *sse) next() (ev liveEvent, ok bool) {
	e.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case line, open := <-e.lines:
			name, value, _ := strings.Cut(line, ": ")
			switch {
			case !open:
				return ev, false
			case line == "" && ev != (liveEvent{}):
				return ev, true
			case name == "id":
				ev.id = value
			case name == "event":
				ev.event = value
			case name == "data":
				ev.data += value + "\n"
			}
		case <-timeout:
			e.t.Fatal("no live event in time")
		}
	}
}

func (e *sse) want(id string) liveEvent {
	e.t.Helper()
	ev, ok := e.next()
	if !ok || !strings.Contains(ev.data, `"id":"`+id+`"`) || ev.id == "" {
		e.t.Fatalf("got %+v, want the event %s", ev, id)
	}
	return ev
}

func TestTopicLiveEvents(t *testing.T) {
	r := newRig(t)
	h, s := r.topic()
	publish := func(id, data string) {
		t.Helper()
		s.post("/", data, "Idempotency-Key", id, "Content-Type", "application/json").want(http.StatusAccepted)
	}
	publish("before", "1")
	a, b := s.live(), s.live()
	publish("1", "{\n\"n\": 1.0}")
	publish("2", `[2]`)
	first := a.want("1")
	if want := `{"specversion":"1.0","id":"1","source":"/default/topics/orders","type":"dev.waybill.message","datacontenttype":"application/json","data":{` + "\n" + `"n": 1.0}}` + "\n"; first.data != want {
		t.Fatalf("got  %s\nwant %s", first.data, want)
	}
	a.want("2")
	b.want("1")
	a.close()
	publish("3", "3")
	again := s.live("Last-Event-ID", first.id)
	again.want("2")
	again.want("3")
	if h.Stats().Live < 2 {
		t.Fatalf("got %+v", h.Stats())
	}
	s.call(http.MethodGet, "/", "", "Accept", "text/html").problem(http.StatusNotAcceptable, "NotAcceptable")
	s.call(http.MethodGet, "/", "", "Accept", "text/event-stream", "Last-Event-ID", "made-up").problem(http.StatusBadRequest, "BadArgument")
	if err := h.Drain(within(t)); err != nil { // ends the streams
		t.Fatal(err)
	}
	for {
		if _, ok := again.next(); !ok {
			break
		}
	}
}

func TestTopicLiveEventsGapWhenThePositionIsGone(t *testing.T) {
	r := newRig(t)
	_, s := r.topic()
	limited := func(n int64) {
		r.ensure(driver.Object{Ref: driver.Ref{Kind: driver.Topic, Name: "orders"}, Owner: "test", MaxMessages: n})
	}
	e := s.live()
	s.post("/", "x", "Idempotency-Key", "1").want(http.StatusAccepted)
	seen := e.want("1")
	e.close()
	limited(2)
	for i := range 5 {
		s.post("/", "x", "Idempotency-Key", fmt.Sprint(i+2)).want(http.StatusAccepted)
	}
	e = s.live("Last-Event-ID", seen.id)
	gap, _ := e.next()
	var bounds struct{ From, To string }
	if err := json.Unmarshal([]byte(gap.data), &bounds); err != nil || gap.event != "gap" {
		t.Fatalf("got %+v, %v", gap, err)
	}
	if oldest := e.want("5"); bounds.From != seen.id || bounds.To != oldest.id {
		t.Fatalf("got %+v", bounds)
	}
	e.want("6")
}

func TestTopicAuthForPublishAndLive(t *testing.T) {
	r := newRig(t)
	r.secrets["s/token"] = "sesame"
	auth := &plan.Auth{Bearer: &plan.SecretRef{Name: "s", Key: "token"}}
	_, s := r.topic(func(p *plan.Topic) { p.Publish, p.Receive = auth, auth })
	s.post("/", "x").problem(http.StatusUnauthorized, "Unauthorized")
	s.call(http.MethodGet, "/", "", "Accept", "text/event-stream").problem(http.StatusUnauthorized, "Unauthorized")
	s.post("/", "x", "Authorization", "Bearer sesame").want(http.StatusAccepted)
	s.live("Authorization", "Bearer sesame").close()
}
