package manifest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/manifest"
)

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, opts manifest.Options, paths ...string) *manifest.Set {
	t.Helper()
	set, diagnostics, err := manifest.Read(paths, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range diagnostics {
		t.Error(d)
	}
	return set
}

func topic(name string) string {
	return "apiVersion: waybill.dev/v1alpha1\nkind: Topic\nmetadata: {name: " + name + "}\nspec: {brokerRef: {name: main}}\n"
}

func names[T interface{ GetName() string }](list []T) string {
	var out []string
	for _, o := range list {
		out = append(out, o.GetName())
	}
	return strings.Join(out, " ")
}

func TestRight(t *testing.T) {
	set := read(t, manifest.Options{}, "testdata/right")
	for _, c := range []struct{ got, want string }{
		{names(set.Brokers), "kafka main"}, {names(set.Topics), "orders"}, {names(set.Subscriptions), "billing"}, {names(set.Mailboxes), "invoices"},
		{names(set.Pollers), "rates rows"}, {names(set.Endpoints), "checkout"}, {names(set.Pipelines), "enrich till"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	if len(set.Refused) != 0 {
		t.Errorf("refused: %v", set.Refused)
	}
	if s := set.Subscriptions[0]; s.Namespace != "default" || s.Spec.Timeout.Duration != 90*time.Second || *s.Spec.Replicas != 1 ||
		s.Spec.Filter.CEL != `type == "order.created" && data.total > 100` || s.Spec.Workload.NodeSelector["app"] != "billing" ||
		!s.Spec.StartFrom.Time.Time.Equal(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("subscription: %+v", s)
	}
	o := set.Topics[0]
	if o.Namespace != "shop" || *o.Spec.Replicas != 0 || o.Spec.Retention.MaxBytes.Value() != 10<<30 || o.Spec.MaxMessageBytes.Value() != 524288 {
		t.Errorf("topic: %+v", o)
	}
	var schema map[string]any
	if err := json.Unmarshal(o.Spec.Schema.JSONSchema.Raw, &schema); err != nil || schema["type"] != "object" {
		t.Errorf("schema: %s, %v", o.Spec.Schema.JSONSchema.Raw, err)
	}
	if b := set.Brokers[0]; b.Status.Features == nil || b.Status.Features.MaxMessageBytes != 1048588 {
		t.Errorf("a status is kept for those who compile by it: %+v", b.Status)
	}
	if set.Mailboxes[0].Spec.Retry != nil {
		t.Error("null is the same as absent")
	}
	if set.Namespaces["shop"]["team"] != "sales" {
		t.Errorf("namespaces: %v", set.Namespaces)
	}
	if len(set.Secrets) != 1 || string(set.Secrets[0].Data["token"]) != "s3cret" || string(set.Secrets[0].Data["publish"]) != "plain" {
		t.Errorf("secrets: %v", set.Secrets)
	}
	if len(set.Skipped) != 1 || set.Skipped[0].Kind != "Deployment" || set.Skipped[0].Count != 2 || set.Skipped[0].Line != 43 {
		t.Errorf("skipped: %+v", set.Skipped)
	}
}

func TestLocate(t *testing.T) {
	set := read(t, manifest.Options{}, "testdata/right/all.yaml")
	text, err := os.ReadFile("testdata/right/all.yaml")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for _, c := range []struct{ kind, namespace, name, field, line string }{
		{"Subscription", "default", "billing", "spec.filter.cel", "    cel: >-"},
		{"Subscription", "default", "billing", "spec.retry.backOff.initial", "  retry: {maxAttempts: 10"},
		{"Subscription", "default", "billing", "metadata.annotations[example.com/owner]", "metadata: {name: billing"},
		{"Subscription", "default", "billing", "metadata.annotations.example.com/owner", "metadata: {name: billing"},
		{"Subscription", "default", "billing", "spec.workload.env[1].secretRef", "    env: "},
		{"Subscription", "default", "billing", "spec.workload.nodeSelector.app", "metadata: {name: billing"}, // where the anchor is
		{"Topic", "shop", "orders", "spec.schema.jsonSchema.properties", "        properties: {id"},
		{"Topic", "shop", "orders", "spec.externalName", "  spec:"}, // absent: the nearest around it
		{"Topic", "shop", "orders", "", "- apiVersion: waybill.dev/v1alpha1"},
		{"Pipeline", "default", "enrich", "spec.steps[2].split.cel", "  - {name: lines"},
		{"Pipeline", "default", "enrich", "spec.steps[name=once].dedupe", "  - {name: once"},
		{"Pipeline", "default", "enrich", "spec.steps[17]", "  steps:"},
		{"Pipeline", "default", "enrich", "spec.to.postgres.columns[total].cel", "      columns: {id"},
		{"Secret", "default", "token", "data.token", "data: {token"},
	} {
		file, line := set.Locate(c.kind, c.namespace, c.name, c.field)
		if file != "testdata/right/all.yaml" || line < 1 || !strings.HasPrefix(strings.TrimPrefix(lines[line-1], "  "), strings.TrimPrefix(c.line, "  ")) {
			t.Errorf("%s %s: %s:%d", c.name, c.field, file, line)
		}
	}
	if file, line := set.Locate("Topic", "default", "nobody", "spec"); file != "" || line != 0 {
		t.Errorf("what was not read is at %s:%d", file, line)
	}
}

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "b.yml", topic("b"))
	write(t, dir, "a.yaml", topic("a"))
	write(t, dir, "c.json", `{"apiVersion":"waybill.dev/v1alpha1","kind":"Topic","metadata":{"name":"c"},"spec":{"brokerRef":{"name":"main"}}}`)
	write(t, dir, "notes.txt", "not: [a manifest")
	write(t, dir, ".hidden.yaml", topic("hidden"))
	write(t, dir, "below/d.yaml", topic("d"))
	write(t, dir, "below/.git/e.yaml", topic("e"))
	odd := write(t, dir, "f.manifest", topic("f"))

	for _, c := range []struct {
		opts  manifest.Options
		paths []string
		want  string
	}{
		{manifest.Options{}, []string{dir}, "a b c"},
		{manifest.Options{Recursive: true}, []string{dir}, "a b c d"},
		{manifest.Options{}, []string{filepath.Join(dir, "below")}, "d"},
		{manifest.Options{}, []string{odd, dir, filepath.Join(dir, "a.yaml"), dir + "/../" + filepath.Base(dir)}, "a b c f"},
	} {
		if got := names(read(t, c.opts, c.paths...).Topics); got != c.want {
			t.Errorf("%v: got %q, want %q", c.paths, got, c.want)
		}
	}
	if got := read(t, manifest.Options{Namespace: "shop"}, odd).Topics[0].Namespace; got != "shop" {
		t.Errorf("namespace %q", got)
	}
}

func TestMissingPaths(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "below/d.yaml", topic("d"))
	for path, want := range map[string]string{
		filepath.Join(dir, "none.yaml"): "no such file or directory",
		dir:                             "its subfolders are read with -R",
	} {
		if _, _, err := manifest.Read([]string{path}, manifest.Options{}); err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), path) != 1 {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestDuplicateNamesBothPlaces(t *testing.T) {
	dir := t.TempDir()
	first, second := write(t, dir, "1.yaml", "\n"+topic("orders")), write(t, dir, "2.yaml", topic("orders"))
	set, diagnostics, err := manifest.Read([]string{dir}, manifest.Options{})
	if err != nil || len(diagnostics) != 1 || len(set.Topics) != 1 {
		t.Fatal(diagnostics, err)
	}
	if d := diagnostics[0]; d.File != second || d.Line != 3 || !strings.Contains(d.Message, first+":4") || d.Reason != "Duplicate" {
		t.Errorf("%+v", d)
	}
}

func TestRefusedIsNotMissing(t *testing.T) {
	path := write(t, t.TempDir(), "a.yaml", strings.ReplaceAll(topic("orders"), "brokerRef", "broker"))
	set, _, err := manifest.Read([]string{path}, manifest.Options{})
	if err != nil || len(set.Refused) != 1 || set.Refused[0] != (manifest.Key{Kind: "Topic", Namespace: "default", Name: "orders"}) {
		t.Errorf("%v, %v", set.Refused, err)
	}
	if _, line := set.Locate("Topic", "default", "orders", "spec.broker"); line != 4 {
		t.Errorf("line %d", line)
	}
}

// Text that is made to hurt: it is refused, soon, and with a line.
func TestHostileText(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'i'; c++ {
		bomb += strings.ReplaceAll("C: &C [*P,*P,*P,*P,*P,*P,*P,*P,*P,*P]\n", "C", string(c))
		bomb = strings.ReplaceAll(bomb, "*P", "*"+string(c-1))
	}
	for name, text := range map[string]string{
		"aliases.yaml": bomb,
		"cycle.yaml":   "spec: &a\n  b: *a\n",
		"deep.json":    strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000),
		"deep.yaml":    strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
		"anchor.yaml":  "a: 1\nb: *none\n",
		"binary.yaml":  "\x00\x01\x02",
		"cut.json":     `{"kind": "Topic"`,
		"merge.yaml":   "<<: 7\n",
	} {
		path := write(t, t.TempDir(), name, text)
		_, diagnostics, err := manifest.Read([]string{path}, manifest.Options{})
		if err != nil || len(diagnostics) != 1 || diagnostics[0].Line < 1 || diagnostics[0].Reason != "Unreadable" {
			t.Errorf("%s: %v, %v", name, diagnostics, err)
		}
	}
	path := write(t, t.TempDir(), "anchor.yaml", "a: 1\nb: *none\n")
	if _, d, _ := manifest.Read([]string{path}, manifest.Options{}); d[0].Line != 2 {
		t.Errorf("line %d", d[0].Line)
	}
}

