// Command testreport turns the output of "go test -json" back into what a person reads, and keeps the books: which tests
// were skipped, and what else could not be exercised on this machine, both by name, so that nothing is left out in silence.
//
//	go test -json ./... | testreport [-strict] [-left-out TEXT]…
//
// Packages are printed as go test prints them (ok, FAIL); of tests that failed, their output. At the end comes the list of
// what was not exercised and one line "N passed, N failed, N skipped". A test that runs but has to leave a part out says so
// with t.Attr("not-exercised", "what and why"); a test may report a table with t.Attr("report", "a line"), which is printed too.
//
// The exit code is 1 when a test or a package failed, and with -strict also when anything was left out.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	strict := flag.Bool("strict", false, "fail when a test was skipped or something was not exercised")
	var left []string
	flag.Func("left-out", "something that the caller could not exercise, and why; may be given several times", func(text string) error {
		left = append(left, text)
		return nil
	})
	flag.Parse()

	r := newReport(os.Stdout)
	r.left = left
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintf(os.Stderr, "testreport: the output of go test -json could not be read: %v\n", err)
		os.Exit(1)
	}
	if !r.finish(*strict) {
		os.Exit(1)
	}
}
