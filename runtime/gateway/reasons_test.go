package gateway

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The page has a line for each reason that a gateway gives, and for no other.
func TestEachReasonIsDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "contract.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "## Reasons\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\| [0-9, ]+ \\| [A-Z].*\\. \\|$").FindAllStringSubmatch(section, -1) {
		documented[m[1]] = true
	}
	given := reasonsIn(t, ".")
	for _, r := range slices.Sorted(maps.Keys(given)) {
		if !documented[r] {
			t.Errorf("%s: reason %s has no line under \"Reasons\" in docs/contract.md", given[r], r)
		}
	}
	for _, r := range slices.Sorted(maps.Keys(documented)) {
		if given[r] == "" {
			t.Errorf("docs/contract.md has a line for reason %s, which no gateway gives", r)
		}
	}
}

// reasonsIn finds the strings that become the Reason of a problem, and where they stand.
func reasonsIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	set, found := token.NewFileSet(), map[string]string{}
	add := func(e ast.Expr) {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil && s != "" {
				found[s] = set.Position(l.Pos()).String()
			}
		}
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if typ, ok := n.Type.(*ast.Ident); !ok || typ.Name != "problem" {
					return true
				}
				for _, e := range n.Elts {
					if kv, ok := e.(*ast.KeyValueExpr); ok {
						if k, ok := kv.Key.(*ast.Ident); ok && k.Name == "Reason" {
							add(kv.Value)
						}
					}
				}
			case *ast.AssignStmt:
				for i, l := range n.Lhs {
					if s, ok := l.(*ast.SelectorExpr); ok && s.Sel.Name == "Reason" && i < len(n.Rhs) {
						add(n.Rhs[i])
					}
				}
			}
			return true
		})
	}
	if len(found) < 20 {
		t.Fatalf("only %d reasons were found: %v", len(found), found)
	}
	return found
}
