package nats

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	natsgo "github.com/nats-io/nats.go"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "plain", "100%", "%41", "%", "a b\"c", "ü日本🚚", "\r\n\x00\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := escape(s)
		if back := unescape(e); back != s && utf8.ValidString(s) {
			t.Fatalf("%q became %q and then %q", s, e, back)
		}
		if strings.ContainsFunc(e, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("%q is escaped as %q", s, e)
		}
		unescape(s) // whatever another client wrote
	})
}

func FuzzHandle(f *testing.F) {
	for _, s := range []string{"", "$JS.ACK.q.waybill.1.2.3.4.5", "$JS.ACK.hub.acc.q.waybill.1.2.3.4.5.x", "$JS.ACK.q.waybill.x.2.3.4.5", "$JS.ACK.q.waybill.1.2.3.4.*", "q", "$JS.ACK.q.waybill.99999999999999999999.2.3.4.5"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, h []byte) {
		d, err := settler{}.Restore(driver.Ref{Kind: driver.Queue, Name: "q"}, h)
		if err != nil {
			return
		}
		reply := d.Ref.(*restored).reply
		o, ok := parseReply(reply)
		if !ok || o.stream != "q" || o.consumer != queueConsumer || !strings.HasPrefix(reply, "$JS.ACK.") || strings.ContainsAny(reply, " \r\n\t*>") {
			t.Fatalf("%q was taken for a delivery of q", h)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add("ce-id", "1", "content-type", "application/cloudevents+json", []byte(`{"specversion":"1.0","id":"2","source":"s","type":"t"}`))
	f.Add("Ce-Source", "%zz", "ce-", "x", []byte("{"))
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string, data []byte) {
		var d decoder
		var m message.Message
		d.decode(&m, &natsgo.Msg{Header: natsgo.Header{k1: {v1}, k2: {v2}}, Data: data}, "s", 7)
		if m.ID == "" || m.Source == "" || m.Type == "" {
			t.Fatalf("an event without what it must have: %+v", m)
		}
	})
}

// What can be published comes back as it was, for whomever reads its headers; what cannot is refused before it is sent.
func FuzzEvent(f *testing.F) {
	f.Add("1", "/s", "t", "subject", "2026-11-22T00:00:00Z", "application/json", "key", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", []byte("{}"))
	f.Add("id 100%", "/ü日本🚚", "%41", "", "", "", "", "a", " \"x\" ", []byte(nil))
	f.Add("1", "s", "t", "a\r\nb", "\x00", "\xff", "k", "Content-Type", "x", []byte("x"))
	f.Add("1", "s", "t", "", "", "application/cloudevents+json", "", "id", "2", []byte(`{"specversion":"1.0","id":"2","source":"s","type":"t"}`))
	f.Fuzz(func(t *testing.T, id, source, typ, subject, at, dataType, key, name, value string, data []byte) {
		m := message.Message{ID: id, Source: source, Type: typ, Subject: subject, Time: at, DataContentType: dataType, Key: key, Data: data}
		if value != "" {
			m.Attributes = []message.Attribute{{Name: name, Value: value}}
		}
		size, err := check(&m)
		if err != nil || m.Check() != nil { // the gateway's own check refuses more: names that are not extensions'
			return
		}
		e := newEncoder()
		e.event(&m, true)
		sent := 0
		for k, vs := range e.header {
			if len(vs) != 1 || strings.ContainsAny(k+vs[0], "\r\n") {
				t.Fatalf("%q: %q", k, vs)
			}
			sent += len(k) + len(vs[0]) + len(": \r\n")
		}
		if sent > size {
			t.Fatalf("%d bytes of headers, and %d were reckoned with", sent, size)
		}
		var d decoder
		var back message.Message
		d.decode(&back, &natsgo.Msg{Header: e.header, Data: data}, "stream", 7)
		if len(back.Data) == 0 && len(m.Data) == 0 {
			back.Data, m.Data = nil, nil
		}
		if len(back.Attributes) == 0 {
			back.Attributes = nil
		}
		if !reflect.DeepEqual(back, m) {
			t.Fatalf("%#v came back as\n%#v", m, back)
		}
	})
}

func TestDedupIDIsBoundedAndTellsPairsApart(t *testing.T) {
	seen := map[string]message.Message{}
	long := strings.Repeat("l", 200)
	for _, m := range []message.Message{{ID: "a", Source: "b"}, {ID: "a b", Source: ""}, {ID: "b", Source: "a"}, {ID: "a%20b", Source: "c"}, {ID: "a", Source: "b c"},
		{ID: long, Source: "x"}, {ID: long + "x", Source: ""}, {ID: "x", Source: long}} {
		id := dedupID(&m)
		if len(id) > maxMsgID || strings.ContainsAny(id, "\r\n") {
			t.Errorf("%q is no good id", id)
		}
		if other, ok := seen[id]; ok {
			t.Errorf("%v and %v have the same id", m, other)
		}
		seen[id] = m
	}
}

func TestChoiceSettlesOnTheQuickerWay(t *testing.T) {
	for _, batchIsQuicker := range []bool{true, false} {
		var c choice
		better := 0
		for range 1000 {
			b := c.batch(100)
			took := time.Second
			if b == batchIsQuicker {
				better++
				took = 10 * time.Millisecond
			}
			c.took(100, b, took)
		}
		if better < 990 {
			t.Errorf("batch quicker %v: the quicker way was chosen %d times of 1000", batchIsQuicker, better)
		}
		if c.batch(fewest - 1) {
			t.Error("a few messages are not worth a batch")
		}
	}
}
