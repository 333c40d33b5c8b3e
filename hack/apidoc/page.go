package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// A page is being written.
type page struct {
	strings.Builder
	code   *code
	shared map[reflect.Type][]field // every place of a struct that stands in several
}

const introduction = `# API reference

Made from the definitions in config/crd and the types in api/v1alpha1 (` + "`make manifests`" + ` writes it anew); do not edit it. The pages about the
[patterns](../README.md#documentation) say what to use these fields for; [contract.md](contract.md) says what can be relied on.

All kinds are of ` + "`apiVersion: waybill.dev/v1alpha1`" + ` and live in a namespace. ` + "`metadata.name`" + ` has at most 48 characters, lower case letters, digits
and ` + "`-`" + `, and begins with a letter. A *duration* is written as ` + "`90s`, `1m30s` or `24h`" + `, an *amount* of bytes as ` + "`512Ki` or `10Gi`" + `. *CEL* is an expression: see
[expressions.md](expressions.md). What says nothing in the column *Default* may be left out.

`

func (p *page) write(kinds []kind) {
	p.find(kinds)
	p.WriteString(introduction)
	p.row("Kind", "kubectl", "What it is")
	p.row("---", "---", "---")
	for _, k := range kinds {
		p.row(link(k.names.Kind), "`"+k.names.Plural+"`, `"+strings.Join(k.names.ShortNames, "`, `")+"`", k.about)
	}
	for _, k := range kinds {
		p.kind(k)
	}
	p.types()
	p.conditions()
}

// find counts where each struct stands. What stands in one place is described there, with the path of each field.
func (p *page) find(kinds []kind) {
	p.shared = map[reflect.Type][]field{}
	var look func(f field)
	look = func(f field) {
		if e, ok := f.element(); ok {
			f = e
			look(f)
			return
		}
		if t := f.object(); t != nil {
			p.shared[t] = append(p.shared[t], f)
			if len(p.shared[t]) > 1 {
				return
			}
		}
		for _, m := range f.members() {
			look(m)
		}
	}
	for _, k := range kinds {
		for _, top := range []field{k.spec, k.status} {
			for _, m := range top.members() {
				look(m)
			}
		}
	}
	for t, places := range p.shared {
		if len(places) < 2 {
			delete(p.shared, t)
		}
	}
}

func (p *page) kind(k kind) {
	fmt.Fprintf(p, "\n## %s\n\n%s\n", k.names.Kind, k.about)
	p.table("spec", k.spec)
	p.table("status", k.status)
	var columns []string
	for _, c := range k.columns {
		name := c.Name
		if c.Priority > 0 {
			name += " (with -o wide)"
		}
		columns = append(columns, name)
	}
	fmt.Fprintf(p, "\n`kubectl get %s` prints: name, %s.", k.names.Plural, strings.Join(columns, ", "))
	if k.scaled {
		fmt.Fprintf(p, " `kubectl scale` and autoscalers set `spec.replicas`.")
	}
	p.WriteString("\n")
}

// table has the fields of an object and of the objects in it, each by its path.
func (p *page) table(title string, f field) {
	fmt.Fprintf(p, "\n### %s\n\n", title)
	p.row("Field", "Type", "Default", "Meaning")
	p.row("---", "---", "---", "---")
	p.rows("", f)
	p.rules(f)
}

func (p *page) rules(f field) {
	if len(f.schema.XValidations) == 0 {
		return
	}
	p.WriteString("\nRules:\n")
	for _, r := range f.schema.XValidations {
		fmt.Fprintf(p, "- %s\n", cell(ruleText(r)))
	}
}

func (p *page) rows(path string, f field) {
	for _, m := range f.members() {
		at := path + m.name
		otherwise := given(m)
		if m.required {
			otherwise = "**required**"
		}
		p.row("`"+at+"`", p.typeOf(m), otherwise, sentence(m))
		inner, deeper := m, at+"."
		if e, ok := m.element(); ok {
			inner = e
			deeper = at + "[]."
			if m.schema.AdditionalProperties != nil {
				deeper = at + ".KEY."
			}
		}
		if t := m.object(); t != nil && p.shared[t] == nil {
			p.rows(deeper, inner)
		}
	}
}

// types describes what stands in several places.
func (p *page) types() {
	p.WriteString("\n## Types that stand in several places\n")
	for _, t := range slices.SortedFunc(keys(p.shared), func(a, b reflect.Type) int { return cmp.Compare(a.Name(), b.Name()) }) {
		f := p.shared[t][0]
		fmt.Fprintf(p, "\n### %s\n\n%s\n\n", t.Name(), p.code.types[t.Name()])
		p.row("Field", "Type", "Default", "Meaning")
		p.row("---", "---", "---", "---")
		p.rows("", f)
		p.rules(f)
	}
}

func (p *page) conditions() {
	p.WriteString("\n## Conditions\n\nEach kind's `status.conditions` has these types. `reason` is one of the words below; the diagnostics of `waybill validate` have the same.\n" +
		"What a resource struggles with while it runs stands on the page `/status` of the worker, or of `waybill run`, as `condition`: [operations.md](operations.md#conditions-of-status)\n" +
		"has these words. Reasons of dead letters are in [pubsub.md](pubsub.md#dead-letters), those of HTTP answers in [contract.md](contract.md#reasons).\n")
	for _, g := range p.code.groups {
		switch title := g.about; {
		case g.typ == "DeadLetterReason":
			continue // of messages, not of resources: the page about dead letters has them
		case title == "":
			p.WriteString("\n")
			p.row("Type", "Meaning")
		default:
			fmt.Fprintf(p, "\n%s:\n\n", title)
			p.row("Reason", "Meaning")
		}
		p.row("---", "---")
		for _, w := range g.words {
			p.row("`"+w.name+"`", w.about)
		}
	}
}

