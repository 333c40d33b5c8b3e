package expr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/message"
)

func TestCheckNamesPlaceAndRemedy(t *testing.T) {
	for _, c := range []struct {
		source string
		scope  Scope
		want   Kind
		say    string
	}{
		{``, Message, Bool, `the expression is empty`},
		{`tpye == "a"`, Message, Bool, `line 1, column 1 (▸tpye == "a"): there is no tpye here; did you mean type?`},
		{"true &&\n  body.x", Message, Bool, `line 2, column 3 (  ▸body.x): there is no body here; the variables are id, source, type, subject, time, datacontenttype, dataschema, key, attributes, data`},
		{`data.total`, Item, JSON, `line 1, column 1 (▸data.total): there is no data here; the variables are item, body, status, headers`},
		{`id > 3`, Message, Bool, `line 1, column 4 (id ▸> 3): > does not take (string, int); convert one side, as in string( … ), int( … ) or double( … )`},
		{`id`, Message, Bool, `the expression gives a string where true or false is needed; compare it with something, as in type == "order.created"`},
		{`status`, PageScope, List, `the expression gives an int where a list is needed; name a list, as in data.lines, or write one: [ … ]`},
		{`{"a": 1}`, Message, String, `the expression gives a map(string, int) where a string is needed; name one, as in data.id, or make one with string( … )`},
		{`type(data)`, Message, JSON, `the expression gives a type, which JSON cannot write`},
		{`data.`, Message, JSON, `line 1, column 6 (data.▸): the expression ends too soon`},
		{`"` + strings.Repeat("x", 4<<10) + `"`, Message, JSON, `the expression has 4098 bytes; at most 4096 are allowed`},
		{strings.Repeat("(", 200) + "1" + strings.Repeat(")", 200), Message, JSON, `the expression is nested deeper than 64 levels, or has too many operations in one chain: do part of it in a step of its own`},
		{"1" + strings.Repeat("+1", 300), Message, JSON, `do part of it in a step of its own`},
		{`id.matches("a{900}b{900}c{900}")`, Message, Bool, `line 1, column 12 (id.matches(▸"a{900}b{900}c{900}")): the regular expression has 2702 instructions; at most 2000 are allowed: repeat fewer times in it, or match a part`},
		// What is constant, and so fails for every message.
		{`matches(type, "[")`, Message, Bool, `line 1, column 15 (matches(type, ▸"[")): this is no regular expression that can be read (RE2): missing closing ]: "["`},
		{`matches(type, "a{5000}")`, Message, Bool, `this is no regular expression that can be read (RE2): invalid repeat count: "{5000}"`},
		{`matches(type, "a{900}b{900}c{900}")`, Message, Bool, `line 1, column 15 (matches(type, ▸"a{900}b{900}c{900}")): the regular expression has 2702 instructions; at most 2000 are allowed`},
		{`false && int("a") == 1`, Message, Bool, `line 1, column 14 (false && int(▸"a") == 1): this is no whole number of 64 bits, so int( … ) fails for every message`},
		{`item.l.exists(x, x > uint(int(-1)))`, Item, Bool, `column 30 (…l.exists(x, x > uint(int▸(-1)))): this is no whole number from 0 on of 64 bits, so uint( … ) fails`},
		{`double("x") > 1.0`, PageScope, Bool, `column 8 (double(▸"x") > 1.0): this is no number, so double( … ) fails`},
		{`bool("x")`, Message, Bool, `this is neither true nor false, so bool( … ) fails`},
		{`{"a": string(b"\xff")}`, Message, JSON, `column 14 ({"a": string(▸b"\xff")}): this is no text in UTF-8, so string( … ) fails`},
		{`{"a": 1} + {"b": 2}`, Message, JSON, `line 1, column 10 ({"a": 1} ▸+ {"b": 2}): + does not join objects; write a.merge(b)`},
	} {
		err := Check(c.source, c.scope, c.want)
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%.60s\n got %v\nwant %s", c.source, err, c.say)
		}
	}
}