// A Secret's content is in no message, whatever is wrong with it, and wherever its kind is written.
func TestSecretsAreNotShown(t *testing.T) {
	dir := t.TempDir()
	for i, text := range []string{
		"!secret hunter2", "[hunter2]", "{hunter2: x}", "{x: !hunter2 hunter2}", "{hunter2: !x y}", "{hunter2: 1, hunter2: 2}", "*hunter2", "&hunter2 [*hunter2]", "&hunter2!",
		"| hunter2", "> hunter2", "%hunter2", "@hunter2", "!hunter2{", `"hunter2" hunter2`, `"\hunter2"`, "hunter2: hunter2", `"hunter2`, "[hunter2", "[hunter2]]", "hunter2\n ? hunter2", "hunter2\n hunter2: x",
	} {
		text = "metadata: {name: s}\nstringData:\n  password: " + text + "\n"
		for _, text := range []string{"apiVersion: v1\nkind: Secret\n" + text, "apiVersion: v1\n" + text + "kind: Secret\n", "apiVersion: v1\n\n" + text} {
			notShown(t, write(t, dir, fmt.Sprint(i, ".yaml"), text))
		}
	}
	for name, text := range map[string]string{
		"base64.yaml":   "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  password: hunter2!\n",
		"indented.yaml": "apiVersion: v1\nkind: Secret\nmetadata:\n  stringData:\n    name: hunter2\n    x: [",
		"flow.yaml":     "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {password:hunter2}}",
		"key.yaml":      "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {hunter2}}",
		"root.yaml":     "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData:hunter2}",
		"list.yaml":     "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s}, data: {hunter2: aaaa, hunter2: aaaa, x: 1}}",
		"word.json":     `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"password": hunter2}}`,
		"before.json":   `{"data": {"password": hunter2}, "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}`,
		"twice.json":    `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"hunter2": "", "hunter2": "", "x": 1}}`,
		"misspelt.json": `{"apiVersion": "v1", "kind": "Sercet", "metadata": {"name": "s"}, "data": {"password": hunter2}}`,
		"kindless.yaml": "apiVersion: v1\nstringData: {hunter2: x, hunter2: y}",
	} {
		notShown(t, write(t, dir, name, text))
	}
}

