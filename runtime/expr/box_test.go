package expr

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"cel.dev/cel-go/common/types"

	"github.com/waybill-dev/waybill/runtime/message"
)

// A number in a box is the double that it would be without one; only where it lies tells of the message.
func TestBoxes(t *testing.T) {
	v := For(nil, &message.Message{Data: []byte("[" + strings.Repeat("0.00,-0,1.10,1e400,5e-324,123456789012345678901234567890,", 5000) + "1.0]")})
	v.begin(t.Context())
	if v.load() != parsed {
		t.Fatal(v.err)
	}
	var all []*node
	v.nodes[0].each(func(n *node) bool { all = append(all, n); return true })
	vals := (*list)(&v.nodes[0]).vals()
	for i, n := range all {
		f, ok := vals[i].(types.Double)
		if !ok || float64(f) != n.float() || vals[i].Equal(types.Double(n.float())) != types.True || vals[i] != types.Double(n.float()) {
			t.Fatalf("%s is %v of %T", n.raw(), vals[i], vals[i])
		}
		if v.origin(vals[i]) != n {
			t.Fatalf("%s is not found again", n.raw())
		}
		if v.origin(f) != nil || v.origin(f+0) != nil || v.origin(types.Double(0)) != nil {
			t.Fatalf("a double that only equals %s is taken for it", n.raw())
		}
	}
	again := (*list)(&v.nodes[0]).vals()
	if len(v.boxes) != 1 || len(v.boxes[0].doubles) != len(v.nodes) || v.origin(again[0]) != all[0] {
		t.Error("a number that is looked at twice has two boxes")
	}
	if v.begin(t.Context()); v.origin(vals[0]) != nil {
		t.Error("boxes are kept beyond an evaluation")
	}
}

// Texts within the message have boxes beside the message's, and however many they are, few places are searched.
func TestBoxesOfManyTexts(t *testing.T) {
	var numbers, texts []string
	for i := range 3000 {
		numbers = append(numbers, fmt.Sprintf("%d.0", i), fmt.Sprintf("[%d.10]", i))
	}
	for _, n := range numbers {
		texts = append(texts, `"`+n+`"`)
	}
	m := &message.Message{Data: []byte("[" + strings.Join(texts, ",") + "]")}
	v := For(nil, m)
	got, err := compile(t, `data.map(x, json.parse(x).value()).reverse().reverse().map(x, dyn(x))`, Message, JSON).EvalJSON(t.Context(), v, nil)
	if want := "[" + strings.Join(numbers, ",") + "]"; err != nil || string(got) != want {
		t.Errorf("%.200s %v", got, err)
	}
	if len(v.boxes) == 0 || len(v.boxes) > 20 {
		t.Errorf("%d places are searched", len(v.boxes))
	}
}

