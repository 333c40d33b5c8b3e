package nats_test

import (
	"encoding/json"
	"errors"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/message"
)

// received gets n messages of a group of a stream.
func received(t *testing.T, c driver.Conn, stream, group string, n int) []message.Message {
	t.Helper()
	src, err := c.Source(within(t), driver.SourceSpec{Object: driver.Ref{Kind: driver.Topic, Name: stream}, Group: group, Ordering: driver.Key})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close(within(t))
	var got []message.Message
	for len(got) < n {
		into := make([]driver.Delivery, n)
		k, err := src.Receive(within(t), into[:n-len(got)])
		if err != nil || k == 0 {
			t.Fatalf("Receive: %d, %v", k, err)
		}
		for _, d := range into[:k] {
			got = append(got, d.Message)
		}
	}
	return got
}

func TestMessagesOfOtherClients(t *testing.T) {
	e := startEmbedded(t, nats.EmbeddedConfig{Listen: "127.0.0.1:0"})
	c, err := nats.Open(within(t), driver.Config{Addresses: []string{e.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(within(t))
	raw, err := natsgo.Connect(e.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	js, err := jetstream.New(raw)
	if err != nil {
		t.Fatal(err)
	}
	// A stream that someone else made, with a wildcard beside a plain subject.
	stream, err := js.CreateStream(within(t), jetstream.StreamConfig{Name: "foreign", Subjects: []string{"in.*", "plain"}})
	if err != nil {
		t.Fatal(err)
	}
	topic := driver.Ref{Kind: driver.Topic, Name: "foreign"}
	if _, err := c.Admin().Ensure(within(t), driver.Object{Ref: topic, External: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Admin().Ensure(within(t), driver.Object{Ref: topic, Owner: "me"}); !errors.Is(err, driver.ErrConflict) {
		t.Fatalf("Ensure of a stream that someone else made: %v", err)
	}
	group := driver.Object{Ref: driver.Ref{Kind: driver.Group, Name: "g", Of: "foreign"}, Ordering: driver.Key, Start: driver.Start{Position: driver.Earliest}}
	if _, err := c.Admin().Ensure(within(t), group); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*natsgo.Msg{
		{Subject: "in.a", Data: []byte("no headers")},
		{Subject: "in.b", Data: []byte("an id"), Header: natsgo.Header{"Nats-Msg-Id": {"m1"}, "Content-Type": {"text/plain"}, "X-Other": {"is left out"}}},
		{Subject: "in.c", Data: []byte(`{"a":1}`), Header: natsgo.Header{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"/raw value"}, "ce-type": {"t"},
			"ce-ext": {"100% raw"}, "Ce-Subject": {"S"}, "content-type": {"application/json"}}},
		{Subject: "in.d", Data: []byte(`{"specversion":"1.0","id":"2","source":"/s","type":"t","partitionkey":"k","datacontenttype":"text/plain","data":"ü"}`),
			Header: natsgo.Header{"content-type": {"application/cloudevents+json; charset=utf-8"}}},
		{Subject: "in.d", Data: []byte(` {"specversion":"1.0","id":"3","source":"/s","type":"t","data":{"n":1.0}}`)},
		{Subject: "in.d", Data: []byte(`{"specversion":"1.0","id":"4","source":"/s","type":"t"}`), Header: natsgo.Header{"Nats-Msg-Id": {"m4"}}},
		{Subject: "in.d", Data: []byte(`{"specversion":"1.0","but":"no event"}`)},
		{Subject: "in.c", Data: []byte(`{"specversion":"1.0","id":"inner","source":"/s","type":"t"}`), Header: natsgo.Header{"ce-specversion": {"1.0"}, "ce-id": {`"a \"b\" %C3%BC"`},
			"ce-source": {"/s"}, "ce-type": {"t"}, "ce-subject": {"%FF"}, "ce-x": {"50%25"}, "ce-datacontenttype": {"application/cloudevents+json"}, "Content-Type": {"x/y"}}},
		{Subject: "in.e", Data: []byte(`{not json`), Header: natsgo.Header{"content-type": {"application/cloudevents+json"}}},
	} {
		if _, err := js.PublishMsg(within(t), m); err != nil {
			t.Fatal(err)
		}
	}
	got := received(t, c, "foreign", "g", 9)
	want := []message.Message{
		{ID: "foreign/1", Source: "nats:/foreign", Type: "dev.waybill.message", Data: []byte("no headers")},
		{ID: "m1", Source: "nats:/foreign", Type: "dev.waybill.message", DataContentType: "text/plain", Data: []byte("an id")},
		{ID: "1", Source: "/raw value", Type: "t", Subject: "S", DataContentType: "application/json", Attributes: []message.Attribute{{Name: "ext", Value: "100% raw"}}, Data: []byte(`{"a":1}`)},
		{ID: "2", Source: "/s", Type: "t", Key: "k", DataContentType: "text/plain", Data: []byte("ü")},
		{ID: "3", Source: "/s", Type: "t", DataContentType: "application/json", Data: []byte(`{"n":1.0}`)},
		{ID: "4", Source: "/s", Type: "t"},
		{ID: "foreign/7", Source: "nats:/foreign", Type: "dev.waybill.message", Data: []byte(`{"specversion":"1.0","but":"no event"}`)},
		{ID: `a "b" ü`, Source: "/s", Type: "t", Subject: "%FF", DataContentType: "application/cloudevents+json", Attributes: []message.Attribute{{Name: "x", Value: "50%"}},
			Data: []byte(`{"specversion":"1.0","id":"inner","source":"/s","type":"t"}`)},
		{ID: "foreign/9", Source: "nats:/foreign", Type: "dev.waybill.message", DataContentType: "application/cloudevents+json", Data: []byte("{not json")},
	}
	for i := range want {
		g, _ := json.Marshal(got[i])
		w, _ := json.Marshal(want[i])
		if string(g) != string(w) {
			t.Errorf("message %d:\n got %s\nwant %s", i, g, w)
		}
	}

	// And a plain client reads ours.
	p, err := c.Publisher(within(t), driver.PublisherSpec{Object: topic})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(within(t))
	ours := message.Message{ID: "ö 1", Source: "/s", Type: "t", Key: "k", DataContentType: "text/plain", Data: []byte("x"), Attributes: []message.Attribute{{Name: "traceparent", Value: "00-x"}}}
	if err := p.Publish(within(t), []message.Message{ours})[0]; err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetLastMsgForSubject(within(t), "plain")
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"ce-specversion": "1.0", "ce-id": "%C3%B6%201", "ce-source": "/s", "ce-type": "t", "ce-partitionkey": "k",
		"ce-datacontenttype": "text/plain", "ce-traceparent": "00-x"} {
		if v := m.Header[name]; len(v) != 1 || v[0] != value {
			t.Errorf("header %s is %q, want %q", name, v, value)
		}
	}
}
