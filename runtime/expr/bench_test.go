package expr

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"

	"cel.dev/cel-go/cel"
	"github.com/valyala/fastjson"

	"github.com/waybill-dev/waybill/runtime/message"
)

// The job of the benchmarks: keep orders with a total above 100, and make a small message of each. What is measured is one message that
// passes; the four contenders are an expert's loop with encoding/json into structs, the same with fastjson, CEL on decoded maps, and CEL
// on a View.
const (
	benchFilter    = `type == "order.created" && data.total > 100`
	benchTransform = `{"id": data.id, "customer": data.customer, "total": data.total, "units": data.lines.map(l, l.qty).sum()}`
	benchOrder     = `{"id":"order-00001042","customer":"customer-0815","currency":"EUR","total":129.9,"lines":[{"sku":"sku-100001","qty":2,"price":19.95},{"sku":"sku-100002","qty":1,"price":70},{"sku":"sku-100003","qty":4,"price":5}],"address":{"street":"Main Street 1","city":"Springfield"},"note":"please ring twice"}`
)

func benchMessage() message.Message {
	return message.Message{ID: "1", Source: "/shop", Type: "order.created", DataContentType: "application/json", Data: []byte(benchOrder)}
}

type orderIn struct {
	ID       string  `json:"id"`
	Customer string  `json:"customer"`
	Total    float64 `json:"total"`
	Lines    []struct {
		SKU string `json:"sku"`
		Qty int    `json:"qty"`
	} `json:"lines"`
}

type orderOut struct {
	ID       string  `json:"id"`
	Customer string  `json:"customer"`
	Total    float64 `json:"total"`
	Units    int     `json:"units"`
}

func BenchmarkJobRaw(b *testing.B) {
	m := benchMessage()
	b.ReportAllocs()
	for b.Loop() {
		if m.Type != "order.created" {
			b.Fatal()
		}
		var in orderIn
		if json.Unmarshal(m.Data, &in) != nil || in.Total <= 100 {
			b.Fatal()
		}
		out := orderOut{ID: in.ID, Customer: in.Customer, Total: in.Total}
		for _, l := range in.Lines {
			out.Units += l.Qty
		}
		if _, err := json.Marshal(out); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJobRawFast(b *testing.B) {
	m := benchMessage()
	var p fastjson.Parser
	b.ReportAllocs()
	for b.Loop() {
		v, err := p.ParseBytes(m.Data)
		if err != nil || m.Type != "order.created" || v.GetFloat64("total") <= 100 {
			b.Fatal()
		}
		out := make([]byte, 0, 128)
		out = append(out, `{"id":`...)
		out = v.Get("id").MarshalTo(out)
		out = append(out, `,"customer":`...)
		out = v.Get("customer").MarshalTo(out)
		out = append(out, `,"total":`...)
		out = v.Get("total").MarshalTo(out)
		units := 0
		for _, l := range v.GetArray("lines") {
			units += l.GetInt("qty")
		}
		out = strconv.AppendInt(append(out, `,"units":`...), int64(units), 10)
		_ = append(out, '}')
	}
}

func BenchmarkJobCELOnMaps(b *testing.B) {
	e, err := environments[Message]()
	if err != nil {
		b.Fatal(err)
	}
	program := func(source string) cel.Program {
		ast, issues := e.env.Compile(source)
		if issues.Err() != nil {
			b.Fatal(issues.Err())
		}
		p, err := e.env.Program(ast, cel.EvalOptions(cel.OptOptimize))
		if err != nil {
			b.Fatal(err)
		}
		return p
	}
	filter := program(benchFilter)
	parts := []cel.Program{program(`data.id`), program(`data.customer`), program(`data.total`), program(`data.lines.map(l, l.qty).sum()`)}
	m := benchMessage()
	b.ReportAllocs()
	for b.Loop() {
		var data map[string]any
		if err := json.Unmarshal(m.Data, &data); err != nil {
			b.Fatal(err)
		}
		vars := map[string]any{"type": m.Type, "data": data}
		if out, _, err := filter.Eval(vars); err != nil || out.Value() != true {
			b.Fatal(err)
		}
		out := map[string]any{}
		for i, name := range []string{"id", "customer", "total", "units"} {
			v, _, err := parts[i].Eval(vars)
			if err != nil {
				b.Fatal(err)
			}
			out[name] = v.Value()
		}
		if _, err := json.Marshal(out); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJobView(b *testing.B) {
	filter, transform := compile(b, benchFilter, Message, Bool), compile(b, benchTransform, Message, JSON)
	m := benchMessage()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		v := For(nil, &m)
		if ok, err := filter.EvalBool(ctx, v); err != nil || !ok {
			b.Fatal(err)
		}
		if _, err := transform.EvalJSON(ctx, v, make([]byte, 0, 128)); err != nil {
			b.Fatal(err)
		}
		v.Release()
	}
}

func BenchmarkParse(b *testing.B) {
	data := []byte(benchOrder)
	v := For(nil, &message.Message{Data: data})
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		nodes, err := parse(v, data, v.nodes[:0])
		if err != nil {
			b.Fatal(err)
		}
		v.nodes = nodes
	}
}

func BenchmarkParseFastJSON(b *testing.B) {
	data := []byte(benchOrder)
	var p fastjson.Parser
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.ParseBytes(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	filter := compile(b, benchFilter, Message, Bool)
	m := benchMessage()
	b.ReportAllocs()
	for b.Loop() {
		v := For(nil, &m)
		if ok, err := filter.EvalBool(b.Context(), v); err != nil || !ok {
			b.Fatal(err)
		}
		v.Release()
	}
}

// BenchmarkSpelt has cel-go hand on numbers that the message spells in its own way.
func BenchmarkSpelt(b *testing.B) {
	sort := compile(b, `data.lines.sortBy(l, l.price).map(l, coalesce(l.?price, 0))`, Message, JSON)
	m := message.Message{Data: []byte(orderJSON)}
	b.ReportAllocs()
	for b.Loop() {
		v := For(nil, &m)
		if _, err := sort.EvalJSON(b.Context(), v, make([]byte, 0, 128)); err != nil {
			b.Fatal(err)
		}
		v.Release()
	}
}
