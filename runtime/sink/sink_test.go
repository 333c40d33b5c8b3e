package sink

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/reply"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a publisher that fails as refuse says, under the rule that nothing of a key is stored behind a failed one.
type scripted struct {
	mu     sync.Mutex
	refuse func(*message.Message) error
	stored []message.Message
}

func (s *scripted) Publish(_ context.Context, ms []message.Message) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, len(ms))
	failed := map[string]error{}
	for i := range ms {
		if s.refuse != nil {
			errs[i] = s.refuse(&ms[i])
		}
		if before := failed[ms[i].Key]; before != nil {
			errs[i] = fmt.Errorf("%w: %w", broker.ErrHeld, before)
		}
		if errs[i] == nil {
			s.stored = append(s.stored, ms[i])
		} else if ms[i].Key != "" {
			failed[ms[i].Key] = errs[i]
		}
	}
	return errs
}

func (s *scripted) ids() []string {
	var ids []string
	for _, m := range s.stored {
		ids = append(ids, m.ID)
	}
	return ids
}

func classify(err error) driver.Class {
	switch {
	case errors.Is(err, broker.ErrHeld):
		return driver.Transient
	case errors.Is(err, driver.ErrTooLarge):
		return driver.TooLarge
	case errors.Is(err, driver.ErrInvalid):
		return driver.Invalid
	case errors.Is(err, driver.ErrFull):
		return driver.Full
	}
	return driver.Transient
}

func event(id, key string, attrs ...message.Attribute) message.Message {
	return message.Message{ID: id, Source: "/shop/topics/orders", Type: "order", Key: key, Attributes: attrs, DataContentType: "application/json", Data: []byte(`{"id":"` + id + `"}`)}
}

func batch(ms ...message.Message) *flow.Batch {
	b := &flow.Batch{}
	for i, m := range ms {
		b.Inputs = append(b.Inputs, flow.Input{Delivery: &driver.Delivery{Message: m}, Attempt: 1})
		b.Events = append(b.Events, flow.Event{Message: m, Input: i})
	}
	return b
}

// split makes n events of each input, as a split step does.
func split(b *flow.Batch, n int) *flow.Batch {
	var events []flow.Event
	for _, e := range b.Events {
		for i := range n {
			part := e
			part.Message.ID = fmt.Sprintf("%s-%d", e.Message.ID, i)
			events = append(events, part)
		}
	}
	b.Events = events
	return b
}

func blames(t *testing.T, b *flow.Batch) []any {
	t.Helper()
	var out []any
	for _, in := range b.Inputs {
		var f *flow.Fault
		switch {
		case in.Err == nil:
			out = append(out, nil)
		case errors.As(in.Err, &f):
			out = append(out, f.Blame)
		default:
			out = append(out, in.Err)
		}
	}
	return out
}

func expect(t *testing.T, b *flow.Batch, want ...any) {
	t.Helper()
	if got := blames(t, b); !slices.Equal(got, want) {
		t.Errorf("inputs: %v, want %v", got, want)
		for i, in := range b.Inputs {
			t.Logf("%d: %v", i, in.Err)
		}
	}
}

func run(ctx context.Context, stages []flow.Stage, b *flow.Batch) {
	for _, s := range stages {
		s.Process(ctx, b)
	}
}

func TestPublish(t *testing.T) {
	p := &scripted{}
	stages, err := NewPublish(plan.Publish{Key: &plan.Expr{CEL: `data.id + "-k"`}}, Outlet{p, classify})
	if err != nil {
		t.Fatal(err)
	}
	in := event("1", "old", message.Attribute{Name: "wbreplyto", Value: "x"}, message.Attribute{Name: "wbcorrelation", Value: "r1"}, message.Attribute{Name: "color", Value: "red"})
	second := event("2", "", message.Attribute{Name: "wbhops", Value: "4"})
	b := batch(in, second)
	run(t.Context(), stages, b)
	expect(t, b, nil, nil)
	if got := p.stored[0]; got.Key != "1-k" || got.Attribute("wbreplyto") != "" || got.Attribute("wbcorrelation") != "" || got.Attribute("color") != "red" || got.Attribute("wbhops") != "1" {
		t.Errorf("stored: %+v", got)
	}
	if got := p.stored[1]; got.Key != "2-k" || got.Attribute("wbhops") != "5" || len(got.Attributes) != 1 {
		t.Errorf("stored: %+v", got)
	}
	if in.Key != "old" || len(in.Attributes) != 3 || b.Inputs[0].Delivery.Message.Attribute("wbreplyto") != "x" {
		t.Error("the delivery was changed")
	}
}

