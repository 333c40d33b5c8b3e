package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
)

// steps maps container steps to programs on this machine: --step NAME=URL.
type steps map[string]string

func parseSteps(flags []string) (steps, error) {
	mapped := steps{}
	for _, f := range flags {
		name, raw, ok := strings.Cut(f, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--step %s: want NAME=URL, for example score=http://127.0.0.1:8000", redacted(f))
		}
		base, err := httpBase(raw)
		if err != nil {
			return nil, fmt.Errorf("--step %s: %w", name, err)
		}
		if _, twice := mapped[name]; twice {
			return nil, fmt.Errorf("--step %s is given twice: keep one", name)
		}
		mapped[name] = base
	}
	return mapped, nil
}

// replace puts an http step in the place of each container step that is mapped: a worker calls its container in the same way.
func (m steps) replace(in compile.Input) compile.Input {
	in.Pipelines = slices.Clone(in.Pipelines)
	for i, p := range in.Pipelines {
		for j := range p.Spec.Steps {
			base, ok := m[p.Spec.Steps[j].Name]
			c := p.Spec.Steps[j].Container
			if !ok || c == nil {
				continue
			}
			p = p.DeepCopy()
			p.Spec.Steps[j].Container = nil
			p.Spec.Steps[j].HTTP = &v1alpha1.HTTPStep{URI: base + c.Path, Timeout: c.Timeout, Concurrency: c.Concurrency}
			in.Pipelines[i] = p
		}
	}
	return in
}

var containerField = regexp.MustCompile(`^spec\.steps\[(\d+)\]\.container$`)

// isContainer reports whether d says only that a container step cannot be run, which --step mends.
func isContainer(d compile.Diagnostic) bool {
	return d.Kind == "Pipeline" && d.Reason == v1alpha1.ReasonNotImplemented && containerField.MatchString(d.Field)
}

// onlyHere words what was not said about the declared broker, and so is about this machine; of the container steps that are not mapped it
// says what would be right.
func onlyHere(in compile.Input, found []compile.Diagnostic) []compile.Diagnostic {
	out := slices.Clone(found)
	for i, d := range out {
		if !isContainer(d) {
			if declared(d) {
				out[i].Message = "not on the broker that runs here: " + d.Message
			}
			continue
		}
		name := "NAME"
		for _, p := range in.Pipelines {
			for j := range p.Spec.Steps {
				if p.Namespace == d.Namespace && p.Name == d.Name && d.Field == fmt.Sprintf("spec.steps[%d].container", j) {
					name = p.Spec.Steps[j].Name
				}
			}
		}
		out[i].Reason = "StepNotMapped"
		out[i].Message = fmt.Sprintf("no container is started on this machine: start the program of step %s yourself and add --step %s=URL, such as --step %s=http://127.0.0.1:8000", name, name, name)
	}
	return out
}
