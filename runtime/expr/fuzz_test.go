package expr

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/runtime/message"
)

var texts = []string{
	orderJSON, benchOrder, `{}`, `[]`, `null`, `-0`, `1e999`, `[1,-1.5e-7,0.10,12345678901234567890123]`, `"\ud83d\ude00\ud800x\u00e9\/"`, `{"a":{"a":[{"a":1}]},"a":2}`,
	" [ 1 , {\"x\" : \"\\\"\" } ]\n", `{"é":"ü","\u00e9":1}`, `01`, `+1`, `1.`, `.5`, `nan`, `[1,]`, `{"a"}`, "\"\x01\"", "\"\xff\"", `"\x"`, `"\u12"`, `truefalse`, `{"a":1,}`, `--1`, `1e`, "",
	strings.Repeat(`[`, maxDepth) + strings.Repeat(`]`, maxDepth), strings.Repeat(`[`, maxDepth+1) + strings.Repeat(`]`, maxDepth+1),
}

func depth(b []byte) int {
	deepest, d, text := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '[' || c == '{':
			d++
			deepest = max(deepest, d)
		case c == ']' || c == '}':
			d--
		}
	}
	return deepest
}

// What is JSON is told as encoding/json tells it, but that text must be UTF-8; and each value found is what encoding/json finds.
func FuzzParse(f *testing.F) {
	for _, t := range texts {
		f.Add([]byte(t))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v := For(nil, &message.Message{Data: data})
		defer v.Release()
		if len(data) == 0 {
			return
		}
		want := json.Valid(data) && utf8.Valid(data) && depth(data) <= maxDepth
		if got := v.load() == parsed; got != want {
			t.Fatalf("accepted %v, want %v: %v", got, want, v.err)
		}
		if !want {
			return
		}
		var tree any
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		if err := dec.Decode(&tree); err != nil {
			t.Fatal(err)
		}
		same(t, &v.nodes[0], tree)
		if !bytes.Equal(v.nodes[0].raw(), bytes.Trim(data, " \t\r\n")) {
			t.Fatal("the root is not the text")
		}
	})
}

func same(t *testing.T, n *node, want any) {
	t.Helper()
	if !json.Valid(n.raw()) {
		t.Fatalf("%q is not JSON", n.raw())
	}
	switch want := want.(type) {
	case nil:
		if n.kind != kindNull {
			t.Fatalf("%q is not null", n.raw())
		}
	case bool:
		if n.kind != kindFalse && !want || n.kind != kindTrue && want {
			t.Fatalf("%q is not %v", n.raw(), want)
		}
	case json.Number:
		if string(n.raw()) != want.String() {
			t.Fatalf("%q is not %v", n.raw(), want)
		}
	case string:
		if n.kind != kindString || n.string() != want {
			t.Fatalf("%q is not %q", n.string(), want)
		}
	case []any:
		if n.kind != kindList || int(n.count) != len(want) {
			t.Fatalf("%q is not a list of %d", n.raw(), len(want))
		}
		for i := range want {
			same(t, n.element(int64(i)), want[i])
		}
	case map[string]any:
		if n.kind != kindObject || int(n.count) < len(want) {
			t.Fatalf("%q is not an object of %d", n.raw(), len(want))
		}
		for name := range want {
			same(t, n.member(name), want[name])
		}
	}
}

// Whatever a message holds, what comes out is JSON, and what is copied is the text itself.
func FuzzEvalJSON(f *testing.F) {
	for _, t := range texts {
		f.Add([]byte(t), "text/plain", "id\"\n")
		f.Add([]byte(t), "", "\xff")
	}
	copying := compile(f, `{"d": data, "l": [data]}`, Message, JSON)
	var others []*Program
	for _, s := range []string{
		`{"a": data, "id": id, "t": type, "x": attributes, "s": size(id)}`, `data.map(x, x)`, `data.a.b`, `[data, 1.5, b"x", duration("1s")]`,
		`{?"a": data.?a, "o": data.?b.c.orValue(id)}`, `string(data)`, `data + data`, `data.sum()`, `data[0]`, `cel.bind(x, data, [x, x])`,
		`data.map(k, {"k": k, "v": data[k]})`, `data.transformMap(k, v, v)`, `data.omitNulls()`, `data.merge({"x": id})`, `json.parse(id)`, `json.encode(data)`, `url.encode(id)`, `strptime(id, id)`, `timestamp(0).strftime(id)`, `optional.of(data)`, `dyn(data) == 1 || data != null`,
	} {
		others = append(others, compile(f, s, Message, JSON))
	}
	f.Fuzz(func(t *testing.T, data []byte, contentType, id string) {
		m := &message.Message{ID: id, Type: id, Data: data, DataContentType: contentType, Attributes: []message.Attribute{{Name: "a", Value: id}}}
		v := For(nil, m)
		defer v.Release()
		for _, p := range others {
			out, err := p.EvalJSON(context.Background(), v, nil)
			if err == nil && (!json.Valid(out) || !utf8.Valid(out)) {
				t.Fatalf("%q is not JSON", out)
			}
			if err != nil && (len(out) != 0 || len(id) > 3 && strings.Contains(err.Error(), id)) {
				t.Fatalf("%q %v", out, err)
			}
		}
		out, err := copying.EvalJSON(context.Background(), v, nil)
		if v.load() != parsed {
			return
		}
		text := bytes.Trim(data, " \t\r\n")
		if want := fmt.Sprintf(`{"d":%s,"l":[%s]}`, text, text); err != nil || string(out) != want {
			t.Fatalf("%s %v\nwant %s", out, err, want)
		}
	})
}

