package contract

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Whoever writes an expression that is too much is told which bound it breaks, before anything runs or on the dead letter.
func TestExpressionsAreBounded(t *testing.T) {
	t.Parallel()
	says(t, "F18")
	transform := func(name, cel string) string {
		return lined(name, fmt.Sprintf("  steps: [{name: shape, transform: {cel: %q}}]\n", cel))
	}
	for cel, say := range map[string]string{
		`"` + strings.Repeat("x", 4094) + `!"`:            "4096",
		strings.Repeat("[", 80) + strings.Repeat("]", 80): "nested deeper than 64 levels",
		`id.matches("a{900}b{900}c{900}") ? 1 : 2`:        "the regular expression has 2702 instructions; at most 2000 are allowed",
		`daat.x`:              "did you mean data?",
		`{"a": 1} + {"b": 2}`: "write a.merge(b)",
	} {
		code, stdout, stderr := waybill(t, "validate", "-f", manifest(t, broker, transform("p", cel)))
		if code != 1 || !strings.Contains(stdout+stderr, say) || !strings.Contains(stdout+stderr, "spec.steps[0].transform.cel") {
			t.Errorf("%.40s: exit code %d: %.600s%s, want it to say %q", cel, code, stdout, stderr, say)
		}
	}
	p := serve(t, "kind: Mailbox\nmetadata: {name: dead}\nspec: {brokerRef: {name: main}}",
		transform("cost", `data.n.map(a, data.n.map(b, data.n.map(c, a + b + c).sum()).sum()).sum()`)+"  deadLetter: {mailboxRef: {name: dead}}",
		transform("size", `data.n.map(a, data.n.map(b, data.s))`)+"  deadLetter: {mailboxRef: {name: dead}}")
	few := `{"n":[1,2],"s":"x"}`
	many := fmt.Sprintf(`{"n":[%s1],"s":%q}`, strings.Repeat("1,", 200), strings.Repeat("s3cret", 1000))
	for name, want := range map[string]string{"cost": `36`, "size": `[["x","x"],["x","x"]]`} {
		publish(t, p.at("Topic", name, ""), name+"-many", many)
		publish(t, p.at("Topic", name, ""), name+"-few", few)
		if got := each(t, taken(t, p.at("Mailbox", name, ""), 1), "data"); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	say := map[string]string{"cost-many": "costs more than 1000000 units", "size-many": "more JSON than the 16 MiB allowed"}
	for _, l := range taken(t, p.at("Mailbox", "dead", ""), 2) {
		last := l.attribute(t, "wblasterror")
		if l.attribute(t, "wbreason") != "Terminal" || !strings.Contains(last, say[l.attribute(t, "id")]) || strings.Contains(last, "s3cret") {
			t.Errorf("%s: %s", l.attribute(t, "id"), last)
		}
	}
}
