package contract

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var (
	page   = &proofs{by: map[string][]string{}}
	binary string // of waybill, with the race detector
	root   string // of the repository
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if root, err = filepath.Abs("../.."); err != nil {
		return fail(err)
	}
	if page.page, err = statements(filepath.Join(root, "docs", "contract.md")); err != nil {
		return fail(err)
	}
	dir, err := os.MkdirTemp("", "waybill-contract")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "waybill")
	build := exec.Command("go", "build", "-race", "-o", binary, "./cmd/waybill")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return fail(fmt.Errorf("go build: %w\n%s", err, out))
	}
	code := m.Run()
	if left := page.unproven(); code == 0 && left != "" && whole() {
		fmt.Print(left)
		return 1
	}
	return code
}

// whole reports whether all tests were asked for.
func whole() bool {
	return flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" && flag.Lookup("test.list").Value.String() == ""
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}