// document draws a JSON text in which the names of the drawn expressions often occur.
func document(t *rapid.T, depth int) string {
	kinds := 8
	if depth == 0 {
		kinds = 6
	}
	switch rapid.IntRange(0, kinds).Draw(t, "kind") {
	case 0:
		return rapid.SampledFrom([]string{"null", "true", "false"}).Draw(t, "word")
	case 1, 2:
		return fmt.Sprint(rapid.IntRange(-3, 12).Draw(t, "int"))
	case 3:
		return rapid.SampledFrom([]string{"1.0", "2.50", "-0", "1e2", "0.1", "9007199254740993", "18446744073709551615", "-9223372036854775808", "100.5", "1e400", "0.00", "12345678901234567890123"}).Draw(t, "number")
	case 4, 5:
		return rapid.SampledFrom([]string{`"a"`, `"b"`, `""`, `"\u0061"`, `"é\n"`, `"ab"`}).Draw(t, "string")
	case 6, 7:
		var members []string
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "\\u0064"}), 0, 4, rapid.ID[string]).Draw(t, "names") {
			members = append(members, fmt.Sprintf(`"%s": %s`, name, document(t, depth-1)))
		}
		return "{" + strings.Join(members, ",") + "}"
	default:
		var elements []string
		for range rapid.IntRange(0, 20).Draw(t, "n") / 5 * rapid.IntRange(1, 6).Draw(t, "times") {
			elements = append(elements, document(t, depth-1))
		}
		return "[" + strings.Join(elements, ", ") + "]"
	}
}

// expression draws a well-typed expression with the variables in scope.
func expression(t *rapid.T, depth int, vars []string) string {
	sub := func() string { return expression(t, depth-1, vars) }
	of := func(choices ...string) string { return rapid.SampledFrom(choices).Draw(t, "choice") }
	if depth == 0 {
		return of(append([]string{"data", "data.a", "data.b", "data.a.b", "data.c[0]", "data.d", `data["a"]`, "id", "attributes.x", "1", "2.5", "dyn(1u)", `"a"`, "true", "null", "data.l", "data.a.c"}, vars...)...)
	}
	switch rapid.IntRange(0, 22).Draw(t, "form") {
	case 0:
		return fmt.Sprintf("(dyn(%s) %s dyn(%s))", sub(), of("==", "!=", "<", "<=", ">", ">="), sub())
	case 1:
		return fmt.Sprintf("(dyn(%s) %s dyn(%s))", sub(), of("+", "-", "*", "/", "%"), sub())
	case 2:
		return fmt.Sprintf("(dyn(%s) %s dyn(%s))", sub(), of("&&", "||"), sub())
	case 3:
		return fmt.Sprintf("(dyn(%s) ? dyn(%s) : dyn(%s))", sub(), sub(), sub())
	case 4:
		return fmt.Sprintf(`{"z": %s, "a": dyn(%s), "m": dyn(%s)}`, sub(), sub(), sub())
	case 5:
		return fmt.Sprintf("[dyn(%s), dyn(%s)]", sub(), sub())
	case 6, 7:
		v := of("x", "y", "a")
		body := expression(t, depth-1, append(slices.Clone(vars), v, v+".a", v+".b"))
		return fmt.Sprintf("dyn(%s).%s(%s, dyn(%s))", sub(), of("map", "filter", "exists", "all"), v, body)
	case 8:
		v := of("x", "y")
		inner := append(slices.Clone(vars), v, v+".a")
		return fmt.Sprintf("dyn(%s).map(%s, dyn(%s), dyn(%s))", sub(), v, expression(t, depth-1, inner), expression(t, depth-1, inner))
	case 9:
		return fmt.Sprintf("dyn(%s).sum()", sub())
	case 10:
		return fmt.Sprintf("has(data.%s)", of("a", "b", "a.b", "l"))
	case 11:
		return fmt.Sprintf("(dyn(%s) in dyn(%s))", sub(), of(`[1, "a", true]`, "data", "data.a", "data.c", "attributes"))
	case 12:
		return fmt.Sprintf("size(dyn(%s))", sub())
	case 13:
		return fmt.Sprintf("dyn(%s).%s(dyn(%s))", sub(), of("startsWith", "endsWith", "contains"), sub())
	case 14:
		return fmt.Sprintf(`{?"o": data.?%s, "p": data.?%s.orValue(dyn(%s))}`, of("a", "b", "a.b"), of("a", "c", "a.?b"), sub())
	case 15:
		return fmt.Sprintf("dyn(%s).%s", sub(), of("omitNulls()", `omit(["a"])`, `pick(["b", "a"])`, "sort()", "reverse()", "distinct()"))
	case 16:
		return fmt.Sprintf("coalesce(dyn(%s), data.?%s)", sub(), of("a", "b", "c"))
	case 17:
		return fmt.Sprintf("dyn(%s).merge(dyn(%s))", sub(), sub())
	case 18:
		v := of("x", "y")
		return fmt.Sprintf("cel.bind(%s, %s, dyn(%s))", v, sub(), expression(t, depth-1, append(slices.Clone(vars), v, v+".a")))
	case 19:
		return fmt.Sprintf("dyn(%s)[dyn(%s)]", sub(), sub())
	case 20:
		return fmt.Sprintf("dyn(%s).slice(0, %s)", sub(), of("0", "1", "2"))
	case 21:
		v := of("x", "y")
		return fmt.Sprintf("dyn(%s).transformList(k, %s, dyn(%s))", sub(), v, expression(t, depth-1, append(slices.Clone(vars), v, v+".a", "k")))
	default:
		return fmt.Sprintf("!dyn(%s)", sub())
	}
}

