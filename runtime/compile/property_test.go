package compile

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/runtime/plan"
)

// samples are the documents of the golden tests.
func samples(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	out := map[string][]byte{}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		out[p] = data
	}
	return out
}

// shuffled is the same set in another order.
func shuffled(t *rapid.T, in Input) Input {
	in.Brokers = shuffle(t, in.Brokers)
	in.Topics = shuffle(t, in.Topics)
	in.Subscriptions = shuffle(t, in.Subscriptions)
	in.Mailboxes = shuffle(t, in.Mailboxes)
	in.Pollers = shuffle(t, in.Pollers)
	in.Endpoints = shuffle(t, in.Endpoints)
	in.Pipelines = shuffle(t, in.Pipelines)
	if in.Secrets != nil {
		secrets := map[types.NamespacedName][]string{}
		for name, keys := range in.Secrets {
			slices.Reverse(keys)
			secrets[name] = keys
		}
		in.Secrets = secrets
	}
	return in
}

func shuffle[T any](t *rapid.T, list []T) []T {
	if len(list) < 2 {
		return list
	}
	return rapid.Permutation(list).Draw(t, "order")
}

func TestOrderOfInputDoesNotMatter(t *testing.T) {
	all := samples(t)
	paths := slices.Sorted(maps.Keys(all))
	rapid.Check(t, func(t *rapid.T) {
		in, err := decode(all[rapid.SampledFrom(paths).Draw(t, "sample")])
		if err != nil {
			t.Fatal(err)
		}
		want, got := Compile(in), Compile(shuffled(t, in))
		if !reflect.DeepEqual(want, got) {
			a, _ := yaml.Marshal(goldenOf(want))
			b, _ := yaml.Marshal(goldenOf(got))
			t.Fatal(firstDifference(string(a), string(b)))
		}
	})
}

// TestMutated changes fields of valid and invalid documents at random: whatever comes of it, nothing breaks, and what check says holds.
func TestMutated(t *testing.T) {
	var docs []any
	all := samples(t)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		for doc := range bytes.SplitSeq(all[path], []byte("\n---\n")) {
			var v any
			if err := yaml.Unmarshal(doc, &v); err != nil {
				t.Fatal(err)
			}
			docs = append(docs, v)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var text bytes.Buffer
		for range rapid.IntRange(1, 12).Draw(t, "documents") {
			doc := clone(rapid.SampledFrom(docs).Draw(t, "document"))
			for range rapid.IntRange(0, 3).Draw(t, "changes") {
				other := clone(rapid.SampledFrom(docs).Draw(t, "other"))
				doc = mutate(t, doc, other)
			}
			b, err := yaml.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			in, err := decode(b)
			if err != nil || len(in.Brokers)+len(in.Topics)+len(in.Subscriptions)+len(in.Mailboxes)+len(in.Pollers)+len(in.Endpoints)+len(in.Pipelines) == 0 {
				continue // what cannot be decoded never gets here
			}
			text.Write(b)
			text.WriteString("\n---\n")
		}
		in, err := decode(text.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		check(t, in)
		if want, got := Compile(in), Compile(shuffled(t, in)); !reflect.DeepEqual(want, got) {
			t.Fatalf("the order matters: %v\n%v", want.Diagnostics, got.Diagnostics)
		}
	})
}

func clone(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var out any
	if err := json.Unmarshal(b, &out); err != nil {
		panic(err)
	}
	return out
}

