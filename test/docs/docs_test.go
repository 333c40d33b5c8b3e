// Package docs runs the examples of the README and of the pages under docs/ as they are printed.
//
// A fenced block of the language "console" is an example: a line that begins with "$ " is a command (a trailing backslash goes on in the
// next line), the lines after it are what it prints. In those, "…" stands for any text within a line, and a line of "…" alone for any
// number of lines. The commands of a page run one after the other, in the repository, against one fresh `waybill run` of the folder that
// the page names in a comment `<!-- run: PATH -->`.
package docs

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const printedAddress = "127.0.0.1:8080"

func TestExamplesRunAsPrinted(t *testing.T) {
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Attr("not-exercised", "the examples of README.md and docs/: "+tool+" is not installed")
			return
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "waybill")
	build := exec.Command("go", "build", "-o", binary, "./cmd/waybill")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}

	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, page := range append([]string{filepath.Join(root, "README.md")}, pages...) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		steps, manifests := parse(string(text))
		if len(steps) == 0 {
			continue
		}
		examples += len(steps)
		t.Run(filepath.Base(page), func(t *testing.T) {
			address := printedAddress
			if manifests != "" {
				address = serve(t, root, binary, manifests)
			}
			for _, s := range steps {
				runStep(t, root, binary, address, s)
			}
		})
	}
	if examples == 0 {
		t.Fatal("no example found in README.md or docs/")
	}
}

// A step is one command and what the page says that it prints.
type step struct {
	line    int
	command string
	output  string
}

var runComment = regexp.MustCompile(`<!-- run: (\S+) -->`)

func parse(page string) (steps []step, manifests string) {
	if m := runComment.FindStringSubmatch(page); m != nil {
		manifests = m[1]
	}
	inside := false
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		switch {
		case strings.HasPrefix(line, "```"):
			inside = strings.TrimSpace(line) == "```console"
		case inside && strings.HasPrefix(line, "$ "):
			s := step{line: i + 1, command: line[2:]}
			for strings.HasSuffix(s.command, `\`) && i+1 < len(lines) {
				i++
				s.command += "\n" + lines[i]
			}
			steps = append(steps, s)
		case inside && len(steps) > 0:
			steps[len(steps)-1].output += line + "\n"
		}
	}
	return steps, manifests
}

// serve starts `waybill run` on a port of its own and waits until it is up.
func serve(t *testing.T, root, binary, manifests string) string {
	t.Helper()
	cmd := exec.Command(binary, "run", "-f", manifests, "--ephemeral", "--port", "0", "-o", "json")
	cmd.Dir = root
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("waybill run ended with %v\n%s", err, stderr.String())
		}
	})

	up := make(chan string, 1)
	go func() {
		defer close(up)
		address := ""
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var event struct{ Event, Address string }
			if json.Unmarshal(lines.Bytes(), &event) != nil {
				continue
			}
			if address == "" && event.Address != "" {
				address = strings.SplitN(strings.TrimPrefix(event.Address, "http://"), "/", 2)[0]
			}
			if event.Event == "up" {
				up <- address
			}
		}
	}()
	select {
	case a, ok := <-up:
		if !ok {
			t.Fatalf("waybill run ended before it was up\n%s", stderr.String())
		}
		return a
	case <-time.After(30 * time.Second):
		t.Fatalf("waybill run is not up after 30 s\n%s", stderr.String())
		return ""
	}
}

func runStep(t *testing.T, root, binary, address string, s step) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", strings.ReplaceAll(s.command, printedAddress, address))
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	got := strings.ReplaceAll(string(out), address, printedAddress)
	if !pattern(s.output).MatchString(strings.TrimRight(got, "\n") + "\n") {
		t.Errorf("line %d: $ %s\nprinted (%v):\n%s\nthe page says:\n%s", s.line, s.command, err, got, s.output)
	}
}

// pattern turns the printed output into an expression, in which … matches anything.
func pattern(output string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for line := range strings.SplitSeq(strings.TrimRight(output, "\n"), "\n") {
		if strings.TrimSpace(line) == "…" {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		parts := strings.Split(strings.TrimRight(line, " "), "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		fmt.Fprintf(&b, "%s[ ]*\n", strings.Join(parts, ".*"))
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}
