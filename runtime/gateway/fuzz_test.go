package gateway

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/schema"
)

// Whatever is POSTed, in any of the modes: it becomes events that are whole and within their limits, or a refusal that is the caller's
// fault, as a problem with a reason; and the memory that it was given is given back.
func FuzzIntake(f *testing.F) {
	const event = `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n":1}}`
	f.Add("application/cloudevents+json", "", "", "", "", []byte(event))
	f.Add("application/cloudevents-batch+json", "", "", "", "", []byte("["+event+`,{"specversion":"1.0"},3,`+event+"]"))
	f.Add("application/json", "Ce-Specversion", "1.0", "Ce-Id", "1", []byte(`{"n":1}`))
	f.Add("text/plain; charset=latin1", "Idempotency-Key", `"x"`, "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", []byte("hello"))
	f.Add("Application/CloudEvents+JSON;charset=utf-8", "Content-Encoding", "gzip", "Ce-Wbreason", "x", []byte(event))
	f.Add("application/cloudevents+xml", "Ce-A", "%zz", "Ce-A", "\n", []byte("<x/>"))
	strict, err := schema.Compile([]byte(`{"type":"object","properties":{"n":{"type":"number"}}}`))
	if err != nil {
		f.Fatal(err)
	}
	var g front
	g.init(Deps{Resource: plan.Resource{Kind: "Topic", Namespace: "default", Name: "orders"}, Log: slog.New(slog.DiscardHandler)}, "topics", plan.Ref{})
	f.Fuzz(func(t *testing.T, contentType, k1, v1, k2, v2 string, body []byte) {
		for _, l := range []limits{{data: 256}, {data: 256, body: 128}, {data: 64 << 10, schema: strict}} {
			r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
			for _, h := range [][2]string{{"Content-Type", contentType}, {k1, v1}, {k2, v2}} {
				if h[0] != "" && h[1] != "" {
					r.Header.Add(h[0], h[1])
				}
			}
			w := httptest.NewRecorder()
			in := g.read(w, r, l)
			if in == nil {
				var p struct {
					Status         int
					Reason, Detail string
				}
				if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code < 400 || w.Code >= 500 || p.Status != w.Code || p.Reason == "" || p.Detail == "" ||
					w.Header().Get("Content-Type") != "application/problem+json" {
					t.Fatalf("%d %s: %v", w.Code, w.Body, err)
				}
			} else {
				for i := range in.events {
					if m := &in.events[i]; m.Check() != nil || len(m.Data) > l.data || l.schema != nil && l.schema.Violations(m) != nil {
						t.Fatalf("was taken: %+v", m)
					}
				}
				if !in.batch && len(in.events) != 1 {
					t.Fatalf("%d events", len(in.events))
				}
				in.close()
			}
			if used := g.budget.used.Load(); used != 0 {
				t.Fatalf("%d bytes were not given back", used)
			}
		}
	})
}
