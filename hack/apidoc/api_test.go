package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
)

func TestThePageIsCurrent(t *testing.T) {
	var got strings.Builder
	if err := write(&got, "../../api/v1alpha1"); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got.String() {
		t.Error("docs/api.md is not what the definitions say: run make manifests, and commit what it changes")
	}
	for _, part := range []string{"## Pipeline", "| `steps[].dedupe.maxKeys` | whole number, 1 to 10000000 | 100000 |", "| `deliverTo.serviceRef` | [ServiceReference](#servicereference) |",
		"### ServiceReference", "| `ackWait` | duration from 1s to 12h | 30s |", "| `topicRef` | [ResourceReference](#resourcereference) | **required** |", "**Changes:**",
		"| `ReferenceNotFound` | A resource that is referred to does not exist", "| `Programmed` |", "`kubectl get pollers` prints: name, ", "| `Retain`, `DeleteIfEmpty`, `Delete` | Retain |"} {
		if !strings.Contains(got.String(), part) {
			t.Errorf("the page has no %q", part)
		}
	}
	for _, text := range regexp.MustCompile(`\]\(#([a-z]+)\)`).FindAllStringSubmatch(got.String(), -1) {
		if !regexp.MustCompile(`(?mi)^##+ ` + text[1] + `$`).MatchString(got.String()) {
			t.Errorf("a link goes to #%s, and no heading is called that", text[1])
		}
	}
}

// The specs that defaults are tried in, by kind; a default is tried in the first one that has what it belongs to.
var bases = map[string][]string{
	"Topic": {`{brokerRef: {name: main}}`},
	"Mailbox": {
		`{brokerRef: {name: main}, retry: {backOff: {}}, deliverTo: {serviceRef: {name: s}}}`,
		`{brokerRef: {name: main}}`,
	},
	"Subscription": {
		`{topicRef: {name: t}, retry: {backOff: {}}, deliverTo: {serviceRef: {name: s}}}`,
		`{topicRef: {name: t}, deliverTo: {topicRef: {name: u}}}`,
	},
	"Endpoint": {
		`{pattern: RequestResponse, to: {mailboxRef: {name: m}}}`,
		`{pattern: RequestAck, to: {mailboxRef: {name: m}}}`,
	},
	"Poller": {
		`{schedule: {cron: "0 3 * * *"}, http: {serviceRef: {name: s}}, to: {topicRef: {name: t}}}`,
		`{schedule: {every: 30s}, http: {serviceRef: {name: s}, pagination: {type: Page, param: p}}, to: {topicRef: {name: t}}}`,
	},
	"Pipeline": {
		`{from: {topicRef: {name: t}}, to: {http: {serviceRef: {name: s}}}}`,
		`{from: {topicRef: {name: t}}, retry: {backOff: {}}, steps: [{name: a, http: {serviceRef: {name: s}}}], to: {http: {serviceRef: {name: s}}}}`,
		`{from: {topicRef: {name: t}}, steps: [{name: a, dedupe: {key: {cel: id}, window: 1m}}], to: {topicRef: {name: u}}}`,
	},
}

// elsewhere are the defaults that the compiler does not decide, and who does.
var elsewhere = map[string]string{
	"deletionPolicy":             "the operator, when a resource is deleted",
	"replicas":                   "the definition itself",
	"workload":                   "Kubernetes",
	"Endpoint allowedNamespaces": "the operator, in a NetworkPolicy",
	"Poller schedule.timeZone":   "the scheduler, to which none is UTC",
	// Until containers are run, whatever is said of them is refused.
	"Pipeline steps[0].container.path": "nobody", "Pipeline steps[0].container.timeout": "nobody", "Pipeline steps[0].container.concurrency": "nobody",
}

// literal is a default that is a value as a manifest has it, and not a sentence.
var literal = regexp.MustCompile(`^(\d\w*|'.*'|` + "`.*`" + `|[A-Z][A-Za-z]+)$`)

