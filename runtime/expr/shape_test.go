package expr

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/runtime/message"
)

const saleJSON = `{"id":"o-1042","n":130,"total":129.90,"none":null,"big":9007199254740993,"customer":{"name":"Zo\u00eb","email":" Zoe@Example.com","vip":true},` +
	`"lines":[{"sku":"B","qty":2,"price":70},{"sku":"A","qty":1,"price":1.50},{"sku":"B","qty":3,"price":19.95}],"tags":"a, b,,c","inner":"{\"a\": 1.10}",` +
	`"names":["x","y"],"values":[2.50,1],"ms":1795341600123,"date":"22.11.2026 10:00","country":"CH","deep":{"a":null,"b":[null,{"c":null,"d":1.10}]}}`

func saleMessage() *message.Message {
	return &message.Message{ID: "m", Time: "2026-11-22T10:00:00.5Z", Data: []byte(saleJSON)}
}

// What people shape JSON for: each task is one expression that can be read.
func TestShaping(t *testing.T) {
	for _, c := range []struct{ task, source, want string }{
		{"rename and nest", `{"order": {"no": data.id, "net": data.total}}`, `{"order":{"no":"o-1042","net":129.90}}`},
		{"flatten", `{"customer_name": data.customer.name, "customer_vip": data.customer.vip}`, `{"customer_name":"Zo\u00eb","customer_vip":true}`},
		{"default for what is missing", `data.?note.orValue("none")`, `"none"`},
		{"default for what is missing or null", `coalesce(data.?note, data.?none, data.?customer.?phone, "none")`, `"none"`},
		{"the first there is", `coalesce(data.?note, data.?id)`, `"o-1042"`},
		{"nothing there is", `coalesce(data.?note, data.none)`, `null`},
		{"conditional member", `{"id": data.id, ?"phone": data.customer.?phone, ?"vip": data.customer.vip ? optional.of("yes") : optional.none()}`, `{"id":"o-1042","vip":"yes"}`},
		{"add to an object", `data.customer.merge({"vip": false, "since": 2020})`, `{"name":"Zo\u00eb","email":" Zoe@Example.com","vip":false,"since":2020}`},
		{"add to an object that was made", `{"b": 1, "a": 2}.merge({"c": 3})`, `{"a":2,"b":1,"c":3}`},
		{"replace deep inside", `data.pick(["id", "customer"]).merge({"customer": data.customer.omit(["email", "name"])})`, `{"id":"o-1042","customer":{"vip":true}}`},
		{"pick", `data.pick(["total", "big", "no such"])`, `{"total":129.90,"big":9007199254740993}`},
		{"omit", `data.customer.omit(["email"])`, `{"name":"Zo\u00eb","vip":true}`},
		{"remove nulls", `data.deep.omitNulls()`, `{"b":[null,{"d":1.10}]}`},
		{"remove nulls of a list", `[null, {"a": null, "b": [{"c": null}]}].omitNulls()`, `[null,{"b":[{}]}]`},
		{"split and join texts", `data.tags.split(",").map(s, s.trim()).filter(s, s != "").join("|")`, `"a|b|c"`},
		{"lower case", `data.customer.email.trim().lowerAscii()`, `"zoe@example.com"`},
		{"sum", `data.lines.map(l, l.qty * l.price).sum()`, `201.35`},
		{"average", `double(data.lines.map(l, l.qty).sum()) / double(size(data.lines))`, `2`},
		{"least and greatest", `[math.least(data.lines.map(l, l.price)), math.greatest(data.values)]`, `[1.50,2.50]`},
		{"group", `data.lines.groupBy(l, l.sku)`, `{"B":[{"sku":"B","qty":2,"price":70},{"sku":"B","qty":3,"price":19.95}],"A":[{"sku":"A","qty":1,"price":1.50}]}`},
		{"group and sum", `data.lines.groupBy(l, l.sku).transformList(sku, ls, {"sku": sku, "units": ls.map(l, l.qty).sum()})`, `[{"sku":"B","units":5},{"sku":"A","units":1}]`},
		{"group by a number", `data.lines.groupBy(l, l.qty % 2).transformMap(k, ls, size(ls))`, `{"0":1,"1":2}`},
		{"sort by numbers of both kinds", `data.lines.sortBy(l, l.price).map(l, l.price)`, `[1.50,19.95,70]`},
		{"sort the other way round", `data.lines.sortBy(l, -l.price).map(l, l.sku)`, `["B","B","A"]`},
		{"sort", `data.values.sort()`, `[1,2.50]`},
		{"sort keeps what is alike", `data.lines.sortBy(l, l.sku)`, `[{"sku":"A","qty":1,"price":1.50},{"sku":"B","qty":2,"price":70},{"sku":"B","qty":3,"price":19.95}]`},
		{"unique", `data.lines.map(l, l.sku).distinct()`, `["B","A"]`},
		{"flat list", `[[1, [2]], [3]].flatten(2)`, `[1,2,3]`},
		{"first and last", `[data.lines[0].sku, data.lines.last().?sku.orValue("")]`, `["B","B"]`},
		{"the first ten", `data.lines.slice(0, math.least(size(data.lines), 10)).map(l, l.qty)`, `[2,1,3]`},
		{"base64", `[base64.encode(bytes(data.id)), string(base64.decode("by0xMDQy")), base64.encodeUrl(b"??>"), string(base64.decodeUrl("Pz8-"))]`, `["by0xMDQy","o-1042","Pz8-","??>"]`},
		{"URL", `"https://h/?q=" + url.encode("a b&c/ü~") + url.decode("%20+")`, `"https://h/?q=a%20b%26c%2F%C3%BC~  "`},
		{"hash", `hash.sha256(data.id) == hash.sha256(bytes(data.id)) ? hash.sha256("") : ""`, `"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"`},
		{"JSON in a text", `json.parse(data.inner)`, `{"a": 1.10}`},
		{"a member of JSON in a text", `json.parse(data.inner).?b.orValue("none")`, `"none"`},
		{"no JSON in a text", `json.parse(data.id).orValue({})`, `{}`},
		{"to JSON in a text", `json.encode(data.customer) + json.encode({"a": [1, timestamp(time)]})`, `"{\"name\":\"Zo\\u00eb\",\"email\":\" Zoe@Example.com\",\"vip\":true}{\"a\":[1,\"2026-11-22T10:00:00.5Z\"]}"`},
		{"write a date", `timestamp(time).strftime("%A %d.%m.%Y %H:%M", "Europe/Zurich")`, `"Sunday 22.11.2026 11:00"`},
		{"read a date", `strptime(data.date, "%d.%m.%Y %H:%M", "Europe/Zurich")`, `"2026-11-22T09:00:00Z"`},
		{"from milliseconds", `timestamp(0) + duration(string(data.ms) + "ms")`, `"2026-11-22T10:00:00.123Z"`},
		{"to seconds", `int(timestamp(time))`, `1795341600`},
		{"a day later", `timestamp(time) + duration("24h")`, `"2026-11-23T10:00:00.5Z"`},
		{"extract", `regex.extract(data.id, "[0-9]+").orValue("")`, `"1042"`},
		{"swap by a pattern", `regex.replace(data.id, "([a-z])-([0-9]+)", "\\2\\1")`, `"1042o"`},
		{"look up", `{"CH": "Switzerland", "AT": "Austria"}[?data.country].orValue("elsewhere")`, `"Switzerland"`},
		{"index", `data.lines.transformMapEntry(i, l, {l.sku + string(i): l.qty})`, `{"A1":1,"B0":2,"B2":3}`},
		{"zip", `data.names.transformMapEntry(i, n, {n: data.values[i]})`, `{"x":2.50,"y":1}`},
		{"object to list", `data.customer.omit(["email"]).transformList(k, v, {"k": k, "v": v})`, `[{"k":"name","v":"Zoë"},{"k":"vip","v":true}]`},
		{"number with decimals", `["%.2f".format([data.n]), "%.1f".format([data.total])]`, `["130.00","129.9"]`},
		{"round", `[math.round(data.total), math.round(data.n), math.ceil(data.n), math.floor(data.total), math.trunc(data.n), math.round(data.total * 10.0) / 10.0]`, `[130,130,130,129,130,129.9]`},
		{"bind", `cel.bind(c, data.customer, {"n": c.name, "v": c.vip})`, `{"n":"Zoë","v":true}`},
		{"ask an object that was made", `cel.bind(c, data.customer.omit(["vip"]), [has(c.vip), "name" in c, size(c) == 2, c.?vip.orValue(true), c.name == "Zoë", c == data.customer.omit(["vip"]), c == data.customer])`, `[false,true,true,true,true,true,false]`},
	} {
		if got, err := evalJSON(t, c.source, saleMessage()); err != nil || got != c.want {
			t.Errorf("%s: %s\n got %s %v\nwant %s", c.task, c.source, got, err, c.want)
		}
	}
}

