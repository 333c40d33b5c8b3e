package contract

import (
	"cmp"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// Faults of every stage come in one go, in the order of files and lines: a document that cannot be parsed hides none of the others, and what
// refers to something that has faults of its own is not told of besides. testdata/diagnostics.golden holds the words.
func TestAllFaultsOfAllFilesComeInOneGo(t *testing.T) {
	t.Parallel()
	says(t, "F2", "C10", "C11")
	const folder, golden = "testdata/diagnostics", "testdata/diagnostics.golden"
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	code, _, text := waybill(t, "validate", "-f", folder)
	if code != 1 || text != string(want) {
		t.Errorf("exit code %d; got\n%s\nwant\n%s", code, text, want)
	}

	code, out, _ := waybill(t, "validate", "-f", folder, "-o", "json")
	type diagnostic struct {
		File, Kind, Namespace, Name, Field, Reason, Message string
		Line                                                int
	}
	var all []diagnostic
	for line := range strings.Lines(out) {
		var d diagnostic
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if d.Reason == "" || d.Line < 1 || !strings.Contains(text, d.Message) {
			t.Errorf("%+v", d)
		}
		all = append(all, d)
	}
	if n := strings.Count(text, folder+"/"); code != 1 || len(all) != n || n < 20 {
		t.Errorf("exit code %d, %d faults as JSON and %d as text", code, len(all), n)
	}
	if !slices.IsSortedFunc(all, func(a, b diagnostic) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line)) }) {
		t.Error("they are not in the order of files and lines")
	}
}