// Each default on the page is tried: what is compiled with the field left out is what is compiled with the default written out, and with
// another value it is something else.
func TestTheDefaultsOnThePageAreTheCompilers(t *testing.T) {
	kinds, err := readKinds()
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, k := range kinds {
		name := k.names.Kind
		if name == "Broker" {
			continue // nothing is compiled of it by itself
		}
		each(k.spec, "", func(path string, f field) {
			d := given(f)
			if first, _, ok := strings.Cut(d, ", and "); ok {
				d = first
			}
			if first, _, ok := strings.Cut(d, " with "); ok {
				d = first
			}
			if first, _, ok := strings.Cut(d, " ("); ok {
				d = first
			}
			top, _, _ := strings.Cut(path, ".")
			if !literal.MatchString(d) || elsewhere[name+" "+path] != "" || elsewhere[top] != "" {
				return
			}
			value, other := values(f, strings.Trim(d, "'`"))
			for _, base := range bases[name] {
				left, ok := compiled(t, name, base, path, nil)
				if !ok {
					continue
				}
				written, _ := compiled(t, name, base, path, value)
				changed, _ := compiled(t, name, base, path, other)
				if left == changed || strings.Count(written, `"Refused":true`) > strings.Count(left, `"Refused":true`) {
					continue // it means nothing here, or may not stand here: the next base
				}
				tried++
				if left != written {
					t.Errorf("%s %s: the page says that its default is %s, and with that something else is compiled:\n%s\n%s", name, path, d, left, written)
				}
				return
			}
			t.Errorf("%s %s: in no base of this test does its default, %s, make a difference", name, path, d)
		})
	}
	if tried < 50 {
		t.Errorf("only %d defaults were tried", tried)
	}
	if got := compile.EmbeddedStorage(&v1alpha1.Broker{}); got.String() != "1Gi" {
		t.Errorf("an Embedded broker has %s", got.String())
	}
}

// each calls do for every field below f, by its path; of a list the first item stands for all.
func each(f field, path string, do func(string, field)) {
	for _, m := range f.members() {
		at := path + m.name
		do(at, m)
		if e, ok := m.element(); ok {
			each(e, at+"[0].", do)
		} else if m.object() != nil {
			each(m, at+".", do)
		}
	}
}

// values are a default as it would be written, and another value of the same field.
func values(f field, text string) (value, other any) {
	e := field{typ: f.typ, schema: f.schema}
	if f.object() != nil { // its first member has the word
		m := e.members()[0]
		v, o := values(m, text)
		return map[string]any{m.name: v}, map[string]any{m.name: o, "time": "2026-01-01T00:00:00Z"}
	}
	switch s := f.schema; {
	case len(s.Enum) > 0:
		for _, v := range s.Enum {
			var word string
			if json.Unmarshal(v.Raw, &word) == nil && word != text {
				return text, word
			}
		}
	case s.Type == "integer":
		var n int
		fmt.Sscan(text, &n)
		return n, n + 1
	case s.XIntOrString:
		return text, "100Ki"
	}
	if d, err := time.ParseDuration(text); err == nil {
		return text, (d + time.Second).String()
	}
	if text == "UTC" {
		return text, "Europe/Zurich"
	}
	return text, text + "other"
}