func TestCheckAccepts(t *testing.T) {
	for _, c := range []struct {
		source string
		scope  Scope
		want   Kind
	}{
		{`data.ok`, Message, Bool}, {`data.id`, Message, String}, {`size(id)`, Message, String}, {`data.lines`, Message, List},
		{`item.id`, Item, String}, {`body.results`, PageScope, List}, {`headers["link"]`, PageScope, String}, {`status == 200`, Item, Bool}, {`null`, Message, JSON},
	} {
		if err := Check(c.source, c.scope, c.want); err != nil {
			t.Errorf("%s: %v", c.source, err)
		}
	}
}

func TestAnObjectEqualsItself(t *testing.T) {
	m := &message.Message{Data: []byte(`{"a":{"x":1,"x":2},"b":{"x":1,"x":2},"c":{"x":2,"x":1},"d":{"x":1,"y":2},"e":{"x":1,"x":1}}`)}
	for source, want := range map[string]bool{
		`data == data`: true, `data.a == data.a`: true, `data.a == data.b`: true, `data.a in [data.b]`: true, `[data.a] == [data.b]`: true,
		`data.a == data.c`: false, `data.a == data.d`: false, `data.d == data.a`: false, `data.e == data.d`: false, `data.d == data.e`: false, `data.e == {"x": 1, "z": 0}`: false, `data.d == {"y": 2, "x": 1}`: true, `{"y": 2, "x": 1} == data.d`: true,
	} {
		p, err := Compile(source, Message, Bool)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.EvalBool(t.Context(), For(nil, m)); err != nil || got != want {
			t.Errorf("%s: %t, %v", source, got, err)
		}
	}
}

// An error names the member that the expression names, and says when data cannot have members.
func TestErrorsNameWhatTheExpressionNames(t *testing.T) {
	for _, c := range []struct{ contentType, data, source, want string }{
		{"", `{"a":1}`, `data.total > 1`, `"total", which the expression names, is missing in this message; ask with has( … ) or write .?total`},
		{"", `{"a":{}}`, `data.a["grand total"] == 1`, `"grand total", which the expression names, is missing in this message; ask with "grand total" in data.a or write data.a[?"grand total"]`},
		{"", `{"a":{}}`, `attributes["x-next"] == "1"`, `ask with "x-next" in attributes or write attributes[?"x-next"]`},
		{"", `{"a":{}}`, "data.a.`x-next` == 1", `ask with "x-next" in data.a or write data.a[?"x-next"]`},
		{"", `{"a":{}}`, `(size(id) > 100 ? data.b : data.merge({"some": "thing that is long enough"}).a)["b c"]`, `ask with "b c" in … or write [?"b c"]`},
		{"", `{"a":{}}`, `["b"].map(k, data.a[k])`, `"b", which the expression names, is missing in this message; ask with in, or write [? … ]`},
		{"", `{"a":{}}`, `{"x": data.a.b}`, `"b", which`},
		{"", `{"a":{}}`, `data.a.list.filter(x, x > 1).size()`, `"list", which`},
		{"", `{"a":{}}`, `attributes.color == "red"`, `"color", which`},
		{"", `{"a":"b"}`, `data[data.a + data.a] == 1`, "a member that the expression names is missing"},
		{"application/x-www-form-urlencoded", `{"total":1}`, `data.total > 1`, "data is bytes and not JSON, for the message's content type is application/x-www-form-urlencoded"},
		{"text/plain; charset=utf-8", `{"total":1}`, `data.total > 1`, "data is a text and not JSON, for the message's content type is text/plain"},
	} {
		p, err := Compile(c.source, Message, JSON)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.EvalJSON(t.Context(), For(nil, &message.Message{DataContentType: c.contentType, Data: []byte(c.data)}), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.source, err, c.want)
		}
	}
}