func TestPublishFailures(t *testing.T) {
	refusals := map[string]error{
		"large": fmt.Errorf("nats: %w", driver.ErrTooLarge), "invalid": driver.ErrInvalid, "full": driver.ErrFull,
		"busy": &driver.ThrottledError{After: 7, Err: errors.New("slow down")}, "away": errors.New("connection lost"),
	}
	p := &scripted{refuse: func(m *message.Message) error { return refusals[m.ID] }}
	stages, err := NewPublish(plan.Publish{}, Outlet{p, classify})
	if err != nil {
		t.Fatal(err)
	}
	b := batch(event("a", "k"), event("large", "k"), event("b", "k"), event("c", "other"), event("invalid", ""), event("full", ""), event("busy", ""), event("away", ""), event("d", ""))
	run(t.Context(), stages, b)
	// What stands behind the one that is too large is not to blame and comes again.
	expect(t, b, nil, flow.Message, flow.Broker, nil, flow.Message, flow.Broker, flow.Broker, flow.Broker, nil)
	if want := []string{"a", "c", "d"}; !slices.Equal(p.ids(), want) {
		t.Errorf("stored %v, want %v", p.ids(), want)
	}
	var f *flow.Fault
	if errors.As(b.Inputs[6].Err, &f); f.After != 7 {
		t.Errorf("pause: %s", f.After)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b = batch(event("away", ""))
	run(ctx, stages, b)
	expect(t, b, context.Canceled)

	run(t.Context(), stages, &flow.Batch{}) // nothing left to publish
}

func TestPublishRefusesMoreThanTheDestinationTakes(t *testing.T) {
	stages, err := NewPublish(plan.Publish{MaxMessageBytes: 20}, Outlet{&scripted{}, classify})
	if err != nil {
		t.Fatal(err)
	}
	b := batch(event("just enough", "k", message.Attribute{Name: "apart", Value: "attributes are"}), event("one too many!", "k"))
	run(t.Context(), stages[:1], b)
	expect(t, b, nil, flow.Message)
	if text := b.Inputs[1].Err.Error(); text != "its data has 22 bytes; 20 are the most that its destination takes (spec.maxMessageBytes)" {
		t.Error(text)
	}
}

func TestPublishRefusesWhatTheTopicsSchemaRefuses(t *testing.T) {
	stages, err := NewPublish(plan.Publish{Schema: json.RawMessage(`{"type":"object","properties":{"id":{"enum":["good"]}}}`)}, Outlet{&scripted{}, classify})
	if err != nil {
		t.Fatal(err)
	}
	b := batch(event("good", "k"), event("bad", "k"), event("good", "other"))
	run(t.Context(), stages[:1], b) // the flow takes out what failed before it goes on to the next stage
	expect(t, b, nil, flow.Message, nil)
	if text := b.Inputs[1].Err.Error(); !strings.Contains(text, "/id: is none of the values") || strings.Contains(text, "bad") {
		t.Error(text)
	}
	if _, err := NewPublish(plan.Publish{Schema: json.RawMessage(`{"type":"nonsense"}`)}, Outlet{&scripted{}, classify}); err == nil {
		t.Error("a schema that does not compile was taken")
	}
}

func TestPublishFailsAnInputOfWhichOneEventFails(t *testing.T) {
	p := &scripted{refuse: func(m *message.Message) error {
		if m.ID == "b-1" {
			return driver.ErrTooLarge
		}
		return nil
	}}
	stages, _ := NewPublish(plan.Publish{}, Outlet{p, classify})
	b := split(batch(event("a", ""), event("b", ""), event("c", "")), 2)
	run(t.Context(), stages, b)
	expect(t, b, nil, flow.Message, nil)
}

func TestKeyThatCannotBeHad(t *testing.T) {
	stages, err := NewPublish(plan.Publish{Key: &plan.Expr{CEL: `data.id`}}, Outlet{&scripted{}, classify})
	if err != nil {
		t.Fatal(err)
	}
	bad := event("1", "")
	bad.Data = []byte(`{"secret":"s3cret"}`)
	b := batch(event("0", ""), bad)
	stages[0].Process(t.Context(), b)
	expect(t, b, nil, flow.Message)
	if text := b.Inputs[1].Err.Error(); !strings.HasPrefix(text, "key: ") || strings.Contains(text, "s3cret") {
		t.Error(text)
	}
	if _, err := NewPublish(plan.Publish{Key: &plan.Expr{CEL: `data.`}}, Outlet{}); err == nil || !strings.HasPrefix(err.Error(), "key: ") {
		t.Errorf("a broken key expression: %v", err)
	}
}

type replies struct {
	mu   sync.Mutex
	err  error
	sent []message.Message
}

func (r *replies) send(_ context.Context, _, _ string, m message.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.sent = append(r.sent, m)
	return nil
}

func server(t *testing.T, h http.HandlerFunc) (*outbound.Client, plan.HTTPCall) {
	t.Helper()
	s := httptest.NewServer(h)
	c := outbound.New(outbound.Config{})
	t.Cleanup(func() { c.Close(); s.Close() })
	return c, plan.HTTPCall{HTTPTarget: plan.HTTPTarget{URL: s.URL}}
}

func waiting(id string) message.Message {
	return event(id, "", message.Attribute{Name: "wbreplyto", Value: "inbox"}, message.Attribute{Name: "wbcorrelation", Value: "r" + id})
}

func TestPushDropsTheAnswer(t *testing.T) {
	status := 200
	c, call := server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Ce-Specversion", "1.0") // an event, and not even a valid one
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "x")
	})
	s, err := NewPush(plan.Push{HTTPCall: call, Response: "Drop"}, PushDeps{Client: c})
	if err != nil {
		t.Fatal(err)
	}
	for want, code := range map[any]int{nil: 202, flow.Message: 422, flow.Address: 404, flow.Destination: 500} {
		status = code
		b := batch(event("1", ""))
		s.Process(t.Context(), b)
		expect(t, b, want)
	}
}