// What an expression only hands on keeps its bytes, whichever way it takes; what it computes has them from nobody.
func TestCopiesKeepTheirSpelling(t *testing.T) {
	const (
		first  = `{"x":129.90,"zero":0.00,"inf":1e400,"id":123456789012345678901234567890,"h":[1.50,2.00],"l":[1.10,1.1,123456789012345678901234567891],"i":2,"c":"USD","rates":{"EUR":1.10,"USD":1.20},"o":[{"p":1.10},{"p":1.1}]}`
		second = `{"x":9007199254740993.0,"a":9007199254740992,"other":2e0,"more":2.0,"half":5e-1,"inner":"{\"a\":1.10,\"b\":123456789012345678901234567890}"}`
	)
	for _, c := range []struct{ data, source, want string }{
		{first, `{"v": coalesce(data.?x, 0)}`, `{"v":129.90}`},
		{first, `coalesce(data.?gone, data.?id)`, `123456789012345678901234567890`},
		{first, `{"v": data.rates[data.c]}`, `{"v":1.20}`},
		{first, `data.rates[?data.c].orValue(0)`, `1.20`},
		{first, `[data.l[data.i], data.l[data.i - 1], data.l[data.i - 2]]`, `[123456789012345678901234567891,1.1,1.10]`},
		{first, `cel.bind(v, data.id, v)`, `123456789012345678901234567890`},
		{first, `cel.bind(v, data.zero, {"v": v})`, `{"v":0.00}`},
		{first, `{"v": math.greatest(data.x, data.i)}`, `{"v":129.90}`},
		{first, `math.least(data.h)`, `1.50`},
		{first, `data.h.slice(0, 2) + data.l.slice(0, 2)`, `[1.50,2.00,1.10,1.1]`},
		{first, `[data.l, data.h].flatten().distinct()`, `[1.10,123456789012345678901234567891,1.50,2.00]`},
		{first, `[data.id, data.l[2]].reverse()`, `[123456789012345678901234567891,123456789012345678901234567890]`},
		{first, `[data.inf, data.x].sort()`, `[129.90,1e400]`},
		{first, `[data.inf].reverse()`, `[1e400]`},
		{first, `data.l.transformList(i, v, [v])`, `[[1.10],[1.1],[123456789012345678901234567891]]`},
		{first, `data.rates.transformMap(k, v, v)`, `{"EUR":1.10,"USD":1.20}`},
		{first, `data.o.map(e, e.p).reverse()`, `[1.1,1.10]`},
		{first, `data.o.sortBy(e, e.p).map(e, e.p)`, `[1.10,1.1]`},
		{first, `[data.x].last().orValue(0)`, `129.90`},
		{first, `data.x > 1.0 ? dyn(data.x) : dyn(0)`, `129.90`},
		{first, `json.encode({"id": data.id, "x": [data.x]})`, `"{\"id\":123456789012345678901234567890,\"x\":[129.90]}"`},
		{second, `[data.a * 1.0].reverse()`, `[9007199254740992]`},
		{second, `[1.0, 2.0].map(v, v * 0.5).reverse()`, `[1,0.5]`},
		{second, `[data.x + 0.0, data.x].reverse()`, `[9007199254740993.0,9007199254740992]`},
		{second, `json.parse(data.inner).?a.orValue(0)`, `1.10`},
		{second, `[json.parse(data.inner).?b.orValue(0)].reverse()`, `[123456789012345678901234567890]`},
		{second, `json.encode([json.parse(data.inner).?b.orValue(0)].reverse())`, `"[123456789012345678901234567890]"`},
	} {
		if got, err := evalJSON(t, c.source, &message.Message{Data: []byte(c.data)}); err != nil || got != c.want {
			t.Errorf("%s: %s %v, want %s", c.source, got, err, c.want)
		}
	}
	for source, want := range map[string]string{`coalesce(data.?id, "")`: "123456789012345678901234567890", `data.rates[data.c]`: "1.20"} {
		got, err := compile(t, source, Message, String).EvalString(t.Context(), For(nil, &message.Message{Data: []byte(first)}))
		if err != nil || got != want {
			t.Errorf("%s as a string: %s %v, want %s", source, got, err, want)
		}
	}
	// An item sees its page's numbers too, and a list of copies is one of elements that are copied.
	page := ForPage(&Page{Body: []byte(`{"x":1.10,"items":[{"y":1.1}]}`), ContentType: "application/json"})
	v := ForItem(page, []byte(`{"y":1.1000}`))
	list, err := compile(t, `[coalesce(body.?x, 0), coalesce(item.?y, 0)].reverse()`, Item, List).EvalList(t.Context(), v)
	if got := bytes.Join(list, []byte(" ")); err != nil || string(got) != "1.1000 1.10" {
		t.Errorf("an item and its page: %s %v", got, err)
	}
}