func TestShapingFails(t *testing.T) {
	for source, say := range map[string]string{
		`[1, data.id].sort()`:                                     `sort() and sortBy() order numbers`,
		`data.lines.sortBy(l, l)`:                                 `sort() and sortBy() order numbers`,
		`data.lines.groupBy(l, l)`:                                `a member's name that is no string`,
		`data.id.merge(data)`:                                     `a value of a type that it does not take`,
		`data.merge(data.lines)`:                                  `a value of a type that it does not take`,
		`data.none.merge(data)`:                                   `a value of a type that it does not take`,
		`data.merge(data.none)`:                                   `a value of a type that it does not take`,
		`data.none.omit(["a"])`:                                   `a value of a type that it does not take`,
		`data.pick(data.none)`:                                    `a value of a type that it does not take`,
		`data.none.sort()`:                                        `a value of a type that it does not take`,
		`data.none.sum()`:                                         `a value of a type that it does not take`,
		`data.omit([data.n])`:                                     `a value of a type that it does not take`,
		`[1].map(x, {dyn(1.5): x})[0].omitNulls()`:                `a member's name that is no string`,
		`timestamp(time).strftime("%Q")`:                          `directives`,
		`timestamp(time).strftime("%")`:                           `directives`,
		`timestamp(time).strftime("%F", "Mars/Olympus")`:          `time zone is not known`,
		`timestamp(time).strftime("%F", "Local")`:                 `time zone is not known`,
		`strptime("999999999999", "%s")`:                          `names a time that does not exist`,
		`strptime("9999-12-31 23:59 -2359", "%Y-%m-%d %H:%M %z")`: `names a time that does not exist`,
		`strptime("30.02.2026", "%d.%m.%Y")`:                      `has not the form`,
		`strptime("22.11.2026 ", "%d.%m.%Y")`:                     `has not the form`,
		`strptime("22.11", "%d.%m.%Y")`:                           `has not the form`,
		`strptime("366 2026", "%j %Y")`:                           `has not the form`,
		`strptime("2026", "%V")`:                                  `directives`,
		`"a".matches(data.id + "{900}b{900}c{900}d{900}")`:        `larger than the 2000 instructions`,
		`url.decode("%zz")`:                                       `not percent-encoded`,
		`base64.decodeUrl("?")`:                                   `not base64url`,
		`json.encode(0.0 / 0.0)`:                                  `cannot write`,
		`data.lines.slice(0, 9)`:                                  `math.least`,
	} {
		out, err := evalJSON(t, source, saleMessage())
		if err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s gave %s %v, want an error that says %q", source, out, err, say)
		}
	}
	if err := Check(`yaml.parse(id)`, Message, JSON); err == nil {
		t.Error("YAML was taken")
	}
}

