package expr

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/runtime/message"
)

const orderJSON = `{"id":"o-1042","customer":{"name":"Zoë Müller","email":"zoe@example.com","vip":true},"total":129.90,"currency":"CHF","lines":[{"sku":"A-1","qty":2,"price":19.95},{"sku":"B-22","qty":1,"price":70.00},{"sku":"C-333","qty":4,"price":5.00}],"note":"ring twice","seq":9007199254740993}`

func orderMessage() *message.Message {
	return &message.Message{
		ID: "m-1", Source: "/shop", Type: "order.created", Subject: "o-1042", Time: "2026-11-22T10:00:00.500Z", Key: "c-7",
		DataContentType: "application/json", Data: []byte(orderJSON),
		Attributes: []message.Attribute{{Name: "tenant", Value: "acme"}, {Name: "region", Value: "eu"}},
	}
}

func compile(t testing.TB, source string, s Scope, want Kind) *Program {
	t.Helper()
	p, err := Compile(source, s, want)
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	return p
}

func evalJSON(t testing.TB, source string, m *message.Message) (string, error) {
	t.Helper()
	out, err := compile(t, source, Message, JSON).EvalJSON(context.Background(), For(nil, m), []byte("before "))
	rest, ok := strings.CutPrefix(string(out), "before ")
	if !ok {
		t.Fatalf("%s: what was in the buffer is gone: %q", source, out)
	}
	if err == nil && !json.Valid([]byte(rest)) {
		t.Fatalf("%s: %q is not JSON", source, rest)
	}
	return rest, err
}

func TestJSONResults(t *testing.T) {
	for source, want := range map[string]string{
		`{"id": data.id, "customer": data.customer, "total": data.total, "units": data.lines.map(l, l.qty).sum()}`: `{"id":"o-1042","customer":{"name":"Zoë Müller","email":"zoe@example.com","vip":true},"total":129.90,"units":7}`,
		`data`:                       orderJSON,
		`data.lines[1]`:              `{"sku":"B-22","qty":1,"price":70.00}`,
		`data.lines[1].price`:        `70.00`,
		`data["total"]`:              `129.90`,
		`[data.total, data.seq]`:     `[129.90,9007199254740993]`,
		`data.lines.map(l, l.price)`: `[19.95,70.00,5.00]`,
		`data.lines.filter(l, l.qty > 1).map(l, {"s": l.sku, "p": l.price})`: `[{"s":"A-1","p":19.95},{"s":"C-333","p":5.00}]`,
		`data.lines.map(l, l.qty > 1, l.sku)`:                                `["A-1","C-333"]`,
		`data.?total.orValue(0)`:                                             `129.90`,
		`data.?missing.orValue("none")`:                                      `"none"`,
		`{?"total": data.?total, ?"gone": data.?gone}`:                       `{"total":129.90}`,
		`cel.bind(t, data.total, {"t": t})`:                                  `{"t":129.90}`,
		`has(data.total) ? data.total : null`:                                `129.90`,
		`has(data.gone) ? data.gone : null`:                                  `null`,
		`data.total * 2`:                                                     `259.8`,
		`2 * data.total`:                                                     `259.8`,
		`data.lines.map(l, l.qty * l.price).sum()`:                           `129.9`,
		`data.seq + 1`:                                                       `9007199254740994`,
		`7 / 2`:                                                              `3`,
		`data.lines[2].qty / 8.0`:                                            `0.5`,
		`[].sum()`:                                                           `0`,
		`{"b": 1, "a": 2}`:                                                   `{"b":1,"a":2}`,
		`timestamp(time)`:                                                    `"2026-11-22T10:00:00.5Z"`,
		`time`:                                                               `"2026-11-22T10:00:00.500Z"`,
		`duration("90s")`:                                                    `"90s"`,
		`b"abc"`:                                                             `"YWJj"`,
		`attributes`:                                                         `{"region":"eu","tenant":"acme"}`,
		`attributes.tenant + key`:                                            `"acmec-7"`,
		`"tenant" in attributes && !("x" in attributes)`:                     `true`,
		`data.customer.transformMap(k, v, k != "vip", v)`:                    `{"email":"zoe@example.com","name":"Zoë Müller"}`,
		`data.lines.transformList(i, l, i)`:                                  `[0,1,2]`,
		`data.lines.map(l, l.sku).join("+")`:                                 `"A-1+B-22+C-333"`,
		`data.note.replace("twice", "once").upperAscii()`:                    `"RING ONCE"`,
		`data.lines.sortBy(l, l.price)[0].sku`:                               `"C-333"`,
		`math.greatest(data.lines.map(l, l.qty))`:                            `4`,
		`sets.contains(data.lines.map(l, l.sku), ["A-1"])`:                   `true`,
		`base64.encode(b"hi")`:                                               `"aGk="`,
		`"%s-%d".format([data.id, data.seq])`:                                `"o-1042-9007199254740993"`,
		`regex.extract(data.id, "[0-9]+")`:                                   `"1042"`,
		`size(data.lines) + size(data)`:                                      `10`,
		`data.lines + [1]`:                                                   strings.TrimSuffix(linesText(), "]") + `,1]`,
		`type(data.total)`:                                                   `refused`,
		`data.customer == {"name": "Zoë Müller", "email": "zoe@example.com", "vip": true}`: `true`,
		`data.lines[0] in data.lines`: `true`,
		`data.lines == data.lines`:    `true`,
	} {
		if want == "refused" {
			if err := Check(source, Message, JSON); err == nil {
				t.Errorf("%s: accepted", source)
			}
			continue
		}
		if got, err := evalJSON(t, source, orderMessage()); err != nil || got != want {
			t.Errorf("%s\n got %s %v\nwant %s", source, got, err, want)
		}
	}
}

