package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
)

// event is one line of "go test -json"; "go doc test2json" explains it.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of a build's output, instead of Package
	Test        string
	Output      string
	FailedBuild string
	Key, Value  string // of a t.Attr
}

// result counts tests that are leaves: a test with subtests is the sum of them. A package that failed without a test to
// blame counts as one failure.
type result struct {
	passed, failed, skipped int
}

// id names a test within a run.
type id struct{ pkg, test string }

type report struct {
	out io.Writer

	output  map[id][]string // what each test printed, until it has passed
	parent  map[id]bool     // tests that have subtests
	ended   map[id]string   // how each test ended
	broken  map[string]bool // packages that failed
	left    []string        // what was not exercised
	lines   map[id][]string // lines of a table that a test reports
	ordered []id            // the keys of lines, in the order in which they came
}

func newReport(out io.Writer) *report {
	return &report{
		out:    out,
		output: map[id][]string{},
		parent: map[id]bool{},
		ended:  map[id]string{},
		broken: map[string]bool{},
		lines:  map[id][]string{},
	}
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			r.line(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line takes one line. What is not JSON comes from a tool below go test and is shown as it is.
func (r *report) line(line string) {
	var e event
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil {
		fmt.Fprint(r.out, line)
		return
	}
	if e.Action == "build-output" {
		fmt.Fprint(r.out, e.Output)
		return
	}
	if e.Test == "" {
		r.packageEvent(e)
		return
	}
	r.testEvent(e)
}

func (r *report) packageEvent(e event) {
	switch e.Action {
	case "output":
		// PASS is said again by the line "ok"; coverage and "exit status" belong to it.
		if e.Output != "PASS\n" {
			fmt.Fprint(r.out, e.Output)
		}
	case "fail":
		r.broken[e.Package] = true
		// The tests that were running when the process died have no end of their own.
		for _, t := range r.unfinished(e.Package) {
			r.ended[t] = "fail"
			r.show(t)
		}
	}
}

func (r *report) testEvent(e event) {
	t := id{e.Package, e.Test}
	switch e.Action {
	case "run":
		r.ended[t] = ""
		for i, c := range e.Test {
			if c == '/' {
				r.parent[id{e.Package, e.Test[:i]}] = true
			}
		}
	case "output":
		r.output[t] = append(r.output[t], e.Output)
	case "attr":
		switch e.Key {
		case "not-exercised":
			r.left = append(r.left, fmt.Sprintf("%s %s: %s", e.Package, e.Test, e.Value))
		case "report":
			if _, seen := r.lines[t]; !seen {
				r.ordered = append(r.ordered, t)
			}
			r.lines[t] = append(r.lines[t], e.Value)
		}
	case "pass":
		r.ended[t] = e.Action
		delete(r.output, t)
	case "fail":
		r.ended[t] = e.Action
		r.show(t)
	case "skip":
		r.ended[t] = e.Action
		r.left = append(r.left, fmt.Sprintf("%s %s: skipped%s", e.Package, e.Test, reason(r.output[t])))
		delete(r.output, t)
	}
}

// show prints what a failed test printed, and forgets it.
func (r *report) show(t id) {
	if len(r.output[t]) > 0 {
		fmt.Fprintf(r.out, "=== %s %s\n", t.pkg, t.test)
	}
	for _, line := range r.output[t] {
		if !strings.HasPrefix(line, "=== ") {
			fmt.Fprint(r.out, line)
		}
	}
	delete(r.output, t)
}

func (r *report) unfinished(pkg string) []id {
	var ts []id
	for t, end := range r.ended {
		if t.pkg == pkg && end == "" {
			ts = append(ts, t)
		}
	}
	sort.Slice(ts, func(i, j int) bool { return ts[i].test < ts[j].test })
	return ts
}

// reason is what a test said before it was skipped: its output without the lines of the test runner.
func reason(output []string) string {
	var words []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			words = append(words, line)
		}
	}
	if len(words) == 0 {
		return ""
	}
	return ", " + strings.Join(words, " ")
}

func (r *report) count() result {
	var n result
	for t, end := range r.ended {
		switch {
		case r.parent[t] && end != "fail": // its subtests are counted
		case r.parent[t] && r.failedBelow(t):
		case end == "pass":
			n.passed++
		case end == "fail":
			n.failed++
		case end == "skip":
			n.skipped++
		}
	}
	for pkg := range r.broken {
		if !r.failedIn(pkg) {
			n.failed++
		}
	}
	return n
}

// failedBelow says whether a subtest explains why t failed.
func (r *report) failedBelow(t id) bool {
	for other, end := range r.ended {
		if end == "fail" && other.pkg == t.pkg && strings.HasPrefix(other.test, t.test+"/") {
			return true
		}
	}
	return false
}

// failedIn says whether a test explains why a package failed; otherwise it did not build, or its TestMain failed.
func (r *report) failedIn(pkg string) bool {
	for t, end := range r.ended {
		if t.pkg == pkg && end == "fail" {
			return true
		}
	}
	return false
}

// finish prints the end of the report and says whether all is well.
func (r *report) finish(strict bool) bool {
	n := r.count()
	for _, t := range r.ordered {
		fmt.Fprintf(r.out, "\nReported by %s %s:\n", t.pkg, t.test)
		for _, line := range r.lines[t] {
			fmt.Fprintf(r.out, "  %s\n", line)
		}
	}

	fmt.Fprintln(r.out)
	ok := true
	if len(r.left) == 0 {
		fmt.Fprintln(r.out, "Everything could be exercised on this machine.")
	} else {
		fmt.Fprintln(r.out, "Not exercised on this machine:")
		for _, line := range r.left {
			fmt.Fprintf(r.out, "  %s\n", line)
		}
		if strict {
			fmt.Fprintln(r.out, "This run must leave nothing out, so it has failed.")
			ok = false
		}
	}
	if len(r.ended) == 0 && len(r.broken) == 0 {
		fmt.Fprintln(r.out, "No test ran at all; the pattern of packages or tests matches nothing.")
		ok = false
	}
	if len(r.broken) > 0 {
		ok = false
		names := make([]string, 0, len(r.broken))
		for name := range r.broken {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Fprintf(r.out, "Packages that failed: %s\n", strings.Join(names, " "))
	}
	if n.failed > 0 {
		ok = false
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", n.passed, n.failed, n.skipped)
	return ok
}