// compiled is what becomes of a resource with a field set, or left out where value is nil; false where base has no place for the field.
func compiled(t *testing.T, kind, base, path string, value any) (string, bool) {
	t.Helper()
	var spec map[string]any
	if err := yaml.Unmarshal([]byte(base), &spec); err != nil {
		t.Fatal(err)
	}
	at, keys := any(spec), strings.Split(strings.ReplaceAll(path, "[0]", ".0"), ".")
	for _, k := range keys[:len(keys)-1] {
		switch v := at.(type) {
		case map[string]any:
			at = v[k]
		case []any:
			at = v[0]
		}
		if at == nil {
			return "", false
		}
	}
	if value != nil {
		at.(map[string]any)[keys[len(keys)-1]] = value
	}
	in := compile.Input{
		Brokers:   []*v1alpha1.Broker{object[v1alpha1.Broker](t, "main", `{type: Embedded}`)},
		Topics:    []*v1alpha1.Topic{object[v1alpha1.Topic](t, "t", `{brokerRef: {name: main}}`), object[v1alpha1.Topic](t, "u", `{brokerRef: {name: main}}`)},
		Mailboxes: []*v1alpha1.Mailbox{object[v1alpha1.Mailbox](t, "m", `{brokerRef: {name: main}}`)},
		// Somebody from elsewhere who would use what this resource admits.
		Subscriptions: []*v1alpha1.Subscription{},
		Secrets:       map[types.NamespacedName][]string{},
	}
	text, err := yaml.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	spoken := string(text)
	switch kind {
	case "Topic":
		in.Topics = append(in.Topics, object[v1alpha1.Topic](t, "x", spoken))
		in.Subscriptions = append(in.Subscriptions, foreign(object[v1alpha1.Subscription](t, "f", `{topicRef: {name: x, namespace: default}, deliverTo: {uri: "http://h"}}`)))
	case "Subscription":
		in.Subscriptions = append(in.Subscriptions, object[v1alpha1.Subscription](t, "x", spoken))
	case "Mailbox":
		in.Mailboxes = append(in.Mailboxes, object[v1alpha1.Mailbox](t, "x", spoken))
		in.Subscriptions = append(in.Subscriptions, object[v1alpha1.Subscription](t, "f", `{topicRef: {name: t}, deliverTo: {mailboxRef: {name: m}}}`))
		in.Endpoints = append(in.Endpoints, foreign(object[v1alpha1.Endpoint](t, "f", `{pattern: RequestAck, to: {mailboxRef: {name: x, namespace: default}}}`)))
	case "Endpoint":
		in.Endpoints = append(in.Endpoints, object[v1alpha1.Endpoint](t, "x", spoken))
	case "Poller":
		in.Pollers = append(in.Pollers, object[v1alpha1.Poller](t, "x", spoken))
	case "Pipeline":
		in.Pipelines = append(in.Pipelines, object[v1alpha1.Pipeline](t, "x", spoken))
	}
	result := compile.Compile(in)
	for i := range result.Outcomes {
		result.Outcomes[i].Canonical = nil // the plan is told in full
	}
	out, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), true
}

func object[T any](t *testing.T, name, spec string) *T {
	t.Helper()
	out := new(T)
	text := "metadata: {name: " + name + ", namespace: default}\nspec: " + strings.ReplaceAll("\n"+spec, "\n", "\n  ")
	if err := yaml.Unmarshal([]byte(text), out); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

// foreign puts an object into another namespace.
func foreign[T interface{ SetNamespace(string) }](o T) T {
	o.SetNamespace("elsewhere")
	return o
}

// What a field of the API cannot be described by is a mistake of this program.
func TestEveryFieldHasASentence(t *testing.T) {
	kinds, err := readKinds()
	if err != nil {
		t.Fatal(err)
	}
	if len(kinds) != 7 {
		t.Fatalf("%d kinds", len(kinds))
	}
	seen := 0
	for _, k := range kinds {
		for _, top := range []field{k.spec, k.status} {
			each(top, "", func(path string, f field) {
				seen++
				if f.schema.Description == "" {
					t.Errorf("%s %s says nothing", k.names.Kind, path)
				}
			})
			if n := len(top.schema.Properties); n != len(top.members()) {
				t.Errorf("%s: the definition has %d members and the Go type %d", k.names.Kind, n, len(top.members()))
			}
		}
	}
	if seen < 300 {
		t.Errorf("only %d fields", seen)
	}
}
