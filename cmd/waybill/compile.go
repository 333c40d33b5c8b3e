package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

func newCompile() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "compile -f PATH [-f PATH]…",
		Short: "Print the plans that workers would run, and the guarantee that each resource gets",
		Args:  cobra.NoArgs,
	}
	src := sourceFlags(cmd, cmd.Flags())
	out := outputFlag(cmd.Flags(), "text", "json", "yaml")
	features := cmd.Flags().StringArray("features", nil, "NAME=FILE: what a probe found of the Broker NAME, as its status.features; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		l, err := read(src.paths, src.recursive)
		if err != nil {
			return err
		}
		in := l.input()
		if in.Features, err = readFeatures(*features); err != nil {
			return &exit{exitUsage, err}
		}
		result := compile.Compile(in)
		faults := l.diagnostics(result.Diagnostics, func(compile.Diagnostic) bool { return true })
		report(out, cmd.OutOrStdout(), cmd.ErrOrStderr(), faults)
		reportSkipped(cmd.ErrOrStderr(), l.set)
		if err := printPlans(cmd.OutOrStdout(), out.value, &result); err != nil {
			return err
		}
		if len(faults) > 0 {
			return &exit{exitInvalid, fmt.Errorf("%s found", count(len(faults), "fault"))}
		}
		return nil
	}
	return cmd
}

func readFeatures(flags []string) (map[types.NamespacedName]v1alpha1.BrokerFeatures, error) {
	found := map[types.NamespacedName]v1alpha1.BrokerFeatures{}
	for _, f := range flags {
		name, file, ok := strings.Cut(f, "=")
		if !ok || name == "" || file == "" {
			return nil, fmt.Errorf("--features %s: want NAME=FILE or NAMESPACE/NAME=FILE", f)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--features %s: %w", name, err)
		}
		var features v1alpha1.BrokerFeatures
		if err := yaml.UnmarshalStrict(data, &features); err != nil {
			return nil, fmt.Errorf("--features %s: %s: %w", name, file, err)
		}
		found[brokerKey(name)] = features
	}
	return found, nil
}

// brokerKey reads NAME or NAMESPACE/NAME.
func brokerKey(s string) types.NamespacedName {
	if ns, name, ok := strings.Cut(s, "/"); ok {
		return types.NamespacedName{Namespace: ns, Name: name}
	}
	return types.NamespacedName{Namespace: "default", Name: s}
}

func printPlans(w io.Writer, format string, result *compile.Result) error {
	for _, o := range result.Outcomes {
		if o.Plan == nil {
			continue
		}
		switch format {
		case "json":
			fmt.Fprintf(w, "%s\n", o.Canonical)
		case "yaml":
			text, err := yaml.JSONToYAML(o.Canonical)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "---\n%s", text)
		default:
			printPlan(w, &o)
		}
	}
	return nil
}

// printPlan tells a person what one resource becomes.
func printPlan(w io.Writer, o *compile.Outcome) {
	fmt.Fprintf(w, "%s  plan %s\n", o.Resource, plan.Hash(o.Canonical))
	e := o.Effective
	if e.Guarantee != "" {
		fmt.Fprintf(w, "  guarantee  %s\n", e.Guarantee)
	}
	if e.Ordering != "" {
		fmt.Fprintf(w, "  ordering   %s\n", e.Ordering)
	}
	if e.Mechanism != "" {
		fmt.Fprintf(w, "  by         %s\n", e.Mechanism)
	}
	for _, l := range e.Limits {
		fmt.Fprintf(w, "  but        %s\n", l)
	}
	for _, obj := range o.Owned() {
		b, _ := json.Marshal(obj.Name)
		fmt.Fprintf(w, "  makes      %s %s on broker %s\n", strings.ToLower(obj.Kind), b, obj.Broker)
	}
}
