package docs

import (
	"os"
	"regexp"
	"testing"
)

var namedPath = regexp.MustCompile("`((?:api|cmd|config|runtime|test)/[a-z0-9_/.]+)`")

// TestArchitectureNamesWhatIsThere keeps the map true: every path that docs/architecture.md names exists.
func TestArchitectureNamesWhatIsThere(t *testing.T) {
	page, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	paths := namedPath.FindAllStringSubmatch(string(page), -1)
	if len(paths) < 20 {
		t.Fatalf("only %d paths found: the page or the pattern has changed", len(paths))
	}
	for _, p := range paths {
		if _, err := os.Stat("../../" + p[1]); err != nil {
			t.Errorf("docs/architecture.md names %s: %v", p[1], err)
		}
	}
}
