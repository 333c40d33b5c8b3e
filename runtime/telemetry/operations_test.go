package telemetry

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/waybill-dev/waybill/runtime/flow"
)

// declared are the names of all metrics, as metrics.go has them.
func declared(t *testing.T) []string {
	t.Helper()
	var names []string
	src := read(t, "metrics.go")
	for _, m := range regexp.MustCompile(`(?:metric\("|NewDesc\("waybill_)([a-z_]+)",`).FindAllStringSubmatch(src, -1) {
		names = append(names, "waybill_"+m[1])
	}
	if len(names) < 40 {
		t.Fatalf("only %d metrics are found in metrics.go", len(names))
	}
	return names
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var metricName = regexp.MustCompile(`waybill_[a-z_]+`)

func TestThePageForThePersonOnCallHasEachMetricAndNoOther(t *testing.T) {
	page := metricName.FindAllString(read(t, "../../docs/operations.md"), -1)
	all := declared(t)
	for _, name := range page {
		if !slices.Contains(all, name) {
			t.Errorf("there is no %s", name)
		}
	}
	for _, name := range all {
		if !slices.Contains(page, name) {
			t.Errorf("%s is not explained", name)
		}
	}
}

// An alert on a metric that does not exist is never raised, and nobody notices.
func TestAlertsAreAboutMetricsThatExistAndAreExplained(t *testing.T) {
	var rules struct {
		Spec struct {
			Groups []struct {
				Rules []struct {
					Alert, Expr, For string
					Labels           map[string]string
					Annotations      map[string]string
				}
			}
		}
	}
	d := yaml.NewDecoder(strings.NewReader(read(t, "../../config/prometheus/alerts.yaml")))
	if err := d.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	all, page := declared(t), read(t, "../../docs/operations.md")
	labels := []string{"kind", "namespace", "name", "state", "code"}
	count := 0
	for _, g := range rules.Spec.Groups {
		for _, r := range g.Rules {
			count++
			names := metricName.FindAllString(r.Expr, -1)
			if len(names) == 0 || r.Annotations["summary"] == "" || r.Labels["severity"] == "" {
				t.Errorf("%s: %q, %q, %q", r.Alert, r.Expr, r.Annotations, r.Labels)
			}
			for _, n := range names {
				if !slices.Contains(all, n) {
					t.Errorf("%s: there is no %s", r.Alert, n)
				}
			}
			for _, l := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(r.Annotations["summary"], -1) {
				if !slices.Contains(labels, l[1]) || !regexp.MustCompile(`by \([^)]*\b`+l[1]+`\b`).MatchString(r.Expr) {
					t.Errorf("%s: its series have no label %s", r.Alert, l[1])
				}
			}
			if strings.Count(r.Expr, "(") != strings.Count(r.Expr, ")") {
				t.Errorf("%s: parentheses of %s", r.Alert, r.Expr)
			}
			if !strings.Contains(page, "\n### "+r.Alert+"\n") {
				t.Errorf("%s is not explained", r.Alert)
			}
		}
	}
	if count < 5 {
		t.Errorf("%d alerts", count)
	}
}

// What /status can say is found on the page by its word: of flows, of pollers, and of all.
func TestThePageForThePersonOnCallHasEachCondition(t *testing.T) {
	_, section, ok := strings.Cut(read(t, "../../docs/operations.md"), "\n## Conditions of /status\n")
	section, _, _ = strings.Cut(section, "\n## ")
	words := []string{"BrokerAway"}
	for _, s := range flow.States {
		if s != flow.Running && s != flow.Starting {
			words = append(words, string(s))
		}
	}
	for _, m := range regexp.MustCompile(`Reason = "(\w+)"`).FindAllStringSubmatch(read(t, "../poll/stats.go"), -1) {
		words = append(words, m[1])
	}
	if !ok || len(words) < 15 {
		t.Fatalf("the section is there: %t; only %d words are found", ok, len(words))
	}
	for _, w := range words {
		if !strings.Contains(section, "\n| `"+w+"`") && !strings.Contains(section, ", `"+w+"` |") {
			t.Errorf("%s is not explained", w)
		}
	}
	for _, m := range regexp.MustCompile("`([A-Z][A-Za-z]+)`(?:, `([A-Z][A-Za-z]+)`)? \\| (?:all|flows|Pollers) ").FindAllStringSubmatch(section, -1) {
		for _, w := range m[1:] {
			if w != "" && !slices.Contains(words, w) {
				t.Errorf("no resource has the condition %s", w)
			}
		}
	}
}