// An event's time is any of RFC 3339, and timestamp reads it.
func TestTimestampReadsEveryTimeOfAnEvent(t *testing.T) {
	for text, want := range map[string]string{
		"2016-12-31T23:59:60Z": `"2017-01-01T00:00:00Z"`, "2017-01-01t05:29:60.5+05:30": `"2017-01-01T00:00:00.5Z"`, "2026-01-01t00:00:00z": `"2026-01-01T00:00:00Z"`,
		"2016-12-31T22:59:60Z": "", "0000-01-01t00:00:00z": "", "noon": "",
	} {
		m := orderMessage()
		m.Time = text
		if got, err := evalJSON(t, "timestamp(time)", m); want != "" && (err != nil || got != want) || want == "" && err == nil {
			t.Errorf("%s: got %s, %v, want %s", text, got, err, want)
		}
		if got, err := evalJSON(t, "time", m); err != nil || got != `"`+text+`"` {
			t.Errorf("the text %s is %s, %v", text, got, err)
		}
	}
}

func linesText() string {
	_, rest, _ := strings.Cut(orderJSON, `"lines":`)
	lines, _, _ := strings.Cut(rest, `,"note"`)
	return lines
}

func TestConditions(t *testing.T) {
	for source, want := range map[string]bool{
		`type == "order.created" && data.total > 100`:         true,
		`data.total > 129`:                                    true,
		`data.total >= 129.9`:                                 true,
		`data.seq == 9007199254740993`:                        true,
		`data.seq == 9007199254740992`:                        false,
		`data.customer.vip`:                                   true,
		`!data.customer.vip || key == "c-7"`:                  true,
		`data.lines.exists(l, l.sku.startsWith("B"))`:         true,
		`data.lines.all(l, l.price > 5)`:                      false,
		`data.gone == 1 || true`:                              true,
		`false && data.gone == 1`:                             false,
		`has(data.customer.email) && !has(data.x)`:            true,
		`data.total in [129.9, 1]`:                            true,
		`data.currency in ["CHF", "EUR"]`:                     true,
		`timestamp(time) > timestamp("2026-01-01T00:00:00Z")`: true,
		`data.note.matches("^ring")`:                          true,
		`data.lines[data.lines[1].qty].qty == 1`:              true,
		`dyn(1) == 1.0`:                                       true,
	} {
		got, err := compile(t, source, Message, Bool).EvalBool(context.Background(), For(nil, orderMessage()))
		if err != nil || got != want {
			t.Errorf("%s: %v %v", source, got, err)
		}
	}
}
