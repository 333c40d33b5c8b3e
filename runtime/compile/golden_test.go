package compile

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/runtime/plan"
)

var update = flag.Bool("update", false, "write testdata/*.out.yaml anew from what Compile gives now; then read the difference")

// golden is what a test's .out.yaml holds.
type golden struct {
	Outcomes    []goldenOutcome `json:"outcomes"`
	Diagnostics []Diagnostic    `json:"diagnostics,omitempty"`
}

type goldenOutcome struct {
	Resource   string          `json:"resource"`
	Refused    bool            `json:"refused,omitempty"`
	Paused     bool            `json:"paused,omitempty"`
	Effective  *plan.Effective `json:"effective,omitempty"` // where it does not stand in the plan
	DeadLetter string          `json:"deadLetter,omitempty"`
	Mirrors    []string        `json:"mirrors,omitempty"`
	Services   []string        `json:"services,omitempty"`
	Secrets    []string        `json:"secrets,omitempty"`
	Plan       *plan.Plan      `json:"plan,omitempty"`
}

func goldenOf(res Result) golden {
	g := golden{Diagnostics: res.Diagnostics}
	for i := range res.Outcomes {
		o := &res.Outcomes[i]
		out := goldenOutcome{Resource: o.Resource.String(), Refused: o.Refused, Paused: o.Paused, Plan: o.Plan}
		if o.Plan == nil && o.Effective.Guarantee != "" {
			out.Effective = &o.Effective
		}
		if o.DeadLetter != nil {
			out.DeadLetter = o.DeadLetter.Broker + " " + o.DeadLetter.Name
		}
		for _, m := range o.Mirrors {
			out.Mirrors = append(out.Mirrors, m.From.String()+" as "+m.To.String())
		}
		if o.Plan != nil {
			needs := NeedsOf(o.Plan)
			for _, s := range needs.Services {
				out.Services = append(out.Services, s.Namespace+"/"+s.Name+" for "+s.Field)
			}
			for _, s := range needs.Secrets {
				out.Secrets = append(out.Secrets, s.String()+" "+strings.Join(s.Keys, ","))
			}
		}
		g.Outcomes = append(g.Outcomes, out)
	}
	return g
}

// TestGolden compiles each testdata/NAME.in.yaml and compares with NAME.out.yaml. What is refused on purpose stands in files that begin with
// "refused-"; all others have no diagnostics.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, path := range inputs {
		name := strings.TrimSuffix(filepath.Base(path), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			in, err := decode(data)
			if err != nil {
				t.Fatal(err)
			}
			res := Compile(in)
			if refused := strings.HasPrefix(name, "refused-"); refused != (len(res.Diagnostics) > 0) {
				t.Errorf("%d diagnostics: %v", len(res.Diagnostics), res.Diagnostics)
			}
			got, err := yaml.Marshal(goldenOf(res))
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

// TestGuaranteesPage keeps the page that is made of the table.
func TestGuaranteesPage(t *testing.T) {
	var got strings.Builder
	if err := WriteGuarantees(&got); err != nil {
		t.Fatal(err)
	}
	const path = "../../docs/guarantees.md"
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if at := firstDifference(string(want), got.String()); at != "" {
		t.Errorf("%s is not what the table says (-update writes it anew) %s", path, at)
	}
}