// The new functions are counted: a loop of them ends at the limit, whichever it is.
func TestShapingIsBounded(t *testing.T) {
	var members, rows []string
	for i := range 5000 {
		members = append(members, fmt.Sprintf(`"m%d":null`, i))
		rows = append(rows, `{"a":1}`)
	}
	text, _ := json.Marshal("[" + strings.Repeat("1,", 50_000) + "1]")
	m := &message.Message{Data: fmt.Appendf(nil, `{"o":{%s},"l":[%s],"s":%s}`, strings.Join(members, ","), strings.Join(rows, ","), text)}
	for _, source := range []string{
		`data.l.map(x, data.o.merge(x))`, `data.l.map(x, data.o.omit(["m1"]))`, `data.l.map(x, data.o.pick(["m1"]))`, `data.l.map(x, data.o.omitNulls())`, `data.l.map(x, data.l.omitNulls())`,
		`data.l.map(x, data.l.groupBy(y, y.a))`, `data.l.map(x, data.l.sortBy(y, y.a))`, `data.l.map(x, json.parse(data.s))`, `data.l.map(x, json.encode(data.o))`, `data.l.map(x, url.encode(data.s))`,
		`data.l.map(x, hash.sha256(data.s))`, `data.l.map(x, base64.encodeUrl(bytes(data.s)))`,
		`data.l.map(x, base64.encode(bytes(data.s)))`,
	} {
		start := time.Now()
		out, err := evalJSON(t, source, m)
		if err == nil || !strings.Contains(err.Error(), "costs more than") {
			t.Errorf("%s: %.50s %v", source, out, err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s took %s", source, took)
		}
	}
}

// What strftime writes strptime reads again.
func TestDatesComeBack(t *testing.T) {
	layouts := []string{"%Y-%m-%d %H:%M:%S.%f", "%F %T.%f %z", "%s.%f", "%d/%b/%y %I:%M:%S %p .%f", "%a, %e %B %Y %T .%f%%", "%j %Y %R:%S %f"}
	zones := []string{"UTC", "Europe/Zurich", "America/St_Johns", "Asia/Kathmandu", "+01:00", "-03:30"}
	rapid.Check(t, func(r *rapid.T) {
		at := time.UnixMicro(rapid.Int64Range(0, 2_999_999_999_000_000).Draw(r, "µs")).UTC()
		layout, zone := rapid.SampledFrom(layouts).Draw(r, "layout"), rapid.SampledFrom(zones).Draw(r, "zone")
		if strings.Contains(layout, "%y") && at.Year() >= 2069 {
			r.Skip("two digits of a year")
		}
		m := &message.Message{Time: at.Format(time.RFC3339Nano), Key: layout, Subject: zone, Data: []byte("{}")}
		p, err := Compile(`strptime(timestamp(time).strftime(key, subject), key, subject)`, Message, JSON)
		if err != nil {
			r.Fatal(err)
		}
		out, err := p.EvalJSON(context.Background(), For(nil, m), nil)
		var got time.Time
		if err == nil {
			err = json.Unmarshal(out, &got)
		}
		// When clocks are put back an hour comes twice, and only a layout with an offset tells which it was.
		if d := got.Sub(at); err != nil || d != 0 && !(d.Abs() == time.Hour && strings.Contains(zone, "/") && !strings.Contains(layout, "%z")) {
			r.Fatalf("%s in %s by %s: %s %v", at, zone, layout, out, err)
		}
	})
}

// An object with a name that stands twice has the value that stands last, whichever function looks at it.
func TestRepeatedNames(t *testing.T) {
	m := &message.Message{Data: []byte(`{"o":{"a":1,"b":2,"a":null,"c":3}}`)}
	for source, want := range map[string]string{
		`data.o.merge({})`: `{"a":null,"b":2,"c":3}`, `data.o.omitNulls()`: `{"b":2,"c":3}`, `data.o.omitNulls().c`: `3`, `data.o.pick(["a"])`: `{"a":null}`,
	} {
		if got, err := evalJSON(t, source, m); err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", source, got, err, want)
		}
	}
}