func notShown(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first := 1 + strings.Count(strings.SplitN(string(text), "hunter2", 2)[0], "\n")
	set, diagnostics, err := manifest.Read([]string{path}, manifest.Options{})
	if err != nil || len(diagnostics) == 0 || len(set.Secrets) != 0 {
		t.Errorf("%s: %v, %v", text, diagnostics, err)
	}
	for _, d := range diagnostics {
		if strings.Contains(d.String(), "hunter2") {
			t.Errorf("%s", d)
		}
		if d.Field != "kind" && (d.Line < first || d.Line > first+1) {
			t.Errorf("%s: not at line %d:\n%s", d, first, text)
		}
	}
}

// YAML's anchors end with their document, whatever the parser thinks.
func TestAnchorsOfOtherDocuments(t *testing.T) {
	for alias, line := range map[string]int{"spec: *spec": 8, "spec:\n  <<: *spec": 9, "spec:\n  *key : {name: main}": 9} {
		text := "apiVersion: waybill.dev/v1alpha1\nkind: Topic\nmetadata: {name: a}\nspec: &spec {&key brokerRef: {name: main}}\n---\n" + // four lines, and three before the alias
			"apiVersion: waybill.dev/v1alpha1\nkind: Topic\n" + alias + "\nmetadata: {name: b}\n"
		set, diagnostics, err := manifest.Read([]string{write(t, t.TempDir(), "a.yaml", text)}, manifest.Options{})
		if err != nil || len(diagnostics) != 1 || names(set.Topics) != "a" {
			t.Fatalf("%s: %v, %v", alias, diagnostics, err)
		}
		if d := diagnostics[0]; d.Line != line || d.Name != "b" || !strings.Contains(d.Message, "no anchor") {
			t.Errorf("%s: %s", alias, d)
		}
	}
}