// Where a reply goes is nobody's business but ours: whoever answered with all attributes would hand it out.
func TestAttributesAreThoseOfTheMessage(t *testing.T) {
	m := &message.Message{ID: "1", Attributes: []message.Attribute{{Name: message.ReplyTo, Value: "inbox"}, {Name: "color", Value: "red"},
		{Name: message.Correlation, Value: "rABC"}, {Name: message.Hops, Value: "2"}, {Name: message.Reason, Value: "Rejected"}}}
	for source, want := range map[string]string{
		`attributes`:                                             `{"color":"red","wbreason":"Rejected"}`,
		`size(attributes)`:                                       `2`,
		`attributes.map(n, n)`:                                   `["color","wbreason"]`,
		`has(attributes.wbreplyto)`:                              `false`,
		`"wbcorrelation" in attributes`:                          `false`,
		`attributes.?wbhops.orValue("none")`:                     `"none"`,
		`attributes == {"color": "red", "wbreason": "Rejected"}`: `true`,
		`[attributes][0]`:                                        `{"color":"red","wbreason":"Rejected"}`,
	} {
		p, err := Compile(source, Message, JSON)
		if err != nil {
			t.Fatal(source, err)
		}
		if got, err := p.EvalJSON(t.Context(), For(nil, m), nil); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v, want %s", source, got, err, want)
		}
	}
}

func TestAPageHasSoManyValues(t *testing.T) {
	p := compile(t, `body.items`, PageScope, List)
	many := `{"items":[1],"others":[` + strings.Repeat("1,", maxPageValues) + `1]}`
	_, err := p.EvalList(t.Context(), ForPage(&Page{Body: []byte(many)}))
	if err == nil || !strings.Contains(err.Error(), "the body has more than 2000000 values") || !strings.Contains(err.Error(), "smaller pages") {
		t.Error(err)
	}
	if _, err = compile(t, `item.items`, Item, JSON).EvalJSON(t.Context(), ForItem(ForPage(&Page{}), []byte(many)), nil); err == nil || !strings.Contains(err.Error(), "the item has") {
		t.Error(err)
	}
	for _, text := range []string{`1`, `[]`, `{}`, `[1]`, `[1,[2,{"a":[],"b":{}}]]`, `{"a,[{":"x,\\","b\"":",\"[{\\\"","c":[1,"]",3]}`, `"\\"`} {
		nodes, err := parse(nil, []byte(text), nil)
		if n := countValues([]byte(text)); err != nil || n != len(nodes) {
			t.Errorf("%s: %d values, %v; want %d", text, n, err, len(nodes))
		}
	}
}

func TestErrorsSayThatAPageIsNoJSON(t *testing.T) {
	for source, want := range map[string]string{
		`body`:       "gave a value of type string where a list is needed; body is a text and not JSON, for the answer's content type is text/html",
		`body.items`: "body is a text and not JSON, for the answer's content type is text/html",
	} {
		p, err := Compile(source, PageScope, List)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.EvalList(t.Context(), ForPage(&Page{ContentType: "text/html; charset=utf-8", Body: []byte(`{"items":[]}`)}))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
}

// What a message holds is in no error, wherever it stands.
func TestErrorsKeepDataToThemselves(t *testing.T) {
	const secret = "hunter2"
	m := &message.Message{ID: secret, Time: secret, Data: []byte(`{"s":"hunter2","k":{"hunter2":1},"l":["hunter2"],"n":7}`), Attributes: []message.Attribute{{Name: "a", Value: secret}}}
	for _, source := range []string{
		`data.k[data.s + "x"]`, `int(data.s)`, `timestamp(data.s)`, `duration(time)`, `data.s > 1`, `data.s.matches(data.s + "(")`, `data.l[data.s]`, `bool(id)`,
		`data.missing`, `data.k.map(k, data.k[k + "!"])`, `"%d".format([data.s])`, `data.s.substring(99)`, `attributes[data.s]`, `data[data.s]`, `data.s.a`,
		`optional.none().value()`, `data.n / 0`, `data.n % 0`, `data.l.sum()`, `dyn(data.s) + 1`, `data.l[data.n]`, `{data.s: 1, data.s: 2, 1: data[id]}`, `json.parse(data.s).value()`, `data.l.map(x, int(x))`,
		`[1, 2].sortBy(x, data.l[x])`, `data.s ? 1 : 2`, `uint(-data.n)`, `math.bitShiftLeft(data.n, -data.n)`, `lists.range(-data.n)[data.n]`, `data.s.split(data.n)`, `url.decode("%" + data.s)`, `base64.decodeUrl(data.s + "!")`, `strptime(data.s, "%F")`,
		`timestamp(0).strftime(data.s, data.s)`, `timestamp(0).strftime("%F", data.s)`, `timestamp(0).getHours(data.s)`, `data.k.merge(data.l)`, `data.k.omit([1])`, `[1, data.s].sort()`, `data.l.groupBy(x, data.k)`, `regex.extract(data.s, data.s + "(")`,
	} {
		p, err := Compile(source, Message, JSON)
		if err != nil {
			if strings.Contains(err.Error(), "undeclared") {
				t.Errorf("%s: %v", source, err)
			}
			continue
		}
		out, err := p.EvalJSON(context.Background(), For(nil, m), nil)
		if err == nil {
			t.Errorf("%s gave %s", source, out)
			continue
		}
		if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v", source, err)
		}
		if _, ok := errors.AsType[*Error](err); !ok {
			t.Errorf("%s: %T", source, err)
		}
	}
}

