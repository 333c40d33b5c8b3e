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

func sourceFlags(cmd *cobra.Command, flags *pflag.FlagSet) *sources {
	s := new(sources)
	flags.StringArrayVarP(&s.paths, "filename", "f", nil, "a file, or a folder with .yaml, .yml and .json files; may be repeated")
	flags.BoolVarP(&s.recursive, "recursive", "R", false, "read the subfolders of folders too")
	if err := cmd.MarkFlagRequired("filename"); err != nil {
		panic(err) // there is no such flag
	}
	return s
}

func newValidate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate -f PATH [-f PATH]…",
		Short: "Say what is wrong with resources, as the cluster and the compiler would",
		Args:  cobra.NoArgs,
	}
	src := sourceFlags(cmd, cmd.Flags())
	out := outputFlag(cmd.Flags(), "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		l, err := read(src.paths, src.recursive)
		if err != nil {
			return err
		}
		result := compile.Compile(l.input())
		faults := l.diagnostics(result.Diagnostics, declared)
		report(out, cmd.OutOrStdout(), cmd.ErrOrStderr(), faults)
		reportSkipped(cmd.ErrOrStderr(), l.set)
		if len(faults) > 0 {
			return &exit{exitInvalid, fmt.Errorf("%s found", count(len(faults), "fault"))}
		}
		if out.value == "text" {
			fmt.Fprintf(cmd.OutOrStdout(), "%s in %s: valid\n", count(len(result.Outcomes), "resource"), count(len(l.set.Files), "file"))
		}
		return nil
	}
	return cmd
}
