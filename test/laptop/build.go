package laptop

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// programs are what the tests of one package have built.
var programs struct {
	sync.Mutex
	dir   string
	built map[string]string
}

// Main runs the tests of a package and then removes what Build has built for them: func TestMain(m *testing.M) { os.Exit(laptop.Main(m)) }
func Main(m *testing.M) int {
	defer func() {
		programs.Lock()
		defer programs.Unlock()
		if programs.dir != "" {
			_ = os.RemoveAll(programs.dir) // a temporary folder; the next start of the machine removes what is left
		}
	}()
	return m.Run()
}

// Build builds a program of this module, or of one that it depends on, once for all tests of a package. pkg is as in "go build", from the
// root of the repository. The package's TestMain must be Main.
func Build(t testing.TB, pkg string, flags ...string) string {
	t.Helper()
	programs.Lock()
	defer programs.Unlock()
	name := strings.Join(append([]string{pkg}, flags...), " ")
	if binary, ok := programs.built[name]; ok {
		return binary
	}
	if programs.dir == "" {
		dir, err := os.MkdirTemp("", "waybill-built") //nolint:usetesting // it outlives the test that comes first
		if err != nil {
			t.Fatal(err)
		}
		programs.dir, programs.built = dir, map[string]string{}
	}
	binary := filepath.Join(programs.dir, strings.Join(append([]string{path.Base(pkg)}, flags...), ""))
	cmd := exec.Command("go", append(append([]string{"build", "-o", binary}, flags...), pkg)...)
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", name, err, out)
	}
	programs.built[name] = binary
	return binary
}

// AsTests are the flags that build a program as the tests are built, with the race detector or without.
func AsTests() []string { return raceFlags }

// Root is the root of the repository.
func Root() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..")
}