func TestPushPublishesTheEventInTheAnswer(t *testing.T) {
	var respond http.HandlerFunc
	c, call := server(t, func(w http.ResponseWriter, r *http.Request) { respond(w, r) })
	p := &scripted{}
	s, err := NewPush(plan.Push{HTTPCall: call, Response: "Topic", ReplyTo: &plan.Publish{}}, PushDeps{Client: c, ReplyTo: Outlet{p, classify}})
	if err != nil {
		t.Fatal(err)
	}
	binary := func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h["Ce-Specversion"], h["Ce-Id"], h["Ce-Source"], h["Ce-Type"], h["Ce-Partitionkey"] = []string{"1.0"}, []string{"r1"}, []string{"/billing"}, []string{"billed"}, []string{"k"}
		h["Ce-Wbreplyto"], h["Ce-Wbhops"], h["Content-Type"] = []string{"forged"}, []string{"0"}, []string{"application/json"}
		_, _ = io.WriteString(w, `{"n":1.0}`)
	}
	content := func(kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			_, _ = io.WriteString(w, body)
		}
	}
	encoded := func(encoding, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", encoding)
			if kind == "" {
				binary(w, r) // not compressed, whatever it says
				return
			}
			w.Header().Set("Content-Type", kind)
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, body)
			_ = z.Close()
		}
	}
	const structured = `{"specversion":"1.0","id":"s1","source":"/b","type":"t","data":{"n":1.0}}`
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for name, k := range map[string]struct {
		respond http.HandlerFunc
		refuse  error
		blame   any
		ids     []string
	}{
		"binary":      {binary, nil, nil, []string{"r1"}},
		"structured":  {content("application/cloudevents+json", structured), nil, nil, []string{"s1"}},
		"batch":       {content("application/cloudevents-batch+json", "["+structured+"]"), nil, nil, []string{"s1"}},
		"empty batch": {content("application/cloudevents-batch+json", "[]"), nil, nil, nil},
		"plain":       {content("application/json", `{"ok":true}`), nil, nil, nil},
		"plain large": {content("text/plain", strings.Repeat("x", 2<<20)), nil, nil, nil},
		"too long":    {content("application/cloudevents+json", strings.Repeat(" ", 2<<20)), nil, flow.Destination, nil},
		"empty":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, nil, nil, nil},
		"malformed":   {content("application/cloudevents+json", `{"specversion":"1.0"`), nil, flow.Destination, nil},
		"gzip":        {encoded("gzip", "application/cloudevents+json", structured), nil, nil, []string{"s1"}},
		"brotli":      {encoded("br", "application/cloudevents+json", structured), nil, flow.Destination, nil},
		"no gzip":     {encoded("gzip", "", ""), nil, flow.Destination, nil},
		"plain gzip":  {encoded("gzip", "text/plain", "hi"), nil, nil, nil},
		"charset":     {content("application/cloudevents+json; charset=utf-16", structured), nil, flow.Destination, nil},
		"XML":         {content("application/CloudEvents+xml", "<event/>"), nil, flow.Destination, nil},
		"broker away": {binary, errors.New("away"), flow.Broker, nil},
		"too large":   {binary, driver.ErrTooLarge, flow.Destination, nil},
	} {
		respond = k.respond
		p.stored, p.refuse = nil, func(*message.Message) error { return k.refuse }
		b := batch(event("1", "", message.Attribute{Name: "wbhops", Value: "2"}, message.Attribute{Name: "traceparent", Value: trace}))
		t.Run(name, func(t *testing.T) {
			s.Process(t.Context(), b)
			expect(t, b, k.blame)
			if !slices.Equal(p.ids(), k.ids) {
				t.Fatalf("stored %v, want %v", p.ids(), k.ids)
			}
			for _, m := range p.stored {
				if m.Attribute("wbhops") != "3" || m.Attribute("wbreplyto") != "" || m.Attribute("traceparent") != trace || string(m.Data) != `{"n":1.0}` {
					t.Errorf("stored: %+v", m)
				}
			}
		})
	}
}

