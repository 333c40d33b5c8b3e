package flow

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"testing"
)

// Metrics have a series for each, from the start: one that is missing in the list is missing there.
func TestTheListsOfReasonsAndStatesAreComplete(t *testing.T) {
	declared := map[string]int{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok {
				if of, ok := spec.Type.(*ast.Ident); ok && len(spec.Values) > 0 {
					declared[of.Name] += len(spec.Names)
				}
			}
			return true
		})
	}
	if declared["Reason"] != len(Reasons) || declared["State"] != len(States) {
		t.Errorf("%d of %d reasons, %d of %d states", len(Reasons), declared["Reason"], len(States), declared["State"])
	}
}
