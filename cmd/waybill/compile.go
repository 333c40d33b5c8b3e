package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

func newCompile() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "compile -f PATH [-f PATH]…",
		Short: "Print the plans that workers would run, and the guarantee that each resource gets",
		Long: `Compile prints what becomes of each resource: the guarantee and the ordering that it gets, how they are kept and where they end, and what it
makes on its broker. With -o json or yaml it prints the plans themselves. The same files give the same bytes.

What a broker can do is taken from its status.features if the file has it, else from --features NAME=FILE, else it is what every supported
version can. FILE is YAML or JSON with any of:

  product: NATS                # NATS, Kafka, Redpanda, RabbitMQ or SQS
  flags: [AtomicBatch]         # AtomicBatch (NATS), Transactions (Kafka), SNS (SQS)
  maxMessageBytes: 8388608

Exit codes: 0 all have a plan, 1 something is wrong, 2 the command was called wrongly.`,
		Example: `  waybill compile -f deploy/
  waybill compile -f deploy/ -o yaml > plans.yaml
  waybill compile -f deploy/ --features main=probed.yaml`,
		Args: noArguments,
	}
	src := sourceFlags(cmd, cmd.Flags())
	out := outputFlag(cmd.Flags(), "text", "json", "yaml")
	features := cmd.Flags().StringArray("features", nil, featuresHelp)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		l, err := src.read(cmd.InOrStdin())
		if err != nil {
			return err
		}
		in := l.input()
		if in.Features, err = readFeatures(*features, l.set.Brokers); err != nil {
			return &exit{exitUsage, err}
		}
		result := compile.Compile(in)
		faults := l.diagnostics(append(result.Diagnostics, l.ofFaulty(in)...), func(compile.Diagnostic) bool { return true })
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

// brokerKey reads NAME or NAMESPACE/NAME.
func brokerKey(s string) types.NamespacedName {
	if ns, name, ok := strings.Cut(s, "/"); ok {
		return types.NamespacedName{Namespace: ns, Name: name}
	}
	return types.NamespacedName{Namespace: "default", Name: s}
}

func printPlans(w io.Writer, format string, result *compile.Result) error {
	for _, o := range result.Outcomes {
		if o.Plan == nil && (format != "text" || o.Effective.Guarantee == "") {
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
	if o.Plan == nil {
		fmt.Fprintf(w, "%s  no plan: this version has no driver for its broker; what it would get:\n", o.Resource)
	} else {
		fmt.Fprintf(w, "%s  plan %s\n", o.Resource, plan.Hash(o.Canonical))
	}
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