func TestPushRepliesToTheRequester(t *testing.T) {
	var respond http.HandlerFunc
	c, call := server(t, func(w http.ResponseWriter, r *http.Request) { respond(w, r) })
	var box replies
	s, err := NewPush(plan.Push{HTTPCall: call, Response: "Requester"}, PushDeps{Client: c, Source: "/shop/mailboxes/invoices", Sender: reply.NewSender("shop", box.send)})
	if err != nil {
		t.Fatal(err)
	}
	plain := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/csv")
		_, _ = io.WriteString(w, "a,b")
	}
	for name, k := range map[string]struct {
		request message.Message
		respond http.HandlerFunc
		err     error
		blame   any
		sent    int
		data    string
		kind    string
	}{
		"plain":   {waiting("1"), plain, nil, nil, 1, "a,b", "text/csv"},
		"empty":   {waiting("1"), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, nil, nil, 1, "", ""},
		"nobody":  {event("1", ""), plain, nil, nil, 0, "", ""},
		"gone":    {waiting("1"), plain, driver.ErrGone, nil, 0, "", ""},
		"forged":  {waiting("1"), plain, driver.ErrInvalid, flow.Message, 0, "", ""},
		"away":    {waiting("1"), plain, errors.New("away"), flow.Broker, 0, "", ""},
		"refused": {waiting("1"), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(422) }, nil, flow.Message, 0, "", ""},
		// Too large is too large, whether it is not read or the broker does not take it.
		"not taken": {waiting("1"), plain, driver.ErrTooLarge, flow.Message, 0, "", ""},
		"not read":  {waiting("1"), func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20+1)) }, nil, flow.Message, 0, "", ""},
		"structured": {waiting("1"), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/cloudevents+json")
			_, _ = io.WriteString(w, `{"specversion":"1.0","id":"s1","source":"/b","type":"t","datacontenttype":"text/plain","data":"hi"}`)
		}, nil, nil, 1, "hi", "text/plain"},
		"XML": {waiting("1"), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/cloudevents+xml")
			_, _ = io.WriteString(w, "<event/>")
		}, nil, nil, 1, "<event/>", "application/cloudevents+xml"},
	} {
		t.Run(name, func(t *testing.T) {
			respond, box.err, box.sent = k.respond, k.err, nil
			b := batch(k.request)
			s.Process(t.Context(), b)
			expect(t, b, k.blame)
			if len(box.sent) != k.sent {
				t.Fatalf("%d replies, want %d", len(box.sent), k.sent)
			}
			for _, m := range box.sent {
				if string(m.Data) != k.data || m.DataContentType != k.kind || m.Attribute("wbcorrelation") != "r1" {
					t.Errorf("reply: %+v", m)
				}
			}
		})
	}
}

