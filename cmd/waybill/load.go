package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/manifest"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// A load is what the files hold: read, validated by the cluster's own rules, and ready to be compiled.
type load struct {
	set *manifest.Set
	// faults are what reading and validating found.
	faults []manifest.Diagnostic
}

// read reads what -f names. Where nothing at all is to be found the path is most likely a wrong one, or the file was never written.
func (s *sources) read(stdin io.Reader) (*load, error) {
	set, faults, err := manifest.Read(s.paths, manifest.Options{Recursive: s.recursive, Stdin: stdin})
	switch {
	case errors.Is(err, manifest.ErrEmptyFolder):
		return nil, &exit{exitInvalid, err}
	case err != nil:
		return nil, &exit{exitUsage, err}
	}
	if set.Objects == 0 && len(faults) == 0 {
		return nil, &exit{exitInvalid, fmt.Errorf("%s: no object in it: an object begins with apiVersion and kind", strings.Join(set.Files, ", "))}
	}
	return &load{set, faults}, nil
}

// until reads until ctx ends: a terminal, or a pipe that nobody closes, gives nothing and no end either.
type until struct {
	ctx context.Context
	in  io.Reader
}

func (u until) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	own := make([]byte, len(p)) // a read that nobody waits for any more must not write into p
	done := make(chan result, 1)
	go func() {
		n, err := u.in.Read(own)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return copy(p, own[:r.n]), r.err
	case <-u.ctx.Done():
		return 0, u.ctx.Err()
	}
}

// input is what the compiler is told; of Secrets their keys only, and which values cannot be used.
func (l *load) input() compile.Input {
	in := compile.Input{
		Brokers: l.set.Brokers, Topics: l.set.Topics, Subscriptions: l.set.Subscriptions, Mailboxes: l.set.Mailboxes,
		Pollers: l.set.Pollers, Endpoints: l.set.Endpoints, Pipelines: l.set.Pipelines,
		Namespaces: l.set.Namespaces,
		Secrets:    map[types.NamespacedName][]string{},
		Flaws:      map[types.NamespacedName]map[string]secret.Flaw{},
	}
	for _, s := range l.set.Secrets {
		name := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
		in.Secrets[name], in.Flaws[name] = slices.Sorted(maps.Keys(s.Data)), secret.FlawsOf(s.Data)
	}
	for _, k := range l.set.Refused {
		in.Refused = append(in.Refused, plan.Resource{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name})
	}
	return in
}

// byThemselves are the reasons of faults that a resource has whatever else is wrong with it.
var byThemselves = []v1alpha1.Reason{v1alpha1.ReasonInvalidExpression, v1alpha1.ReasonInvalidSchema, v1alpha1.ReasonReferenceNotFound, v1alpha1.ReasonSecretNotFound}

// ofFaulty are the faults of values, expressions and references in what was refused already, so that they show at once too. What may only
// follow from the other faults is left out.
func (l *load) ofFaulty(in compile.Input) (found []compile.Diagnostic) {
	if len(l.faults) == 0 {
		return nil
	}
	f := l.set.Faulty
	in.Brokers, in.Topics = slices.Concat(in.Brokers, f.Brokers), slices.Concat(in.Topics, f.Topics)
	in.Subscriptions, in.Mailboxes = slices.Concat(in.Subscriptions, f.Subscriptions), slices.Concat(in.Mailboxes, f.Mailboxes)
	in.Pollers, in.Endpoints = slices.Concat(in.Pollers, f.Pollers), slices.Concat(in.Endpoints, f.Endpoints)
	in.Pipelines = slices.Concat(in.Pipelines, f.Pipelines)
	for _, d := range compile.Compile(in).Diagnostics {
		if (d.OfValue || slices.Contains(byThemselves, d.Reason)) && !l.set.Amiss(d.Kind, d.Namespace, d.Name, d.Field) {
			found = append(found, d)
		}
	}
	return found
}

// diagnostics are all that is wrong with what the files declare, in the order of files and lines. keep picks among the compiler's.
func (l *load) diagnostics(found []compile.Diagnostic, keep func(compile.Diagnostic) bool) []manifest.Diagnostic {
	out := slices.Clone(l.faults)
	for _, d := range found {
		// What refers to an object that has faults of its own is no second fault: those are told.
		if d.Reason == v1alpha1.ReasonReferenceInvalid {
			continue
		}
		if keep(d) {
			out = append(out, l.place(d))
		}
	}
	order := map[string]int{}
	for i, f := range l.set.Files {
		order[f] = i
	}
	slices.SortStableFunc(out, func(a, b manifest.Diagnostic) int {
		if a.File != b.File {
			return order[a.File] - order[b.File]
		}
		return a.Line - b.Line
	})
	return out
}

// place adds file and line to a diagnostic of the compiler's.
func (l *load) place(d compile.Diagnostic) manifest.Diagnostic {
	file, line := l.set.Locate(d.Kind, d.Namespace, d.Name, d.Field)
	return manifest.Diagnostic{File: file, Line: line, Kind: d.Kind, Namespace: d.Namespace, Name: d.Name,
		Field: d.Field, Reason: string(d.Reason), Message: d.Message}
}

// declared reports whether d is a fault of the declaration, and not of this build's lack of a driver, whose place --broker can take.
func declared(d compile.Diagnostic) bool { return d.Reason != compile.ReasonBrokerNotBuilt }

// withSecret adds the keys of a Secret to what the compiler is told.
func withSecret(secrets map[types.NamespacedName][]string, namespace, name string, keys []string) map[types.NamespacedName][]string {
	out := maps.Clone(secrets)
	out[types.NamespacedName{Namespace: namespace, Name: name}] = keys
	return out
}
