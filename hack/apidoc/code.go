package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
)

// code is what the Go files say that the definitions do not: the sentences about types and about the words of conditions.
type code struct {
	types  map[string]string
	groups []group
}

// A group is one const block of typed words: reasons, condition types.
type group struct {
	typ   string
	about string
	words []word
}

type word struct{ name, about string }

func readCode(folder string) (*code, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return nil, err
	}
	out := &code{types: map[string]string{}}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(filepath.Base(name), "zz_") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, d := range parsed.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				if t, ok := s.(*ast.TypeSpec); ok {
					doc := t.Doc
					if doc == nil {
						doc = g.Doc
					}
					out.types[t.Name.Name] = prose(doc.Text())
				}
			}
			if g.Tok == token.CONST && filepath.Base(name) == "conditions.go" {
				out.groups = append(out.groups, constants(g))
			}
		}
	}
	return out, nil
}

// constants reads a block such as: ReasonInvalid Reason = "Invalid", with what stands above each.
func constants(g *ast.GenDecl) group {
	out := group{about: strings.TrimSuffix(prose(g.Doc.Text()), ".")}
	for _, s := range g.Specs {
		v, ok := s.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			continue
		}
		literal, ok := v.Values[0].(*ast.BasicLit)
		if !ok {
			continue
		}
		if t, ok := v.Type.(*ast.Ident); ok {
			out.typ = t.Name
		}
		about := prose(v.Doc.Text())
		about = strings.TrimPrefix(about, v.Names[0].Name)
		about = strings.TrimSpace(strings.TrimPrefix(about, ":"))
		out.words = append(out.words, word{strings.Trim(literal.Value, `"`), strings.ToUpper(about[:1]) + about[1:]})
	}
	return out
}

// prose is a comment in one line, without the markers for generators.
func prose(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "+") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " ")
}
