package manifest_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/runtime/manifest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Each file under testdata/wrong is refused in the words of its golden file; where it says "# !", and nowhere else.
func TestWrong(t *testing.T) {
	files, err := filepath.Glob("testdata/wrong/*.*")
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(f string) bool { return filepath.Ext(f) == ".golden" })
	if len(files) < 8 {
		t.Fatalf("only %d files", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, diagnostics, err := manifest.Read([]string{file}, manifest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			found := map[int]bool{}
			for _, d := range diagnostics {
				fmt.Fprintf(&out, "%s [%s]\n", strings.TrimPrefix(d.String(), "testdata/wrong/"), d.Reason)
				found[d.Line] = true
			}
			golden := strings.TrimSuffix(file, filepath.Ext(file)) + ".golden"
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
			if filepath.Ext(file) == ".json" {
				return // has no comments
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Split(string(text), "\n") {
				if marked := strings.HasSuffix(line, "# !"); marked != found[i+1] {
					t.Errorf("line %d: marked %v, refused %v: %s", i+1, marked, found[i+1], line)
				}
			}
		})
	}
}
