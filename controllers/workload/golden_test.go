package workload

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/manifest"
	"github.com/waybill-dev/waybill/runtime/plan"
)

var update = flag.Bool("update", false, "write testdata/*.out.yaml anew from what is built now; then read the difference")

var settings = Settings{WorkerImage: "registry.example.com/waybill/worker:1", ManagerNamespace: "waybill-system"}

// built is what one resource became.
type built struct {
	owner   Owner
	outcome *compile.Outcome
	set     *Set // nil: nothing runs for it
}

// build reads manifests, compiles them and builds what runs for each, in the order of the outcomes.
func build(t testing.TB, s Settings, files ...string) []built {
	t.Helper()
	in, owners := read(t, files...)
	result := compile.Compile(in)
	if len(result.Diagnostics) > 0 {
		t.Fatal(result.Diagnostics)
	}
	var out []built
	for i := range result.Outcomes {
		o := &result.Outcomes[i]
		b := built{owner: owners[o.Resource], outcome: o}
		var err error
		if o.Resource.Kind == "Broker" {
			for _, broker := range in.Brokers {
				if broker.Namespace == o.Resource.Namespace && broker.Name == o.Resource.Name {
					b.set, err = BuildBroker(broker, s)
				}
			}
		} else {
			b.set, err = Build(o, b.owner, s)
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func read(t testing.TB, files ...string) (compile.Input, map[plan.Resource]Owner) {
	t.Helper()
	set, faults, err := manifest.Read(files, manifest.Options{})
	if err != nil || len(faults) > 0 {
		t.Fatal(err, faults)
	}
	in := compile.Input{Brokers: set.Brokers, Topics: set.Topics, Subscriptions: set.Subscriptions, Mailboxes: set.Mailboxes,
		Pollers: set.Pollers, Endpoints: set.Endpoints, Pipelines: set.Pipelines, Namespaces: set.Namespaces}
	owners := map[plan.Resource]Owner{}
	add(t, owners, in.Brokers)
	add(t, owners, in.Topics)
	add(t, owners, in.Subscriptions)
	add(t, owners, in.Mailboxes)
	add(t, owners, in.Pollers)
	add(t, owners, in.Endpoints)
	add(t, owners, in.Pipelines)
	return in, owners
}

// add gives each object the UID that a cluster would have given it.
func add[T metav1.Object](t testing.TB, owners map[plan.Resource]Owner, objects []T) {
	for _, o := range objects {
		o.SetUID(types.UID("uid-of-" + o.GetName()))
		owner, err := OwnerOf(o)
		if err != nil {
			t.Fatal(err)
		}
		owners[owner.Resource] = owner
	}
}

// golden is what a test's .out.yaml holds of one resource.
type golden struct {
	Resource string   `json:"resource"`
	Address  string   `json:"address,omitempty"`
	Plan     string   `json:"plan,omitempty"`
	Selector string   `json:"selector"`
	Secrets  []string `json:"secrets,omitempty"` // that have to be there before
	Owned    []any    `json:"owned"`
	Kept     []any    `json:"kept,omitempty"`
	Shared   []any    `json:"shared,omitempty"`
}

func goldenOf(b built) golden {
	s := b.set
	g := golden{Resource: b.outcome.Resource.String(), Address: s.Address, Plan: s.PlanHash, Selector: s.Selector,
		Owned: objects(s.Owned), Kept: objects(s.Kept), Shared: objects(s.Shared)}
	for _, u := range s.Secrets {
		g.Secrets = append(g.Secrets, u.String()+" "+strings.Join(u.Keys, ","))
	}
	return g
}

func objects(list []*unstructured.Unstructured) []any {
	var out []any
	for _, u := range list {
		out = append(out, u.Object)
	}
	return out
}

// TestGolden builds each testdata/NAME.in.yaml and compares with NAME.out.yaml.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, path := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".in.yaml"), func(t *testing.T) {
			var all []golden
			s := settings
			if filepath.Base(path) == "environment.in.yaml" {
				s.Env = map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.tracing:4318", "OTEL_TRACES_SAMPLER": "traceidratio"}
			}
			for _, b := range build(t, s, path) {
				if b.set != nil {
					all = append(all, goldenOf(b))
				}
			}
			got, err := yaml.Marshal(all)
			if err != nil {
				t.Fatal(err)
			}
			outPath := strings.TrimSuffix(path, ".in.yaml") + ".out.yaml"
			if *update {
				if err := os.WriteFile(outPath, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(outPath)
			if err != nil {
				t.Fatal(err)
			}
			if at := firstDifference(string(want), string(got)); at != "" {
				t.Errorf("differs from %s (-update writes it anew) %s", outPath, at)
			}
		})
	}
}

// firstDifference shows the first line in which two texts differ, with what leads up to it.
func firstDifference(want, got string) string {
	if want == got {
		return ""
	}
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	i := 0
	for i < len(w) && i < len(g) && w[i] == g[i] {
		i++
	}
	show := func(lines []string) string {
		return strings.Join(lines[max(0, min(i-5, len(lines))):min(len(lines), i+5)], "\n")
	}
	return fmt.Sprintf("from line %d on:\nwant:\n%s\n\ngot:\n%s", i+1, show(w), show(g))
}