func TestDataThatIsNoJSON(t *testing.T) {
	for _, c := range []struct{ contentType, data, source, want string }{
		{"text/plain; charset=utf-8", "hello", `data`, `"hello"`},
		{"text/plain", "\xff\x00", `data`, `"/wA="`},
		{"application/octet-stream", "{}", `data`, `"e30="`},
		{"application/octet-stream", "{}", `size(data)`, `2`},
		{"application/vnd.x+json; v=1", `{"a":1}`, `data.a`, `1`},
		{"", `[1]`, `data[0]`, `1`},
		{"", `{"a":1`, `data.a`, "error: the message's data is not valid JSON at byte 6: the text ends within a list or object"},
		{"application/json", `{"a":1`, `id`, `"i"`},
		{"", strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1), `data`, "error: the message's data is nested deeper than the 256 levels that an expression reads, at byte 256"},
		{"", ``, `data`, `error: the message has no data`},
		{"", ``, `id`, `"i"`},
		{"nonsense;;", `{}`, `data`, `"e30="`},
	} {
		out, err := evalJSON(t, c.source, &message.Message{ID: "i", DataContentType: c.contentType, Data: []byte(c.data)})
		if err != nil {
			out = "error: " + err.Error()
		}
		if out != c.want {
			t.Errorf("%s of %q (%s): %s, want %s", c.source, c.data, c.contentType, out, c.want)
		}
	}
}

// Numbers come out as they went in, whichever way they take.
func TestNumbersKeepTheirSpelling(t *testing.T) {
	for _, n := range []string{"0", "-0", "1", "-1", "1.0", "1.10", "100", "1e2", "1E+2", "0.1", "1e-9", "9007199254740993", "9223372036854775807", "-9223372036854775808", "18446744073709551615",
		"12345678901234567890123", "0.1000000000000000055511151231257827", "3.14159265358979323846264338327950288", "1e308", "123456789.125"} {
		m := &message.Message{Data: []byte(`{"n":` + n + `,"l":[` + n + `]}`)}
		for source, want := range map[string]string{
			`data.n`: n, `{"n": data.n}`: `{"n":` + n + `}`, `data.l.map(x, x)`: `[` + n + `]`, `data.l.filter(x, true)`: `[` + n + `]`, `data.?n.orValue(1)`: n, `[data.l[0]]`: `[` + n + `]`,
			`cel.bind(x, data.n, [x])`: `[` + n + `]`, `data.l.reverse()`: `[` + n + `]`, `data.l.transformList(i, x, x)`: `[` + n + `]`, `true ? data.n : 0`: n,
		} {
			if got, err := evalJSON(t, source, m); err != nil || got != want {
				t.Errorf("%s of %s: %s %v", source, n, got, err)
			}
		}
		got, err := compile(t, `data.n`, Message, String).EvalString(context.Background(), For(nil, m))
		if err != nil || got != n {
			t.Errorf("as a string: %s is %s, %v", n, got, err)
		}
	}
	if got, err := evalJSON(t, `data`, &message.Message{Data: []byte(`1e999`)}); err != nil || got != "1e999" {
		t.Error(got, err)
	}
}

