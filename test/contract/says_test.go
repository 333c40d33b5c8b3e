// Package contract proves docs/contract.md, statement by statement, against `waybill run` as its users see it: a process, HTTP, files.
//
// A test says which statements it proves; a statement that no test proves fails the run.
package contract

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A statement is one numbered line of the page.
type statement struct {
	number string
	text   string
}

var statementLine = regexp.MustCompile(`(?m)^- \*\*([A-Z]\d+)\*\* (.+)$`)

func statements(path string) ([]statement, error) {
	page, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []statement
	for _, m := range statementLine.FindAllStringSubmatch(string(page), -1) {
		if slices.ContainsFunc(all, func(s statement) bool { return s.number == m[1] }) {
			return nil, fmt.Errorf("%s: statement %s stands there twice", path, m[1])
		}
		all = append(all, statement{m[1], m[2]})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no statement found", path)
	}
	return all, nil
}

// proofs are the statements of the page and the tests that prove them.
type proofs struct {
	page []statement

	mu sync.Mutex
	by map[string][]string
}

// says notes that a test proves statements of the page; it counts when the test passes.
func says(t *testing.T, numbers ...string) {
	t.Helper()
	for _, n := range numbers {
		i := slices.IndexFunc(page.page, func(s statement) bool { return s.number == n })
		if i < 0 {
			t.Fatalf("docs/contract.md has no statement %s", n)
		}
		t.Attr("report", fmt.Sprintf("%-4s %-70s %s", n, shorten(page.page[i].text, 70), t.Name()))
	}
	t.Cleanup(func() {
		if t.Failed() || t.Skipped() {
			return
		}
		page.mu.Lock()
		defer page.mu.Unlock()
		for _, n := range numbers {
			page.by[n] = append(page.by[n], t.Name())
		}
	})
}

func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// unproven lists what no test has proven.
func (p *proofs) unproven() string {
	var b strings.Builder
	for _, s := range p.page {
		if len(p.by[s.number]) == 0 {
			fmt.Fprintf(&b, "not proven: %s %s\n", s.number, s.text)
		}
	}
	return b.String()
}
