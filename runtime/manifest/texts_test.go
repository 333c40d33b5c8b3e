package manifest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/waybill-dev/waybill/runtime/manifest"
)

var fileMark = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

// Each text of testdata/texts.txt is refused in the words of texts.golden.
func TestWrongTexts(t *testing.T) {
	data, err := os.ReadFile("testdata/texts.txt")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	marks := fileMark.FindAllStringSubmatchIndex(text, -1)
	dir := t.TempDir()
	var out strings.Builder
	for i, m := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		path := write(t, dir, text[m[2]:m[3]], text[m[1]:end])
		_, diagnostics, err := manifest.Read([]string{path}, manifest.Options{})
		if err != nil || len(diagnostics) == 0 {
			t.Errorf("%s: %d faults, %v", path, len(diagnostics), err)
		}
		for _, d := range diagnostics {
			fmt.Fprintf(&out, "%s [%s]\n", strings.TrimPrefix(d.String(), dir+string(filepath.Separator)), d.Reason)
		}
	}
	const golden = "testdata/texts.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// What Windows makes of a file is no fault, and the lines are counted right.
func TestWindows(t *testing.T) {
	dir := t.TempDir()
	lines := strings.ReplaceAll(strings.Replace(topic("orders"), "{brokerRef", "{brokreRef", 1), "\n", "\r\n")
	wide := "\xff\xfe"
	for _, u := range utf16.Encode([]rune(lines)) {
		wide += string([]byte{byte(u), byte(u >> 8)})
	}
	for name, text := range map[string]string{"crlf.yaml": lines, "bom.yaml": "\xef\xbb\xbf" + lines, "utf16.yaml": wide} {
		_, diagnostics, err := manifest.Read([]string{write(t, dir, name, text)}, manifest.Options{})
		if err != nil || len(diagnostics) != 1 || diagnostics[0].Line != 4 || diagnostics[0].Field != "spec.brokreRef" {
			t.Errorf("%s: %v, %v", name, diagnostics, err)
		}
	}
}

// A document that cannot be parsed hides no fault of the others, and what refers to its object does not miss it.
func TestABrokenDocumentHidesNothing(t *testing.T) {
	text := strings.Join([]string{topic("a"), strings.Replace(topic("b"), "main}", "main", 1), strings.Replace(topic("c"), "brokerRef", "brokreRef", 1), topic("d")}, "---\n")
	set, diagnostics, err := manifest.Read([]string{write(t, t.TempDir(), "a.yaml", text)}, manifest.Options{})
	if err != nil || len(diagnostics) != 2 || names(set.Topics) != "a d" {
		t.Fatalf("%v, %v, topics %s", diagnostics, err, names(set.Topics))
	}
	if d := diagnostics[0]; d.Name != "b" || d.Line != 9 || d.Reason != "Unreadable" {
		t.Errorf("%+v", d)
	}
	if d := diagnostics[1]; d.Name != "c" || d.Line != 14 || d.Reason != "UnknownField" {
		t.Errorf("%+v", d)
	}
	if len(set.Refused) != 2 || set.Refused[0].Name != "b" || set.Refused[1].Name != "c" {
		t.Errorf("refused: %v", set.Refused)
	}
}

// Eighty wrong manifests and more, each with a message of its own.
func TestMessagesDiffer(t *testing.T) {
	goldens, err := filepath.Glob("testdata/wrong/*.golden")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for _, path := range append(goldens, "testdata/texts.golden") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			_, what, _ := strings.Cut(line, ": ")
			said[strings.TrimSpace(what)] = true
		}
	}
	if len(said) < 200 {
		t.Errorf("only %d messages", len(said))
	}
}
