package cehttp_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/message/cehttp"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

var defaults = cehttp.Defaults{Type: "dev.waybill.message", Source: "/default/topics/orders", NewID: func() string { return "generated" }}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func binary(pairs ...string) http.Header {
	return header(append([]string{"ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "t"}, pairs...)...)
}

func read(t *testing.T, h http.Header, body string) message.Message {
	t.Helper()
	ms, batch, err := cehttp.Read(h, []byte(body), defaults)
	if err != nil || batch || len(ms) != 1 {
		t.Fatalf("got %v, batch %v, %v", ms, batch, err)
	}
	return ms[0]
}

func TestPlainBodyBecomesAnEvent(t *testing.T) {
	m := read(t, header("Content-Type", "text/csv", "X-Other", "no"), "a,b")
	if want := (message.Message{ID: "generated", Source: defaults.Source, Type: defaults.Type, DataContentType: "text/csv", Data: []byte("a,b")}); fmt.Sprint(m) != fmt.Sprint(want) {
		t.Fatalf("got %v", m)
	}
	if m := read(t, header("Idempotency-Key", "k-1"), ""); m.ID != "k-1" || m.Data != nil {
		t.Fatalf("got %v", m)
	}
	for key, id := range map[string]string{`"k-1"`: "k-1", `"a\"b"`: `a"b`, `"a\\b"`: `a\b`, `"a\\"`: `a\`, `a\"b`: `a\"b`, `"a`: `"a`, `"`: `"`} {
		if m := read(t, header("Idempotency-Key", key), ""); m.ID != id {
			t.Errorf("%s: got %v", key, m)
		}
	}
}

func TestBinaryMode(t *testing.T) {
	m := read(t, binary("ce-subject", "%C3%A9 50%25", "ce-partitionkey", `"a\"b"`, "ce-Mine", "x", "Content-Type", "application/json", "ce-wbreplyto", "evil", "X-Header", "no"), `{"a": 1.0}`)
	want := message.Message{ID: "1", Source: "/s", Type: "t", Subject: "é 50%", Key: `a"b`, DataContentType: "application/json",
		Attributes: []message.Attribute{{Name: "mine", Value: "x"}}, Data: []byte(`{"a": 1.0}`)}
	if fmt.Sprint(m) != fmt.Sprint(want) {
		t.Fatalf("got  %v\nwant %v", m, want)
	}
}

func TestStructuredAndBatchedMode(t *testing.T) {
	const doc = `{"specversion":"1.0","id":"1","source":"/s","type":"t","wborigin":"x","data":{"n":1.00}}`
	m := read(t, header("Content-Type", "application/cloudevents+json; charset=UTF-8", "ce-id", "other"), doc)
	if m.ID != "1" || string(m.Data) != `{"n":1.00}` || len(m.Attributes) != 0 {
		t.Fatalf("got %v", m)
	}
	ms, batch, err := cehttp.Read(header("Content-Type", cehttp.Batched), []byte("["+doc+"]"), defaults)
	if err != nil || !batch || len(ms) != 1 || len(ms[0].Attributes) != 0 {
		t.Fatalf("got %v, %v, %v", ms, batch, err)
	}
	if ms, batch, err := cehttp.Read(header("Content-Type", cehttp.Batched), []byte("[]"), defaults); err != nil || !batch || len(ms) != 0 {
		t.Fatalf("empty batch: %v, %v, %v", ms, batch, err)
	}
}

func TestTraceContextIsCarried(t *testing.T) {
	m := read(t, header("traceparent", parent, "tracestate", "a=1", "tracestate", "b=2"), "")
	if m.Attribute("traceparent") != parent || m.Attribute("tracestate") != "a=1,b=2" {
		t.Fatalf("got %v", m.Attributes)
	}
	other := strings.Replace(parent, "0af", "fff", 1)
	if m := read(t, binary("traceparent", parent, "ce-traceparent", other), ""); m.Attribute("traceparent") != other || len(m.Attributes) != 1 {
		t.Fatalf("the event's own comes first: %v", m.Attributes)
	}
	for _, bad := range []string{"x", strings.ToUpper(parent), "ff" + parent[2:], parent + "-1", "00-00000000000000000000000000000000-b7ad6b7169203331-01"} {
		if m := read(t, header("traceparent", bad), ""); len(m.Attributes) != 0 {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestMalformedHeadersAreRefused(t *testing.T) {
	many := binary()
	for i := range message.MaxAttributes {
		many.Set(fmt.Sprintf("ce-a%d", i), "v")
	}
	for _, c := range []struct {
		name string
		h    http.Header
		want string
	}{
		{"duplicate attribute", binary("ce-id", "2"), "id: is given twice"},
		{"missing id", header("ce-specversion", "1.0", "ce-source", "/s", "ce-type", "t"), "id:"},
		{"missing specversion", header("ce-id", "1", "ce-source", "/s", "ce-type", "t"), "specversion:"},
		{"other specversion", header("ce-specversion", "0.3", "ce-id", "1", "ce-source", "/s", "ce-type", "t"), "specversion:"},
		{"line break in a value", binary("ce-x", "a%0D%0Ab"), "x: contains a control character"},
		{"not UTF-8", binary("ce-x", "%FF"), "x: is not percent-encoded UTF-8"},
		{"bad name", binary("ce-a-b", "x"), "is no attribute"},
		{"empty name", binary("ce-", "x"), "is no attribute"},
		{"data as a header", binary("ce-data", "x"), "data:"},
		{"content type as an attribute", binary("ce-datacontenttype", "text/plain"), "datacontenttype:"},
		{"empty value", binary("ce-subject", ""), "subject:"},
		{"too many", many, "attributes:"},
		{"too large", binary("ce-x", strings.Repeat("v", message.MaxAttributeBytes)), "attributes:"},
		{"two content types", header("Content-Type", "text/plain", "Content-Type", "text/html"), "Content-Type"},
		{"two idempotency keys", header("Idempotency-Key", "a", "Idempotency-Key", "b"), "Idempotency-Key"},
		{"empty idempotency key", header("Idempotency-Key", ""), "Idempotency-Key"},
	} {
		_, _, err := cehttp.Read(c.h, nil, defaults)
		var unsupported *cehttp.UnsupportedError
		if err == nil || errors.As(err, &unsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestOtherRepresentationsAreUnsupported(t *testing.T) {
	for _, h := range []http.Header{
		header("Content-Type", "application/cloudevents+xml"), header("Content-Type", "application/cloudevents"),
		header("Content-Type", "application/cloudevents-batch+avro"), header("Content-Type", "application/cloudevents+json; charset=latin1"),
		header("Content-Type", "application/json", "Content-Encoding", "gzip"),
	} {
		_, _, err := cehttp.Read(h, []byte("x"), defaults)
		if u := (*cehttp.UnsupportedError)(nil); !errors.As(err, &u) {
			t.Errorf("%v: got %v", h, err)
		}
	}
}

func TestWriteHeader(t *testing.T) {
	m := message.Message{ID: "1 %\"é", Source: "/s", Type: "t", Key: "k", Time: "2026-01-02T03:04:05Z", DataContentType: "application/json",
		Attributes: []message.Attribute{{Name: "traceparent", Value: parent}, {Name: "wbreason", Value: "Rejected"}, {Name: "wbreplyto", Value: "inbox"},
			{Name: "host", Value: "evil"}, {Name: "b\r\nad", Value: "x"}}}
	h := http.Header{"User-Agent": {"x"}}
	cehttp.WriteHeader(h, &m)
	want := http.Header{"User-Agent": {"x"}, "Ce-Specversion": {"1.0"}, "Ce-Id": {"1%20%25%22%C3%A9"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}, "Ce-Partitionkey": {"k"},
		"Ce-Time": {"2026-01-02T03:04:05Z"}, "Content-Type": {"application/json"}, "Ce-Traceparent": {parent}, "Traceparent": {parent}, "Ce-Wbreason": {"Rejected"}, "Ce-Host": {"evil"}}
	if fmt.Sprint(h) != fmt.Sprint(want) {
		t.Fatalf("got  %v\nwant %v", h, want)
	}
	if back := read(t, h, ""); back.ID != m.ID || back.Key != "k" || back.Attribute("host") != "evil" || back.Attribute("wbreason") != "" {
		t.Fatalf("came back as %v", back)
	}
}

// An event that was taken is taken again after Waybill has written it, with what it has added.
func TestAFullEventIsTakenAgain(t *testing.T) {
	full := binary("traceparent", parent, "tracestate", "a="+strings.Repeat("s", 510))
	for i := range message.MaxAttributes - 3 { // id, source and type
		full.Set(fmt.Sprintf("ce-a%d", i), "v")
	}
	full.Set("ce-a0", strings.Repeat("%20", message.MaxAttributeBytes-1024))
	m := read(t, full, "")
	for _, name := range []string{message.Reason, message.Attempts, message.FirstError, message.LastError, message.Origin, message.DeadTime} {
		m = m.With(name, strings.Repeat("ж", 512))
	}
	m = m.With(message.ExpiryTime, "2026-01-01T00:00:00Z")
	h := http.Header{}
	cehttp.WriteHeader(h, &m)
	if back := read(t, h, ""); len(back.Attributes) != message.MaxAttributes || back.Attribute(message.TraceParent) != parent {
		t.Fatalf("%d attributes came back: %v", len(back.Attributes), back.Attributes)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("1.0", "1", "/s", "t", "x", "a%20b", "application/json", []byte("{}"))
	f.Add("", "", "", "", "", "", cehttp.Batched, []byte(`[{"specversion":"1.0","id":"1","source":"/s","type":"t"}]`))
	f.Fuzz(func(t *testing.T, version, id, source, typ, name, value, contentType string, body []byte) {
		h := http.Header{}
		for k, v := range map[string]string{"Ce-Specversion": version, "Ce-Id": id, "Ce-Source": source, "Ce-Type": typ, http.CanonicalHeaderKey("ce-" + name): value, "Content-Type": contentType} {
			if v != "" {
				h[k] = []string{v}
			}
		}
		ms, _, err := cehttp.Read(h, body, defaults)
		if err != nil {
			return
		}
		for i := range ms {
			if err := ms[i].Check(); err != nil {
				t.Fatalf("read an invalid event: %v", err)
			}
			out := http.Header{}
			cehttp.WriteHeader(out, &ms[i])
			for k, vs := range out {
				if strings.ContainsAny(vs[0], "\r\n") || strings.HasPrefix(k, "Ce-") && strings.Trim(vs[0], "!#$&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~%") != "" {
					t.Fatalf("header %s: %q", k, vs[0])
				}
			}
			if _, ok := out["Content-Type"]; ok && strings.HasPrefix(strings.ToLower(out.Get("Content-Type")), "application/cloudevents") {
				continue // the data are an event themselves: HTTP cannot say so in binary mode
			}
			back, _, err := cehttp.Read(out, ms[i].Data, defaults)
			if err != nil {
				t.Fatalf("does not read what it wrote: %v: %v", err, out)
			}
			if back[0].ID != ms[i].ID || back[0].Source != ms[i].Source || fmt.Sprint(back[0].Attributes) != fmt.Sprint(ms[i].Attributes) {
				t.Fatalf("got %v, want %v", back[0], ms[i])
			}
		}
	})
}

func BenchmarkWriteHeader(b *testing.B) {
	m := message.Message{ID: "1", Source: "/s", Type: "t", Key: "k", DataContentType: "application/json", Attributes: []message.Attribute{{Name: "traceparent", Value: parent}}}
	h := http.Header{}
	b.ReportAllocs()
	for b.Loop() {
		cehttp.WriteHeader(h, &m)
	}
}

func BenchmarkReadBinary(b *testing.B) {
	h, body := binary("Content-Type", "application/json", "ce-partitionkey", "k", "traceparent", parent), []byte(`{"a":1}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := cehttp.Read(h, body, defaults); err != nil {
			b.Fatal(err)
		}
	}
}
