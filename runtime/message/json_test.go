package message_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/runtime/message"
)

func base() message.Message { return message.Message{ID: "1", Source: "/s", Type: "t"} }

func TestAppendJSONWritesDataByItsContentType(t *testing.T) {
	for _, c := range []struct{ name, contentType, data, want string }{
		{"JSON raw, numbers as they were spelt", "application/json", `{"n":1.0,"big":12345678901234567890,"e":1E+2}`, `,"data":{"n":1.0,"big":12345678901234567890,"e":1E+2}`},
		{"no content type is JSON", "", `[1, 2]`, `,"data":[1, 2]`},
		{"a +json type", "application/vnd.acme+json; charset=utf-8", `null`, `,"data":null`},
		{"text is a string", "text/plain", "a\n\"b\"\\ é", `,"data":"a\n\"b\"\\ é"`},
		{"XML is text", "application/xml", "<a/>", `,"data":"<a/>"`},
		{"JSON that does not parse", "application/json", `{"a":`, `,"data_base64":"eyJhIjo="`},
		{"JSON that is not UTF-8", "application/json", "\"\xff\"", `,"data_base64":"Iv8i"`},
		{"text that is not UTF-8", "text/plain", "\xff\xfe", `,"data_base64":"//4="`},
		{"text in another charset", "text/plain; charset=iso-8859-1", "a", `,"data_base64":"YQ=="`},
		{"bytes", "application/octet-stream", "\x00\x01", `,"data_base64":"AAE="`},
		{"none", "application/json", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := base()
			m.DataContentType, m.Data = c.contentType, []byte(c.data)
			got := string(message.AppendJSON(nil, &m))
			head := `{"specversion":"1.0","id":"1","source":"/s","type":"t"`
			if c.contentType != "" {
				head += `,"datacontenttype":"` + c.contentType + `"`
			}
			if want := head + c.want + "}"; got != want {
				t.Fatalf("got  %s\nwant %s", got, want)
			}
			back, err := message.ParseJSON([]byte(got))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(back.Data, m.Data) {
				t.Fatalf("data came back as %q", back.Data)
			}
		})
	}
}

