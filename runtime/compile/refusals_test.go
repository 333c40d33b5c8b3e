package compile_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/manifest"
)

// refusals are the texts with which the sources of this package refuse something: format strings of refuse, and what functions named
// …Fault return.
func refusals(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	set := token.NewFileSet()
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(set, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		keep := func(e ast.Expr) {
			ast.Inspect(e, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					if s, err := strconv.Unquote(l.Value); err == nil && len(s) > 12 {
						texts[s] = set.Position(l.Pos()).String()
					}
				}
				return true
			})
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					name := ""
					switch fun := n.Fun.(type) {
					case *ast.SelectorExpr:
						name = fun.Sel.Name
					case *ast.Ident:
						name = fun.Name
					}
					switch {
					case name != "refuse":
					case len(n.Args) > 2: // of a subject: field, reason, format
						keep(n.Args[2])
					case len(n.Args) > 0:
						keep(n.Args[0])
					}
				case *ast.ReturnStmt:
					if strings.HasSuffix(f.Name.Name, "Fault") {
						for _, e := range n.Results {
							keep(e)
						}
					}
				}
				return true
			})
		}
	}
	return texts
}

var verb = regexp.MustCompile(`%[a-z]`)

// pattern matches what a format gives.
func pattern(format string) *regexp.Regexp {
	parts := verb.Split(format, -1)
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(strings.Join(parts, "(?s:.+)"))
}

// shown are the diagnostics of the golden files.
func shown(t *testing.T) []compile.Diagnostic {
	t.Helper()
	files, err := filepath.Glob("testdata/refused-*.out.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []compile.Diagnostic
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var out struct {
			Diagnostics []compile.Diagnostic `json:"diagnostics"`
		}
		if err := yaml.Unmarshal(data, &out); err != nil {
			t.Fatal(err)
		}
		all = append(all, out.Diagnostics...)
	}
	return all
}

// Each text with which this package refuses something stands in a golden file, and each reason.
func TestEveryRefusalIsShown(t *testing.T) {
	all := shown(t)
	said := func(p *regexp.Regexp) bool {
		return slices.ContainsFunc(all, func(d compile.Diagnostic) bool { return p.MatchString(d.Message) })
	}
	texts := refusals(t)
	if len(texts) < 80 {
		t.Fatalf("only %d texts were found in the sources", len(texts))
	}
	// What would make golden files of a megabyte, or cannot be written in one, TestTooLarge shows. That a plan cannot be marshalled is not to
	// be had by any input; the refusal is there because Marshal returns an error.
	elsewhere := []string{"the schema has %d bytes", "the compiled plan has", "the schema is not JSON", "the plan cannot be written"}
	for text, at := range texts {
		if slices.ContainsFunc(elsewhere, func(begin string) bool { return strings.HasPrefix(text, begin) }) {
			continue
		}
		if !said(pattern(text)) {
			t.Errorf("%s: no file testdata/refused-*.in.yaml makes this said: %s", at, text)
		}
	}
	for _, p := range compile.Protocols() {
		for _, a := range []compile.Ability{p.Topics, p.Earliest, p.Latest, p.Time, p.Key, p.Strict, p.OrderedReplicas, p.LeaseReplicas, p.KeyLeases, p.Inbox, p.Counts, p.ExactlyOnceTopic} {
			if (!a.Can || a.Needs != "") && a.Instead != "" && !said(pattern(a.Instead)) {
				t.Errorf("%s: nothing shows the way out: %s", p.Title, a.Instead)
			}
		}
	}
}