// The direct way and cel-go alone agree, on results and on whether there is one.
func TestDirectAgreesWithCEL(t *testing.T) {
	direct, tried := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		source := expression(t, rapid.IntRange(1, 3).Draw(t, "depth"), nil)
		p, err := Compile(source, Message, JSON)
		if err != nil {
			t.Skip(err)
		}
		alone := &Program{root: both{foreign: p.root.foreign}, emit: p.root.foreign.emit, names: p.names}
		if p.root.direct != nil {
			direct++
		}
		tried++
		for range 4 {
			m := &message.Message{ID: "a", Data: []byte(document(t, 4)), Attributes: []message.Attribute{{Name: "x", Value: "a"}}}
			got, err := p.EvalJSON(context.Background(), For(nil, m), nil)
			want, wantErr := alone.EvalJSON(context.Background(), For(nil, m), nil)
			if (err != nil) != (wantErr != nil) || err == nil && !alike(decode(t, got), decode(t, want)) {
				t.Fatalf("%s\non %s\ngot  %s %v\nwant %s %v", source, m.Data, got, err, want, wantErr)
			}
			yes, err := p.EvalBool(context.Background(), For(nil, m))
			wantYes, wantErr := alone.EvalBool(context.Background(), For(nil, m))
			if yes != wantYes || (err != nil) != (wantErr != nil) {
				t.Fatalf("%s\non %s\ngot  %v %v\nwant %v %v", source, m.Data, yes, err, wantYes, wantErr)
			}
			list, err := (&Program{root: p.root, names: p.names, list: (&director{env: p.root.foreign.env, ast: p.root.foreign.whole}).list(p.root.foreign.part)}).EvalList(context.Background(), For(nil, m))
			wantList, wantErr := alone.EvalList(context.Background(), For(nil, m))
			if len(list) != len(wantList) || (err != nil) != (wantErr != nil) {
				t.Fatalf("%s\non %s\ngot  %q %v\nwant %q %v", source, m.Data, list, err, wantList, wantErr)
			}
		}
	})
	if direct < tried/4 {
		t.Errorf("only %d of %d expressions had a direct form: the test compares little", direct, tried)
	}
}

func decode(t *rapid.T, b []byte) any {
	var x any
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&x); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return x
}

// alike compares numbers by how they are spelt: what is copied keeps its spelling either way, and what is computed has the shortest.
func alike(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && a == b
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		// The names of an object that cel-go made come in any order.
		a, b = namesSorted(a), namesSorted(b)
		for i := range a {
			if !alike(a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k := range a {
			if _, ok := b[k]; !ok || !alike(a[k], b[k]) {
				return false
			}
		}
		return true
	}
	return a == b
}

// namesSorted sorts a list of texts.
func namesSorted(l []any) []any {
	for _, e := range l {
		if _, ok := e.(string); !ok {
			return l
		}
	}
	return slices.SortedFunc(slices.Values(l), func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
}
