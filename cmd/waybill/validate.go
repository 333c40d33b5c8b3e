package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/waybill-dev/waybill/runtime/compile"
)

// sources are the flags that name what to read, the same for all commands.
type sources struct {
	paths     []string
	recursive bool
}

// sourceFlags adds the flags, and the check that there is something to read.
func sourceFlags(cmd *cobra.Command, flags *pflag.FlagSet) *sources {
	s := new(sources)
	flags.StringArrayVarP(&s.paths, "filename", "f", nil, "a file, a folder (its .yaml, .yml and .json files), or - for standard input; may be repeated")
	flags.BoolVarP(&s.recursive, "recursive", "R", false, "read the subfolders of folders too")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if len(s.paths) == 0 {
			return usage(cmd, "nothing to read: name a file or a folder with -f")
		}
		return nil
	}
	return s
}

func newValidate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate -f PATH [-f PATH]…",
		Short: "Say what is wrong with resources, as the cluster and the compiler would",
		Long: `Validate checks resources by the rules of the cluster and of the compiler, without either: fields, values, references, Secrets' keys, and
whether the brokers can keep the guarantees that are asked for. Each fault is told with its file, line and field; with -o json each is a line, and what is valid
prints nothing.

Exit codes: 0 all is valid, 1 something is not, 2 the command was called wrongly.`,
		Example: `  waybill validate -f deploy/
  waybill validate -f deploy/ -R -o json
  kustomize build overlays/prod | waybill validate -f -`,
		Args: noArguments,
	}
	src := sourceFlags(cmd, cmd.Flags())
	out := outputFlag(cmd.Flags(), "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		l, err := src.read(cmd.InOrStdin())
		if err != nil {
			return err
		}
		in := l.input()
		result := compile.Compile(in)
		faults := l.diagnostics(append(result.Diagnostics, l.ofFaulty(in)...), declared)
		report(out, cmd.OutOrStdout(), cmd.ErrOrStderr(), faults)
		reportSkipped(cmd.ErrOrStderr(), l.set)
		if len(faults) > 0 {
			return &exit{exitInvalid, fmt.Errorf("%s found", count(len(faults), "fault"))}
		}
		resources, files := len(result.Outcomes), count(len(l.set.Files), "file")
		switch {
		case out.value == "json": // a line a fault: there is none
		case resources == 0:
			fmt.Fprintf(cmd.OutOrStdout(), "0 resources in %s: nothing there is Waybill's\n", files)
		default:
			fmt.Fprintf(cmd.OutOrStdout(), "%s in %s: valid\n", count(resources, "resource"), files)
		}
		return nil
	}
	return cmd
}