// mutate takes a field of the document away, or gives it another value: one of the same place in another document, or an odd one.
func mutate(t *rapid.T, doc, other any) any {
	m, ok := doc.(map[string]any)
	if !ok || len(m) == 0 || rapid.IntRange(0, 4).Draw(t, "here") == 0 {
		return rapid.SampledFrom([]any{nil, "", "a", "-1s", "9999h", "{{", float64(0), float64(-1), float64(1 << 40), []any{}, map[string]any{}, other}).Draw(t, "value")
	}
	k := rapid.SampledFrom(slices.Sorted(maps.Keys(m))).Draw(t, "field")
	if k == "apiVersion" || k == "kind" {
		k = "spec"
	}
	o, _ := other.(map[string]any)
	switch {
	case rapid.IntRange(0, 3).Draw(t, "take away") == 0:
		delete(m, k)
	case o != nil && rapid.Bool().Draw(t, "swap"):
		if v, ok := o[k]; ok {
			m[k] = v
		}
	default:
		m[k] = mutate(t, m[k], o[k])
	}
	return m
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// check states what holds for every result.
func check(t failer, in Input) {
	t.Helper()
	res := Compile(in)
	if !slices.IsSortedFunc(res.Diagnostics, compareDiagnostics) {
		t.Fatalf("diagnostics are not sorted: %v", res.Diagnostics)
	}
	said := map[plan.Resource]bool{}
	for _, d := range res.Diagnostics {
		said[plan.Resource{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name}] = true
		if d.Field == "" || d.Reason == "" || d.Message == "" || strings.Contains(d.Message, "%!") {
			t.Fatalf("incomplete diagnostic: %+v", d)
		}
	}
	for i := range res.Outcomes {
		o := &res.Outcomes[i]
		if o.Refused != said[o.Resource] {
			t.Fatalf("%s: refused %v, but diagnostics %v", o.Resource, o.Refused, said[o.Resource])
		}
		if (o.Plan != nil) != (!o.Refused && o.Resource.Kind != "Broker") {
			t.Fatalf("%s: refused %v, plan %v", o.Resource, o.Refused, o.Plan)
		}
		if o.Plan != nil {
			checkPlan(t, o)
		}
		if found := res.Outcome(o.Resource); found != o {
			t.Fatalf("%s is not found", o.Resource)
		}
	}
}

func checkPlan(t failer, o *Outcome) {
	t.Helper()
	p := o.Plan
	read, err := plan.Unmarshal(o.Canonical)
	if err != nil {
		t.Fatalf("%s: %v", o.Resource, err)
	}
	again, err := plan.Marshal(read)
	if err != nil || !bytes.Equal(again, o.Canonical) {
		t.Fatalf("%s: not the same after reading: %v\n%s\n%s", o.Resource, err, o.Canonical, again)
	}
	if len(o.Canonical) > maxPlanBytes {
		t.Fatalf("%s: %d bytes", o.Resource, len(o.Canonical))
	}
	for _, secret := range []string{"not-shown", ":secret@"} {
		if bytes.Contains(o.Canonical, []byte(secret)) {
			t.Fatalf("%s holds a secret: %s", o.Resource, o.Canonical)
		}
	}
	connected := func(r plan.Ref) bool {
		return slices.ContainsFunc(p.Brokers, func(b plan.Broker) bool { return b.Name == r.Broker })
	}
	made := map[plan.Ref]bool{}
	for _, obj := range p.Objects {
		if !connected(obj.Ref) || made[obj.Ref] || obj.Name == "" || obj.Owner == "" {
			t.Fatalf("%s: object %+v", o.Resource, obj)
		}
		made[obj.Ref] = true
	}
	own := 0
	for _, obj := range p.Objects {
		if obj.Owner == o.Resource.String() {
			own++
		} else if obj.Kind == "Group" {
			t.Fatalf("%s: the position %+v is another resource's", o.Resource, obj)
		}
	}
	if len(o.Owned()) != own {
		t.Fatalf("%s owns %v, of %v", o.Resource, o.Owned(), p.Objects)
	}
	for _, r := range refs(p) {
		if !made[r] {
			t.Fatalf("%s uses %+v, which is not among its objects", o.Resource, r)
		}
	}
	if o.Effective.Guarantee == "" || o.Effective.Ordering == "" || o.Effective.Mechanism == "" || !reflect.DeepEqual(o.Effective, p.Effective) {
		t.Fatalf("%s: effective %+v", o.Resource, o.Effective)
	}
	if f := p.Flow; f != nil {
		if f.Policy.BatchSize < 1 || f.Policy.MaxInFlight < f.Policy.BatchSize || f.Source.WindowMessages < f.Policy.MaxInFlight || f.Policy.Retry.MaxAttempts < 1 ||
			f.Policy.Retry.Initial > f.Policy.Retry.Max || f.Source.Object.Name == "" {
			t.Fatalf("%s: %+v %+v", o.Resource, f.Policy, f.Source)
		}
	}
	NeedsOf(p)
}

// refs are the objects that a plan's parts use.
func refs(p *plan.Plan) []plan.Ref {
	var out []plan.Ref
	add := func(r *plan.Ref) {
		if r != nil {
			out = append(out, *r)
		}
	}
	if p.Topic != nil {
		add(&p.Topic.Object)
	}
	if p.Mailbox != nil {
		add(&p.Mailbox.Object)
		add(p.Mailbox.DeadLetter)
	}
	if p.Endpoint != nil {
		add(&p.Endpoint.To)
	}
	if p.Poller != nil {
		add(&p.Poller.To)
	}
	if f := p.Flow; f != nil {
		add(&f.Source.Object)
		add(f.Policy.DeadLetter)
		if f.Source.Group != "" {
			add(&plan.Ref{Broker: f.Source.Object.Broker, Kind: "Group", Name: f.Source.Group, Of: f.Source.Object.Name})
		}
		if f.Sink.Publish != nil {
			add(&f.Sink.Publish.Object)
		}
		if f.Sink.Push != nil && f.Sink.Push.ReplyTo != nil {
			add(&f.Sink.Push.ReplyTo.Object)
		}
	}
	return out
}

func FuzzCompile(f *testing.F) {
	for _, data := range samples(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := decode(data)
		if err != nil {
			return
		}
		check(t, in)
		slices.Reverse(in.Topics)
		slices.Reverse(in.Mailboxes)
		slices.Reverse(in.Subscriptions)
		slices.Reverse(in.Pipelines)
		check(t, in)
	})
}
