package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	reportRow = regexp.MustCompile(`(?m)^\| (\d+) \|[^|]*\|(.*)\|$`)
	namedTest = regexp.MustCompile("`(Test[A-Za-z0-9]+)(?:/([^`]+))?`")
)

// TestVerificationNamesTestsThatThereAre keeps docs/verification.md true: each of the twenty reports has a test, and each test that the page
// names is there, with the case behind its slash.
func TestVerificationNamesTestsThatThereAre(t *testing.T) {
	page, err := os.ReadFile("../../docs/verification.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testSources(t)
	rows := reportRow.FindAllStringSubmatch(string(page), -1)
	if len(rows) != 20 {
		t.Fatalf("the page has %d numbered reports, want 20", len(rows))
	}
	for i, row := range rows {
		if row[1] != strconv.Itoa(i+1) {
			t.Errorf("report %d has the number %s", i+1, row[1])
		}
		if !namedTest.MatchString(row[2]) {
			t.Errorf("report %s names no test: %s", row[1], row[2])
		}
	}
	for _, named := range namedTest.FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(tests, "func "+named[1]+"(t *testing.T)") {
			t.Errorf("docs/verification.md names %s, which is no test", named[1])
		}
		if named[2] != "" && !strings.Contains(tests, strconv.Quote(named[2])) {
			t.Errorf("docs/verification.md names the case %q, which is none", named[2])
		}
	}
}

// testSources is the text of all tests and of the suites that they run.
func testSources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{"api", "cmd", "controllers", "runtime", "test"} {
		err := filepath.WalkDir("../../"+dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") && !strings.Contains(path, "brokertest") {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}