// Events of one input go one after the other, other inputs beside them, and nothing is sent behind a failed one.
func TestPushKeepsOrderWithinABatch(t *testing.T) {
	var mu sync.Mutex
	var got []string
	var busy atomic.Int64
	all := make(chan struct{})
	c, call := server(t, func(w http.ResponseWriter, r *http.Request) {
		if busy.Add(1) == 3 {
			close(all)
		}
		<-all // all inputs must be in flight at once, or nothing goes on
		id := r.Header.Get("Ce-Id")
		mu.Lock()
		got = append(got, id)
		mu.Unlock()
		if id == "b-1" {
			w.WriteHeader(500)
		}
	})
	s, err := NewPush(plan.Push{HTTPCall: call}, PushDeps{Client: c})
	if err != nil {
		t.Fatal(err)
	}
	b := split(batch(event("a", ""), event("b", ""), event("c", "")), 3)
	s.Process(t.Context(), b)
	expect(t, b, nil, flow.Destination, nil)
	for input, want := range map[string][]string{"a": {"a-0", "a-1", "a-2"}, "b": {"b-0", "b-1"}, "c": {"c-0", "c-1", "c-2"}} {
		ids := slices.DeleteFunc(slices.Clone(got), func(id string) bool { return !strings.HasPrefix(id, input) })
		if !slices.Equal(ids, want) {
			t.Errorf("input %s: %v, want %v", input, ids, want)
		}
	}
}

func TestLanesOfABatch(t *testing.T) {
	b := split(batch(event("a", ""), event("b", ""), event("c", "")), 2)
	for lanes, want := range map[[3]int][]int{{0, 1, 2}: {2, 2, 2}, {0, 0, 2}: {4, 2}, {0, 0, 0}: {6}} {
		var got []int
		for _, l := range laneEvents(b.Events, func(input int) int { return lanes[input] }) {
			got = append(got, len(l))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v: %v, want %v", lanes, got, want)
		}
	}
}

func TestNewPushRefuses(t *testing.T) {
	c := outbound.New(outbound.Config{})
	call := plan.HTTPCall{HTTPTarget: plan.HTTPTarget{URL: "http://host/"}}
	for _, p := range []plan.Push{{}, {HTTPCall: call, Response: "Topic"}, {HTTPCall: call, Response: "Requester"}, {HTTPCall: call, Response: "Other"}} {
		if _, err := NewPush(p, PushDeps{Client: c}); err == nil {
			t.Errorf("%+v was taken", p)
		}
	}
}

func TestReply(t *testing.T) {
	var box replies
	s := NewReply(reply.NewSender("shop", box.send))
	b := batch(waiting("1"), event("2", ""))
	b.Events[0].Message = message.Message{ID: "out", Source: "/p", Type: "t", Data: []byte("made by the steps")} // without the request's attributes
	s.Process(t.Context(), b)
	expect(t, b, nil, nil)
	if len(box.sent) != 1 || string(box.sent[0].Data) != "made by the steps" || box.sent[0].Attribute("wbcorrelation") != "r1" {
		t.Errorf("sent: %+v", box.sent)
	}
	for want, err := range map[any]error{flow.Message: driver.ErrInvalid, flow.Broker: errors.New("away"), nil: driver.ErrGone} {
		box.err = err
		b := batch(waiting("1"))
		s.Process(t.Context(), b)
		expect(t, b, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	box.err = errors.New("away")
	b = batch(waiting("1"))
	s.Process(ctx, b)
	expect(t, b, context.Canceled)
}