// Where the compiler checks what the definitions check too, it names the same field and says the same: whoever reads a condition and whoever
// reads the API server's answer finds the same words. What it finds besides is compared with nothing here.
func TestSameWordsAsTheDefinitions(t *testing.T) {
	files, err := filepath.Glob("../manifest/testdata/wrong/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	same := 0
	for _, file := range files {
		_, diagnostics, err := manifest.Read([]string{file}, manifest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range compile.Compile(lenient(data)).Diagnostics {
			if d.Reason != v1alpha1.ReasonInvalid && d.Reason != v1alpha1.ReasonDuplicate || d.Field == "metadata.name" {
				continue
			}
			of := func(m manifest.Diagnostic) bool { return m.Kind == d.Kind && m.Name == d.Name && m.Field == d.Field }
			switch i := slices.IndexFunc(diagnostics, of); {
			case i < 0:
				if slices.ContainsFunc(diagnostics, func(m manifest.Diagnostic) bool {
					return m.Kind == d.Kind && m.Name == d.Name && strings.HasPrefix(m.Message, d.Message)
				}) {
					t.Errorf("%s: %s %s: the definition names another field than %s: %s", file, d.Kind, d.Name, d.Field, d.Message)
				}
			case !strings.HasPrefix(diagnostics[i].Message, d.Message):
				t.Errorf("%s: %s %s: %s:\nthe definition says %s\nthe compiler says   %s", file, d.Kind, d.Name, d.Field, diagnostics[i].Message, d.Message)
			default:
				same++
			}
		}
	}
	if same < 20 {
		t.Errorf("only %d faults were found by both", same)
	}
}

func TestTooLarge(t *testing.T) {
	broker := &v1alpha1.Broker{Spec: v1alpha1.BrokerSpec{Type: v1alpha1.BrokerEmbedded}}
	broker.Name, broker.Namespace = "main", "default"
	schema := func(text string) v1alpha1.TopicSpec {
		return v1alpha1.TopicSpec{
			BrokerRef: v1alpha1.ResourceReference{Name: "main"},
			Schema:    &v1alpha1.TopicSchema{JSONSchema: &runtime.RawExtension{Raw: []byte(text)}},
		}
	}
	for _, c := range []struct {
		schema, want string
		reason       v1alpha1.Reason
	}{
		{`{"description": "` + strings.Repeat("x", 300<<10) + `"}`, "and may have 262144: make schemas and expressions smaller, or divide the resource", v1alpha1.ReasonPlanTooLarge},
		{`{"description": "` + strings.Repeat("x", 2<<20) + `"}`, "and a plan may have 262144: make it smaller", v1alpha1.ReasonPlanTooLarge},
		{`{"type": `, "the schema is not JSON: ", v1alpha1.ReasonInvalidSchema},
	} {
		topic := &v1alpha1.Topic{Spec: schema(c.schema)}
		topic.Name, topic.Namespace = "orders", "default"
		found := compile.Compile(compile.Input{Brokers: []*v1alpha1.Broker{broker}, Topics: []*v1alpha1.Topic{topic}}).Diagnostics
		if len(found) != 1 || found[0].Reason != c.reason || found[0].Field != "spec.schema.jsonSchema" || !strings.Contains(found[0].Message, c.want) {
			t.Errorf("want %s, got %v", c.want, found)
		}
	}
}

// lenient reads documents without any check; those that are no object of their kind are left out.
func lenient(data []byte) compile.Input {
	var in compile.Input
	for doc := range bytes.SplitSeq(data, []byte("\n---\n")) {
		var head struct {
			Kind string `json:"kind"`
		}
		if yaml.Unmarshal(doc, &head) != nil {
			continue
		}
		switch head.Kind {
		case "Broker":
			in.Brokers = read(in.Brokers, doc)
		case "Topic":
			in.Topics = read(in.Topics, doc)
		case "Subscription":
			in.Subscriptions = read(in.Subscriptions, doc)
		case "Mailbox":
			in.Mailboxes = read(in.Mailboxes, doc)
		case "Poller":
			in.Pollers = read(in.Pollers, doc)
		case "Endpoint":
			in.Endpoints = read(in.Endpoints, doc)
		case "Pipeline":
			in.Pipelines = read(in.Pipelines, doc)
		}
	}
	return in
}

func read[T any](list []*T, doc []byte) []*T {
	v := new(T)
	if yaml.Unmarshal(doc, v) != nil {
		return list
	}
	return append(list, v)
}