func TestEvaluationIsBounded(t *testing.T) {
	long, _ := json.Marshal(strings.Repeat("a", 400_000))
	var numbers strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&numbers, "%d,", i)
	}
	m := &message.Message{Data: fmt.Appendf(nil, `{"s":%s,"l":[%s0]}`, long, numbers.String())}
	for _, source := range []string{
		`data.l.map(a, data.l.map(b, a + b)).size()`,
		`data.l.map(a, data.l.map(b, a + b))`,
		`data.l.exists(a, data.l.exists(b, a + b < 0))`,
		`data.l.all(a, data.l.exists(b, b == a))`,
		`data.l.map(a, data.l.map(b, a * b).sum())`,
		`data.l.transformList(a, x, data.l.transformList(b, y, x + y))`,
		`data.s.replace("a", data.s)`,
		`data.s.replace("", data.s)`,
		`regex.replace(data.s, "a", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")`,
		`data.l.map(a, data.s).join(data.s)`,
		`"%s%s%s%s".format([data.l.map(a, data.s), data.s, data.s, data.s])`,
		`sets.contains(data.l, data.l)`,
		`(data.l + [1]).distinct()`,
		`cel.bind(a, data.s + data.s, cel.bind(b, a + a + a + a, cel.bind(c, b + b + b + b, cel.bind(d, c + c + c + c, d + d + d + d))))`,
		`lists.range(100000)`,
		`data.l.map(a, data.s)`,
		`data.l.map(a, data.l.reverse()).size()`,
		`data.l.map(a, data.s.reverse()).size()`,
		`data.l.map(a, data.l.sort()).size()`,
		`data.l.map(a, data.l.sortBy(b, a)).size()`,
		`data.l.map(a, bytes(data.s)).size()`,
		`data.l.map(a, "%s".format([data.s])).size()`,
		`data.l.map(a, data.s + data.s).size()`,
		`data.l.map(a, {"s": data.s})`,
		`data.l.map(a, [data.s])`,
		`dyn(data.l.map(a, data.s)).reverse()`,
		`{"a": data.l.filter(a, a < 60).map(a, data.s), "b": 1}`,
		`lists.range(10000).map(a, lists.range(10000).map(b, a + b))`,
	} {
		out, err := evalJSON(t, source, m)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Reason, "cost") && !strings.Contains(e.Reason, "MiB") && !strings.Contains(e.Reason, "comparisons") && !strings.Contains(e.Reason, "lists.range() takes 0 to 10000") && !strings.Contains(e.Reason, "16 MiB") {
			t.Errorf("%s: %.50s %v", source, out, err)
		}
	}
}

func TestCancelledAttemptStops(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("drained")
	cancel(why)
	var numbers strings.Builder
	for range 500 {
		numbers.WriteString("1,")
	}
	m := &message.Message{Data: []byte(`[` + numbers.String() + `0]`)}
	for _, source := range []string{`data.map(a, a + 1).sum() == 1`, `data.transformList(i, a, a + 1).size() == 1`, `data.exists(a, a == 7)`, `data.filter(a, a > 0).size() == 3`} {
		if _, err := compile(t, source, Message, Bool).EvalBool(ctx, For(nil, m)); !errors.Is(err, why) {
			t.Errorf("%s: %v", source, err)
		}
	}
	if _, err := compile(t, `data.map(a, {"a": a})`, Message, JSON).EvalJSON(ctx, For(nil, m), nil); !errors.Is(err, why) {
		t.Error(err)
	}
}