func (p *page) row(cells ...string) {
	for i := range cells {
		cells[i] = cell(cells[i])
	}
	fmt.Fprintf(p, "| %s |\n", strings.Join(cells, " | "))
}

// cell makes a text fit for a table of Markdown.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
}

func link(name string) string { return "[" + name + "](#" + strings.ToLower(name) + ")" }

// typeOf says what a field takes, with its bounds.
func (p *page) typeOf(f field) string {
	s := f.schema
	if e, ok := f.element(); ok {
		what := "list" + size(s.MinItems, s.MaxItems) + " of "
		switch {
		case s.AdditionalProperties != nil:
			what = "mapping" + size(s.MinProperties, s.MaxProperties) + " of names to "
		case len(s.XListMapKeys) > 0:
			what = "list" + size(s.MinItems, s.MaxItems) + ", each " + strings.Join(s.XListMapKeys, " and ") + " once, of "
		}
		return what + p.typeOf(e)
	}
	if t := f.object(); t != nil {
		if p.shared[t] != nil {
			return link(t.Name())
		}
		return "mapping"
	}
	switch f.typ {
	case reflect.TypeFor[metav1.Condition]():
		return "[conditions](#conditions)"
	case reflect.TypeFor[*runtime.RawExtension]():
		return "JSON"
	}
	for _, r := range s.XValidations {
		if rest, ok := strings.CutPrefix(r.Message, "must be a duration "); ok {
			rest, _, _ = strings.Cut(rest, ", such as ")
			return "duration " + rest
		}
	}
	switch {
	case len(s.Enum) > 0:
		var words []string
		for _, v := range s.Enum {
			var word string
			if json.Unmarshal(v.Raw, &word) == nil {
				words = append(words, "`"+word+"`")
			}
		}
		return strings.Join(words, ", ")
	case s.XIntOrString:
		return "amount"
	case s.Type == "string" && s.Format == "date-time":
		return "time"
	case s.Type == "string":
		return "text" + bounds(s.MinLength, s.MaxLength, " characters")
	case s.Type == "integer":
		return "whole number" + numbers(s.Minimum, s.Maximum)
	case s.Type == "number":
		return "number" + numbers(s.Minimum, s.Maximum)
	case s.Type == "boolean":
		return "true or false"
	}
	return "mapping"
}

func bounds(least, most *int64, unit string) string {
	switch {
	case most != nil && *most == 0, least == nil && most == nil:
		return ""
	case most == nil:
		return fmt.Sprintf(", %d or more%s", *least, unit)
	case least == nil || *least == 0:
		return fmt.Sprintf(", at most %d%s", *most, unit)
	}
	return fmt.Sprintf(", %d to %d%s", *least, *most, unit)
}

func size(least, most *int64) string {
	if text := bounds(least, most, ""); text != "" {
		return " (" + strings.TrimPrefix(text, ", ") + ")"
	}
	return ""
}

func numbers(least, most *float64) string {
	switch {
	case least != nil && most != nil:
		return ", " + plain(*least) + " to " + plain(*most)
	case least != nil:
		return ", " + plain(*least) + " or more"
	case most != nil:
		return ", at most " + plain(*most)
	}
	return ""
}

func plain(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// sentence is what a field means, and the rules that its type does not tell.
func sentence(f field) string {
	out, _ := divided(f)
	for _, r := range f.schema.XValidations {
		if !strings.HasPrefix(r.Message, "must be a duration ") && f.object() == nil {
			out += " " + ruleText(r)
		}
	}
	return out
}

// ruleText is a rule in words; one that looks at what was there before is about changes.
func ruleText(r apiextensions.ValidationRule) string {
	text := r.Message
	if rest, ok := strings.CutPrefix(text, "must "); ok {
		text = "Must " + rest
	}
	if strings.Contains(r.Rule, "oldSelf") {
		text = "**Changes:** " + text
	}
	return strings.TrimSuffix(text, ".") + "."
}

// A default stands behind a mark, as in "…; default 30s." or "…. Default: all." What it is called in a Secret is another matter.
var otherwise = regexp.MustCompile(`(?:[;,.] |^)[Dd]efault:? ([^;]+?)(, at least .*?)?(?:(; )|\. |\.?$)`)

// divided is the description of a field without its default, and the default.
func divided(f field) (about, without string) {
	about = strings.Join(strings.Fields(f.schema.Description), " ")
	for _, m := range otherwise.FindAllStringSubmatchIndex(about, -1) {
		without = about[m[2]:m[3]]
		if strings.HasPrefix(without, "key:") {
			continue
		}
		before, behind := strings.TrimSuffix(about[:m[0]], "."), about[m[1]:]
		switch {
		case m[4] >= 0:
			return before + ": " + strings.TrimSpace(about[m[4]+2:m[5]]+". "+behind), without
		case m[6] >= 0:
			return before + "; " + behind, without
		}
		return strings.TrimSpace(before + ". " + behind), without
	}
	return about, ""
}

// given is what holds where a field is left out: the definition's default, or what its description names.
func given(f field) string {
	if d := f.schema.Default; d != nil {
		return "`" + string(d.Raw) + "`"
	}
	_, without := divided(f)
	return without
}

func keys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