// A bracket in a block of text closes nothing, also where lines end as Windows ends them.
func TestTextWithWindowsLineEnds(t *testing.T) {
	text := "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x.conf: |\n    server {\n    }}\n  y: 1\n z: 2\n"
	for _, text := range []string{text, strings.ReplaceAll(text, "\n", "\r\n")} {
		_, d, err := manifest.Read([]string{write(t, t.TempDir(), "a.yaml", text)}, manifest.Options{})
		if err != nil || len(d) != 1 || d[0].Line != 10 || !strings.Contains(d[0].Message, "column of the other fields") {
			t.Errorf("%q: %v, %v", text, d, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, pattern := range []string{"testdata/wrong/*.yaml", "testdata/wrong/*.json", "testdata/right/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatal(pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			for document := range strings.SplitSeq(string(data), "\n---\n") {
				f.Add([]byte(document), filepath.Ext(file) == ".json")
			}
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte, asJSON bool) {
		name := "fuzz.yaml"
		if asJSON {
			name = "fuzz.json"
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, diagnostics, err := manifest.Read([]string{path}, manifest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 1
		for _, d := range diagnostics {
			if d.Line < 1 || d.Line > lines+1 || d.Message == "" || d.Reason == "" {
				t.Errorf("%+v", d)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	for b.Loop() {
		if _, d, err := manifest.Read([]string{"testdata/right"}, manifest.Options{}); err != nil || len(d) > 0 {
			b.Fatal(d, err)
		}
	}
}

// The samples are what people copy: a cluster would take each as it is.
func TestSamples(t *testing.T) {
	set := read(t, manifest.Options{Recursive: true}, "../../config/samples/quickstart")
	if len(set.Topics) == 0 || len(set.Endpoints) == 0 {
		t.Errorf("the quickstart is not there: %v", set.Files)
	}
	set = read(t, manifest.Options{}, "../../config/samples")
	if len(set.Brokers) == 0 || len(set.Topics) == 0 || len(set.Subscriptions) == 0 || len(set.Mailboxes) == 0 || len(set.Pollers) == 0 || len(set.Endpoints) == 0 || len(set.Pipelines) == 0 {
		t.Errorf("a kind has no sample: %v", set.Files)
	}
}
