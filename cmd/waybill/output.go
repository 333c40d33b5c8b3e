package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/waybill-dev/waybill/runtime/manifest"
)

// output is the value of -o.
type output struct {
	value   string
	allowed []string
}

func outputFlag(flags *pflag.FlagSet, allowed ...string) *output {
	o := &output{allowed[0], allowed}
	flags.VarP(o, "output", "o", "output format: "+strings.Join(allowed, "|"))
	return o
}

func (o *output) String() string { return o.value }
func (o *output) Type() string   { return "format" }

func (o *output) Set(v string) error {
	if !slices.Contains(o.allowed, v) {
		return fmt.Errorf("want %s", strings.Join(o.allowed, " or "))
	}
	o.value = v
	return nil
}

// written remembers the first fault of an output: a command whose result was not written is not done.
type written struct {
	to    io.Writer
	fault error
}

func (w *written) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	if err != nil && w.fault == nil {
		w.fault = err
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			w.fault = e.Err
		}
	}
	return n, err
}

// report prints diagnostics: one JSON object a line on stdout, or lines for a person on stderr.
func report(o *output, stdout, stderr io.Writer, ds []manifest.Diagnostic) {
	if o.value == "json" {
		enc := json.NewEncoder(stdout)
		enc.SetEscapeHTML(false)
		for _, d := range ds {
			d.Message = manifest.Shorten(d.Message)
			enc.Encode(d)
		}
		return
	}
	for _, d := range ds {
		fmt.Fprintln(stderr, d)
	}
}

// reportSkipped names the kinds of others that were passed over, each once.
func reportSkipped(stderr io.Writer, set *manifest.Set) {
	for _, s := range set.Skipped {
		what := manifest.Visible(manifest.Shorten(s.APIVersion) + " " + manifest.Shorten(s.Kind))
		fmt.Fprintf(stderr, "%s:%d: skipped %s, which is no kind of Waybill's%s\n", manifest.Visible(s.File), s.Line, what, more(s.Count-1))
	}
}

// count says "1 fault" or "3 faults".
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// more says how many others there are.
func more(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}