func TestListsAndStrings(t *testing.T) {
	ctx := context.Background()
	for source, want := range map[string]string{
		`data.lines`:                            `["{\"sku\":\"A-1\",\"qty\":2,\"price\":19.95}" "{\"sku\":\"B-22\",\"qty\":1,\"price\":70.00}" "{\"sku\":\"C-333\",\"qty\":4,\"price\":5.00}"]`,
		`data.lines.map(l, {"s": l.sku})`:       `["{\"s\":\"A-1\"}" "{\"s\":\"B-22\"}" "{\"s\":\"C-333\"}"]`,
		`data.lines.filter(l, l.price > 10)`:    `["{\"sku\":\"A-1\",\"qty\":2,\"price\":19.95}" "{\"sku\":\"B-22\",\"qty\":1,\"price\":70.00}"]`,
		`[data.total, id, [1]]`:                 `["129.90" "\"m-1\"" "[1]"]`,
		`data.lines.map(l, l.sku) + ["x"]`:      `["\"A-1\"" "\"B-22\"" "\"C-333\"" "\"x\""]`,
		`[]`:                                    `[]`,
		`data.lines.filter(l, false)`:           `[]`,
		`data.note.split(" ")`:                  `["\"ring\"" "\"twice\""]`,
		`data.gone`:                             `error`,
		`data.total`:                            `error`,
		`data.lines.map(l, l.gone)`:             `error`,
		`has(data.lines) ? data.lines : [data]`: `["{\"sku\":\"A-1\",\"qty\":2,\"price\":19.95}" "{\"sku\":\"B-22\",\"qty\":1,\"price\":70.00}" "{\"sku\":\"C-333\",\"qty\":4,\"price\":5.00}"]`,
	} {
		l, err := compile(t, source, Message, List).EvalList(ctx, For(nil, orderMessage()))
		got := fmt.Sprintf("%q", l)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s\n got %s %v\nwant %s", source, got, err, want)
		}
	}
	for source, want := range map[string]string{`data.id`: "o-1042", `data.seq`: "9007199254740993", `data.total`: "129.90", `data.customer.vip`: "true", `key + "/" + data.id`: "c-7/o-1042", `data.customer`: "error", `data.gone`: "error"} {
		got, err := compile(t, source, Message, String).EvalString(ctx, For(nil, orderMessage()))
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %s %v", source, got, err)
		}
	}
}

func TestPagesAndItems(t *testing.T) {
	ctx := context.Background()
	page := ForPage(&Page{Body: []byte(`{"results":[{"id":12345678901234567890},{"id":"b"}],"next":"c2"}`), ContentType: "application/json", Status: 200, Headers: map[string]string{"etag": "e1"}})
	items, err := compile(t, `body.results`, PageScope, List).EvalList(ctx, page)
	if err != nil || len(items) != 2 {
		t.Fatal(items, err)
	}
	id := compile(t, `item.id`, Item, String)
	all := compile(t, `{"i": item.id, "n": body.next, "s": status, "e": headers.etag}`, Item, JSON)
	for i, want := range []string{"12345678901234567890", "b"} {
		v := ForItem(page, items[i])
		if got, err := id.EvalString(ctx, v); err != nil || got != want {
			t.Error(got, err)
		}
		out, err := all.EvalJSON(ctx, v, nil)
		if err != nil || !strings.HasSuffix(string(out), `,"n":"c2","s":200,"e":"e1"}`) {
			t.Error(string(out), err)
		}
		v.Release()
	}
}

// Large objects and lists have an index, so that a loop of lookups is no square.
func TestWideAndLong(t *testing.T) {
	var members, elements []string
	for i := range 100 {
		members = append(members, fmt.Sprintf(`"m%d":%d`, i, i))
		elements = append(elements, fmt.Sprint(i))
	}
	members = append(members, `"m7":"again"`)
	m := &message.Message{Data: fmt.Appendf(nil, `{"w":{%s},"l":[%s]}`, strings.Join(members, ","), strings.Join(elements, ","))}
	for source, want := range map[string]string{
		`data.w.m99`: `99`, `data.w.m7`: `"again"`, `data.l[57]`: `57`, `lists.range(100).map(i, data.l[i]).sum()`: `4950`, `has(data.w.m100)`: `false`, `data.l[100 - 1]`: `99`,
	} {
		if got, err := evalJSON(t, source, m); err != nil || got != want {
			t.Errorf("%s: %s %v", source, got, err)
		}
	}
}