// spellings are of few values, so that many numbers of a list are equal and written differently.
var spellings = []string{"0", "0.0", "0.00", "-0", "-0.0", "1", "1.0", "1e0", "10E-1", "1.10", "1.1", "11e-1", "1e400", "1e401", "-1e400", "5e-324", "1e-400", "9007199254740993", "9007199254740993.0", "9007199254740992",
	"9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "-9223372036854775809", "123456789012345678901234567890", "123456789012345678901234567891", "1.2345678901234568e29", "0.1000000000000000055511151231257827"}

// Chains of all that hands elements on give the bytes that the same steps on a list of texts give.
func TestChainsKeepBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SliceOfN(rapid.SampledFrom(spellings), 1, 12).Draw(t, "numbers")
		text := "[" + strings.Join(numbers, ",") + "]"
		inner, _ := json.Marshal(text)
		m := &message.Message{Data: fmt.Appendf(nil, `{"l":%s,"o":{"l":%s},"i":%d,"text":%s,"none":null}`, text, text, rapid.IntRange(0, len(numbers)-1).Draw(t, "i"), inner)}
		source := rapid.SampledFrom([]string{"data.l", "data.o.l", `data["o"]["l"]`, `data.?l.orValue([])`, `json.parse(data.text).value()`, `coalesce(data.none, data.?l)`, `data.o.omitNulls().l`, `data.merge({"a": 1}).l`}).Draw(t, "source")
		want := slices.Clone(numbers)
		for range rapid.IntRange(0, 5).Draw(t, "steps") {
			step := rapid.IntRange(0, 14).Draw(t, "step")
			switch step {
			case 0:
				source += ".reverse()"
				slices.Reverse(want)
			case 1:
				from := rapid.IntRange(0, len(want)).Draw(t, "from")
				to := rapid.IntRange(from, len(want)).Draw(t, "to")
				source += fmt.Sprintf(".slice(%d, %d)", from, to)
				want = want[from:to]
			case 2:
				source += ".transformList(i, x, x)"
			case 3:
				source += ".map(x, x)"
			case 4:
				source += ".filter(x, true)"
			case 5:
				source = "cel.bind(b, " + source + ", b.map(x, cel.bind(c, x, c)))"
			case 6:
				source = "(dyn(" + source + ") + [1.10, 2])"
				want = append(slices.Clone(want), "1.1", "2")
			case 7:
				source = "[" + source + ", " + source + "].flatten()"
				want = append(slices.Clone(want), want...)
			case 8:
				source = "cel.bind(b, " + source + ", b.transformList(i, x, b[i]))"
			case 9:
				source += ".map(x, coalesce(null, x))"
			case 10:
				source += ".map(x, {\"v\": x}).map(o, o.v)"
			case 11:
				source += ".map(x, size(data) > 0 ? optional.of(x).orValue(0) : 0)"
			case 12:
				source = "json.parse(json.encode(" + source + ")).value()"
			case 13:
				source += ".groupBy(x, \"k\").transformList(k, g, g).flatten()"
			case 14:
				source += ".map(x, math.greatest(dyn(x), dyn(x)))"
			}
			if len(want) > 100 {
				break
			}
		}
		for _, wrap := range []struct{ source, want string }{
			{source, "[" + strings.Join(want, ",") + "]"},
			{`{"v": ` + source + `}`, `{"v":[` + strings.Join(want, ",") + `]}`},
			{"cel.bind(w, {\"v\": " + source + "}, w)", `{"v":[` + strings.Join(want, ",") + `]}`},
		} {
			p, err := Compile(wrap.source, Message, JSON)
			if err != nil {
				t.Fatalf("%s: %v", wrap.source, err)
			}
			v := For(nil, m)
			got, err := p.EvalJSON(context.Background(), v, nil)
			v.Release()
			if strings.Contains(wrap.source, ".groupBy(") && len(want) == 0 {
				continue
			}
			if err != nil || string(got) != wrap.want {
				t.Fatalf("%s\non %s\ngot  %s %v\nwant %s", wrap.source, m.Data, got, err, wrap.want)
			}
		}
	})
}

// Order and equality are those of the numbers, however they are spelt: sort keeps what is alike in its order, distinct the first.
func TestSortingKeepsBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SliceOfN(rapid.SampledFrom([]string{"0.00", "0", "1.10", "1.1", "11e-1", "2.0", "2", "2e0", "1e400", "2E400", "-1.50", "-1.5", "1e30", "1000000000000000000000000000000"}), 0, 12).Draw(t, "numbers")
		m := &message.Message{Data: []byte("[" + strings.Join(numbers, ",") + "]")}
		of := func(s string) float64 { f, _ := strconv.ParseFloat(s, 64); return f }
		sorted := slices.SortedStableFunc(slices.Values(numbers), func(a, b string) int { return compareFloats(of(a), of(b)) })
		var distinct []string
		for _, n := range numbers {
			if !slices.ContainsFunc(distinct, func(d string) bool { return of(d) == of(n) }) {
				distinct = append(distinct, n)
			}
		}
		for source, want := range map[string][]string{`data.sort()`: sorted, `data.sortBy(x, x)`: sorted, `data.distinct()`: distinct, `data.map(x, x).sort()`: sorted} {
			p, err := Compile(source, Message, JSON)
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.EvalJSON(context.Background(), For(nil, m), nil)
			if err != nil || string(got) != "["+strings.Join(want, ",")+"]" {
				t.Fatalf("%s of %s: %s %v, want %s", source, m.Data, got, err, want)
			}
		}
	})
}

func compareFloats(a, b float64) int {
	n, _ := orderDoubles(a, b)
	return n
}
