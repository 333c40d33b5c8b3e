package expr

import (
	"strings"
	"testing"
)

// What other languages write is answered with what would be right here.
func TestTheWordsOfOtherLanguagesAreAnswered(t *testing.T) {
	for source, want := range map[string]string{
		`len(data.x) > 1`:                `there is no function len: write it as in size(data.lines)`,
		`data.x.length() > 1`:            `write it as in size(data.lines)`,
		`data.x.toLowerCase() == "a"`:    `data.name.lowerAscii()`,
		`data.x.any(i, i > 1)`:           `data.lines.exists(l, l.qty > 0)`,
		`data.items.some(x => x.a)`:      `there are no functions of one's own`,
		`not(data.a)`:                    `!(data.done)`,
		`now() > 1`:                      `there is no clock`,
		`data.a <> 1`:                    `write !=`,
		`data.a ?? 1`:                    `coalesce(data.?qty, 1)`,
		`data?.a == 1`:                   `data.?order.?id.orValue(0)`,
		`data.a & data.b`:                `write &&`,
		`data.a | data.b`:                `write ||`,
		`data.a =~ "x"`:                  `data.name.matches("^a")`,
		`data.a matches "x"`:             `data.name.matches("^a")`,
		`data.a contains "x"`:            `data.name.contains("x")`,
		`contains(data.x, "a")`:          `contains stands behind what it looks at: write it as in data.name.contains( … )`,
		`data.a in ("x", "y")`:           `data.kind in ["a", "b"]`,
		`data.a == 1;`:                   `remove it`,
		`data.a == 1 # why`:              `a comment begins with //`,
		"`x${data.a}` == 'x'":            `put together with +`,
		`f"{data.a}" == "x"`:             `put together with +`,
		`$.a == 1`:                       `there is no $: the content of the message is data`,
		`.a == 1`:                        `the content of the message is data`,
		`payload.a == 1`:                 `there is no payload here: the content of the message is data`,
		`data.a == undefined`:            `write null; whether a member is there at all tells has(data.id)`,
		`[data.a, data.b].join() == nil`: `write null`,
	} {
		err := Check(source, Message, Bool)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\ngot  %v\nwant %s", source, err, want)
		} else if strings.Contains(err.Error(), "; line ") {
			t.Errorf("%s: one fault is told as several: %v", source, err)
		}
	}
	if err := Check(`len(item.x) > 1`, Item, Bool); err == nil || !strings.Contains(err.Error(), "size(item.lines)") {
		t.Errorf("of an item: %v", err)
	}
	if err := Check(`payload.x > 1`, Item, Bool); err == nil || strings.Contains(err.Error(), "data") {
		t.Errorf("of an item there is no data: %v", err)
	}
}

// What is advised has to be right.
func TestTheAdviceCompiles(t *testing.T) {
	sources := []string{`data.name.matches("^a")`, `data.name.contains("x")`, `data.kind in ["a", "b"]`, `coalesce(data.?qty, 1)`, `has(data.qty) ? data.qty : 1`,
		`"order " + string(data.id)`, `data.?order.?id.orValue(0)`, `data.a.merge(data.b)`}
	for _, right := range calls {
		for part := range strings.SplitSeq(right, ", or ") {
			part, _, _ = strings.Cut(part, ", for ")
			sources = append(sources, part)
		}
	}
	for _, example := range macros {
		sources = append(sources, example)
	}
	for _, source := range sources {
		for _, scope := range []Scope{Message, Item} {
			if err := Check(scope.example(source), scope, JSON); err != nil && !(scope == Item && strings.Contains(source, "(time)")) {
				t.Errorf("%s: %v", scope.example(source), err)
			}
		}
	}
}