func TestJSONKeepsEveryAttribute(t *testing.T) {
	m := message.Message{ID: "a\"b", Source: "https://x/é", Type: "t", Subject: "s\\", Time: "2026-01-02T03:04:05.123456789+01:00", DataContentType: "text/plain",
		DataSchema: "https://x/schema", Key: "k", Attributes: []message.Attribute{{Name: "traceparent", Value: "00-1"}, {Name: "x1", Value: "ü ✓ 😀"}}, Data: []byte("hi")}
	back, err := message.ParseJSON(message.AppendJSON(nil, &m))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(back), fmt.Sprint(m); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestParseJSONTakesExtensionsOfEveryType(t *testing.T) {
	m, err := message.ParseJSON([]byte(` { "specversion" : "1.0", "id":"1","source":"/s","type":"t","flag":true,"off":false,"n":-12,"z":-0,"gone":null,"subject":null,"u":"\u00e9", "data" : {"a" : [1, "}]"]} } `))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"flag": "true", "off": "false", "n": "-12", "z": "0", "u": "é", "gone": ""} {
		if got := m.Attribute(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if string(m.Data) != `{"a" : [1, "}]"]}` {
		t.Errorf("data: %s", m.Data)
	}
}

func TestParseJSONNamesTheAttributeThatIsWrong(t *testing.T) {
	const ok = `"specversion":"1.0","id":"1","source":"/s","type":"t"`
	many := make([]string, 70)
	for i := range many {
		many[i] = fmt.Sprintf(`"a%d":"v"`, i)
	}
	for _, c := range []struct{ doc, want string }{
		{`{"specversion":"1.0","source":"/s","type":"t"}`, "id:"},
		{`{"specversion":"1.0","id":"","source":"/s","type":"t"}`, "id:"},
		{`{"specversion":"1.0","id":1,"source":"/s","type":"t"}`, "id:"},
		{`{"specversion":"0.3","id":"1","source":"/s","type":"t"}`, "specversion:"},
		{`{"id":"1","source":"/s","type":"t"}`, "specversion:"},
		{`{"specversion":"1.0","id":"1","source":"a b","type":"t"}`, "source:"},
		{`{` + ok + `,"id":"2"}`, "id: is given twice"},
		{`{` + ok + `,"time":"yesterday"}`, "time:"},
		{`{` + ok + `,"expirytime":"soon"}`, "expirytime:"},
		{`{` + ok + `,"subject":""}`, "subject:"},
		{`{` + ok + `,"partitionkey":""}`, "partitionkey:"},
		{`{` + ok + `,"datacontenttype":"json"}`, "datacontenttype:"},
		{`{` + ok + `,"Upper":"x"}`, "Upper:"},
		{`{` + ok + `,"x":"a\r\nb"}`, "x: contains a control character"},
		{`{` + ok + `,"x":"\u0085"}`, "x: contains a control character"},
		{`{` + ok + `,"x":{}}`, "x:"},
		{`{` + ok + `,"x":1.5}`, "x:"},
		{`{` + ok + `,"x":2147483648}`, "x:"},
		{`{` + ok + `,"data":1,"data_base64":""}`, "data_base64:"},
		{`{` + ok + `,"data_base64":"?"}`, "data_base64:"},
		{`{` + ok + `,"datacontenttype":"text/plain","data":{}}`, "data:"},
		{`{` + ok + `,` + strings.Join(many, ",") + `}`, "attributes:"},
		{`{` + ok + `,"x":"` + strings.Repeat("v", message.MaxAttributeBytes) + `"}`, "attributes:"},
		{`[]`, "must be a JSON object"},
		{`{"id":`, "not JSON"},
		{"{\"id\":\"\xff\"}", "not UTF-8"},
	} {
		_, err := message.ParseJSON([]byte(c.doc))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s: got %v, want %q", c.doc, err, c.want)
		}
	}
}

func TestParseJSONBatchNamesEveryBadMember(t *testing.T) {
	const ok = `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`
	ms, err := message.ParseJSONBatch([]byte("[" + ok + " , " + strings.Replace(ok, `"1"`, `"2"`, 1) + "]"))
	if err != nil || len(ms) != 2 || ms[1].ID != "2" {
		t.Fatalf("got %v, %v", ms, err)
	}
	if ms, err := message.ParseJSONBatch([]byte(" [ ] ")); err != nil || len(ms) != 0 {
		t.Fatalf("empty batch: %v, %v", ms, err)
	}
	_, err = message.ParseJSONBatch([]byte(`[{"x":[1,{"y":"]"}]},` + ok + `,17,"a",` + ok + `]`))
	var bad *message.BatchError
	if !errors.As(err, &bad) || fmt.Sprint(bad.Members[0].Index, bad.Members[1].Index, bad.Members[2].Index, len(bad.Members)) != "0 2 3 3" {
		t.Fatalf("got %v", err)
	}
	if _, err := message.ParseJSONBatch([]byte(ok)); err == nil {
		t.Fatal("an object is no batch")
	}
}

func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":[1,2.50]},"x":true}`,
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"\ud83d\ude00"}`,
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"AAE="}`, `[{}]`, `{"a":"\"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		_, _ = message.ParseJSONBatch(doc)
		m, err := message.ParseJSON(doc)
		if err != nil {
			return
		}
		out := message.AppendJSON(nil, &m)
		if !json.Valid(out) {
			t.Fatalf("not JSON: %s", out)
		}
		back, err := message.ParseJSON(out)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if !bytes.Equal(back.Data, m.Data) || back.ID != m.ID || fmt.Sprint(back.Attributes) != fmt.Sprint(m.Attributes) {
			t.Fatalf("got %v, want %v", back, m)
		}
	})
}

func FuzzAppendJSON(f *testing.F) {
	f.Add("1", "/s", "text/plain", "k", []byte("\xff"))
	f.Add("1", "/s", "application/json", "", []byte("{} "))
	f.Fuzz(func(t *testing.T, id, source, contentType, key string, data []byte) {
		m := message.Message{ID: id, Source: source, Type: "t", DataContentType: contentType, Key: key, Data: data}
		out := message.AppendJSON(nil, &m)
		if !json.Valid(out) {
			t.Fatalf("not JSON: %s", out)
		}
		if m.Check() != nil {
			return
		}
		back, err := message.ParseJSON(out)
		if err != nil {
			t.Fatal(err)
		}
		if want := data; kindIsJSON(contentType) {
			want = bytes.TrimSpace(data)
			if !bytes.Equal(bytes.TrimSpace(back.Data), want) {
				t.Fatalf("data %q came back as %q", data, back.Data)
			}
		} else if !bytes.Equal(back.Data, want) {
			t.Fatalf("data %q came back as %q", data, back.Data)
		}
	})
}

func kindIsJSON(contentType string) bool { return message.HasJSON(contentType) }

func BenchmarkAppendJSON(b *testing.B) {
	m := base()
	m.DataContentType, m.Data = "application/json", []byte(`{"customer":"c-17","lines":[{"sku":"a","qty":3}],"total":120.50}`)
	dst := make([]byte, 0, 512)
	for b.Loop() {
		dst = message.AppendJSON(dst[:0], &m)
	}
}

const okHead = `{"specversion":"1.0","id":"1","source":"/s","type":"t"`

func TestDataWithoutContentTypeAreJSON(t *testing.T) {
	for doc, want := range map[string]string{
		okHead + `,"data":{"a":1}}`:                            "application/json",
		okHead + `,"data":null}`:                               "application/json",
		okHead + `,"data_base64":"e30="}`:                      "application/json",
		okHead + `}`:                                           "",
		okHead + `,"data_base64":""}`:                          "",
		okHead + `,"data_base64":null}`:                        "",
		okHead + `,"datacontenttype":"text/plain","data":"a"}`: "text/plain",
	} {
		m, err := message.ParseJSON([]byte(doc))
		if err != nil || m.DataContentType != want {
			t.Errorf("%s: got %q, %v", doc, m.DataContentType, err)
		}
	}
}

func TestParseJSONRefusesWhatItWouldChange(t *testing.T) {
	for doc, want := range map[string]string{
		"\ufeff" + okHead + "}":                                        "byte order mark",
		okHead + `,"x":"\ud800"}`:                                      "x: has half of a surrogate pair",
		okHead + `,"x":"\ude00\ud83d"}`:                                "x: has half of a surrogate pair",
		okHead + `,"x":"\ud83d\u0041"}`:                                "x: has half of a surrogate pair",
		okHead + `,"x":"\ud83dabcdef"}`:                                "x: has half of a surrogate pair",
		okHead + `,"datacontenttype":"text/plain","data":"a\uDFFFb"}`:  "data: has half of a surrogate pair",
		okHead + `,"datacontenttype":"application/cloudevents+json"}`:  "datacontenttype: must not begin with application/cloudevents",
		okHead + `,"datacontenttype":"Application/CloudEvents-Batch"}`: "datacontenttype: must not begin with application/cloudevents",
	} {
		if _, err := message.ParseJSON([]byte(doc)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", doc, err, want)
		}
	}
	m, err := message.ParseJSON([]byte(okHead + `,"x":"\ufffd \\ud800 \ud83d\ude00\ud83d\ude00","data":"\ud800"}`))
	if err != nil || m.Attribute("x") != "\ufffd \\ud800 😀😀" || string(m.Data) != `"\ud800"` {
		t.Errorf("got %q, %s, %v", m.Attribute("x"), m.Data, err)
	}
}

func TestDeepDataLeaveTheEventReadable(t *testing.T) {
	for depth, raw := range map[int]bool{message.MaxDepth: true, message.MaxDepth + 1: false, 9_999: false} {
		m := base()
		m.DataContentType = "application/json"
		m.Data = []byte(strings.Repeat(`["[\"",`, depth-1) + "[]" + strings.Repeat("]", depth-1))
		out := message.AppendJSON(nil, &m)
		if !json.Valid([]byte(`{"messages":[{"event":` + string(out) + `}]}`)) {
			t.Errorf("depth %d: a list with it cannot be read", depth)
		}
		if bytes.Contains(out, []byte(`"data":`)) != raw {
			t.Errorf("depth %d: raw is not %v", depth, raw)
		}
		if back, err := message.ParseJSON(out); err != nil || !bytes.Equal(back.Data, m.Data) {
			t.Errorf("depth %d: does not come back: %v", depth, err)
		}
	}
}

func TestABatchKeepsThePlacesOfItsMembers(t *testing.T) {
	ms, err := message.ParseJSONBatch([]byte("[" + okHead + "},{}," + okHead + ",\"subject\":\"s\"}]"))
	if err == nil || len(ms) != 3 || ms[0].ID != "1" || ms[1].ID != "" || ms[2].Subject != "s" {
		t.Fatalf("got %v, %v", ms, err)
	}
}

func TestHeaderSize(t *testing.T) {
	m := message.Message{ID: "1", Source: "ü", Type: "a b", Attributes: []message.Attribute{{Name: "x", Value: "%"}}}
	lines := "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: %C3%BC\r\nce-type: a%20b\r\nce-x: %25\r\n"
	if m.HeaderSize() != len(lines) {
		t.Fatalf("got %d, want %d", m.HeaderSize(), len(lines))
	}
}
