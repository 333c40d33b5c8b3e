package expr

import (
	"strings"
	"testing"
)

// What is wrong with an expression is said with its place and with what would be right.
func TestWhatIsWrongIsSaidPlainly(t *testing.T) {
	for source, want := range map[string]string{
		`data.a = 1`:                             `line 1, column 8 (data.a ▸= 1): write == to compare`,
		`data.a === 1`:                           `(data.a ==▸= 1): write == to compare`,
		`data.a => 1`:                            `write >=`,
		`data.a ==`:                              `(data.a ==▸): the expression ends too soon: a value is missing`,
		`data.a == 1)`:                           `) is one too many`,
		`(data.a == 1`:                           `) is missing at the end`,
		`[1, 2`:                                  `] is missing at the end`,
		`{"a": data.a,`:                          `} is missing at the end`,
		`data.a ? 1`:                             `write CONDITION ? A : B`,
		`if data.a then 1`:                       `write CONDITION ? A : B`,
		`data.a and data.b`:                      `there is no and: write &&`,
		`not data.a`:                             `there is no not: write !`,
		`data.a && || data.b`:                    `a value is missing before ||`,
		`data.a data.b`:                          `an operator is missing before data`,
		`data.a == "x`:                           `a quotation mark is opened here and never closed`,
		`$.a == 1`:                               `there is no $: the content of the message is data`,
		`data..a`:                                `this cannot stand here`,
		`for == 1`:                               `for is a reserved word`,
		`datta.a == 1`:                           `there is no datta here; did you mean data?`,
		`type == order.created`:                  `text stands in quotes`,
		`data.a == True`:                         `write true`,
		"type == \"a\" &&\n datta.a":             "line 2, column 2 ( ▸datta.a): there is no datta here",
		`data.n.startswith("a")`:                 `there is no function startswith; did you mean startsWith?`,
		`frobnicate(1)`:                          `there is no function frobnicate`,
		`data.all(i)`:                            `all takes other arguments: write it as in data.lines.all(l, l.qty > 0)`,
		`(true ? 1 : [2]) == 1`:                  `the values on the two sides of the colon`,
		`has(data)`:                              `has() takes a member, as in has(data.id)`,
		`type.matches("[a")`:                     `no regular expression that can be read`,
		`timestamp("noon") > timestamp(time)`:    `write one such as timestamp("2026-01-31T12:00:00Z")`,
		`duration("5 minutes") < duration("1h")`: `write one such as duration("90s")`,
		`timestamp("2026-01-31T12:00:00Z") > time`: `as in timestamp(time)`,
		`id + 1 == "x"`: `+ does not take (string, int); convert one side`,
		`data.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa = 1`: `(…aaaaaaaaaaaaaaaaaaaaaaa ▸= 1)`,
	} {
		err := Check(source, Message, Bool)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\ngot  %v\nwant %s", source, err, want)
		} else if strings.Contains(err.Error(), "; line ") {
			t.Errorf("%s: one fault is told as several: %v", source, err)
		}
	}
}