// One view serves message after message, and several expressions parse its data once.
func TestViewIsReused(t *testing.T) {
	p := compile(t, `{"n": data.n, "m": data.l.map(x, x + data.n)}`, Message, JSON)
	for i := range 50 {
		m := &message.Message{Data: fmt.Appendf(nil, `{"n":%d,"l":[1,%d]}`, i, i)}
		v := For(nil, m)
		for range 2 {
			out, err := p.EvalJSON(context.Background(), v, nil)
			if want := fmt.Sprintf(`{"n":%d,"m":[%d,%d]}`, i, 1+i, 2*i); err != nil || string(out) != want {
				t.Fatal(string(out), err, want)
			}
			if For(v, m) != v {
				t.Fatal("another view")
			}
		}
		if v.state != parsed {
			t.Fatal("not parsed")
		}
		v.Release()
	}
}

func TestAttributesAloneParseNothing(t *testing.T) {
	v := For(nil, &message.Message{Type: "a", Data: []byte(`{`), Attributes: []message.Attribute{{Name: "x", Value: "1"}}})
	ok, err := compile(t, `type == "a" && attributes.x == "1" || data.y == 1`, Message, Bool).EvalBool(context.Background(), v)
	if !ok || err != nil || v.state != unparsed {
		t.Error(ok, err, v.state)
	}
}

// Programs are shared by all batches of a flow; views are not.
func TestProgramsAreSafeForConcurrentUse(t *testing.T) {
	p := compile(t, `{"u": data.lines.map(l, l.qty).sum(), "s": data.note.upperAscii(), "g": data.?gone.orValue(data.note.split(" ").size())}`, Message, JSON)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				v := For(nil, orderMessage())
				out, err := p.EvalJSON(context.Background(), v, nil)
				if err != nil || string(out) != `{"u":7,"s":"RING TWICE","g":2}` {
					t.Errorf("%s %v", out, err)
				}
				v.Release()
			}
			if _, err := Compile(`data.lines.exists(l, l.qty > 3)`, Item, JSON); err == nil {
				t.Error("data in the scope of an item")
			}
		})
	}
	all.Wait()
}

// A name that stands twice at each level must not double the work at each level.
func TestNamesThatStandTwiceCostNoMore(t *testing.T) {
	const depth = 200
	one := strings.Repeat(`{"x":0,"x":`, depth) + `1` + strings.Repeat(`}`, depth)
	m := &message.Message{Data: []byte(`{"a":` + one + `,"b":` + one + `}`)}
	for _, source := range []string{`data.a == data.b`, `data.a in [data.b]`, `[data.a] == [data.b]`, `data.a == {"x": data.b.x}`, `{"x": data.b.x, "y": 1} == data.a`} {
		p, err := Compile(source, Message, Bool)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		var got bool
		go func() {
			defer close(done)
			got, err = p.EvalBool(t.Context(), For(nil, m))
		}()
		select {
		case <-done:
			if err != nil || got == strings.Contains(source, "{") {
				t.Errorf("%s: %t, %v", source, got, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s has no end", source)
		}
	}
}

// Whether a member is there can be asked of an expression that selects one, however it does.
func TestCompileHas(t *testing.T) {
	for source, want := range map[string]string{
		`body.a`: "true", `body.b`: "false", `body["a"]`: "true", `body["b"]`: "false", `headers["x-next"]`: "true", `headers["x-gone"]`: "false", `body.l[0]`: "true", `body.l[1]`: "false",
		`body.none`: "true", `(status == 200 ? body : body.l)["b"]`: "false", `body.gone["a"]`: "error", `body.l["a"]`: "error", `body[body.gone]`: "error", `body.a + "x"`: "none", `body[`: "none",
	} {
		p, err := CompileHas(source, PageScope)
		if err != nil {
			if want != "none" {
				t.Errorf("%s: %v", source, err)
			}
			continue
		}
		v := ForPage(&Page{Body: []byte(`{"a":"x","none":null,"l":[1]}`), ContentType: "application/json", Status: 200, Headers: map[string]string{"x-next": "2"}})
		has, err := p.EvalBool(t.Context(), v)
		got := fmt.Sprint(has)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %s %v, want %s", source, got, err, want)
		}
	}
}
