package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/waybill-dev/waybill/runtime/spelling"
)

// usage is an error in how the command was called; it ends with where to read more.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return &exit{exitUsage, fmt.Errorf("%s\n'%s --help' says more", fmt.Sprintf(format, args...), cmd.CommandPath())}
}

// aCommand says that there is no such command; without any the help is printed.
func aCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	if right := alike[args[0]]; right != "" {
		return usage(cmd, "there is no command %q; did you mean %s?", args[0], right)
	}
	return usage(cmd, "there is no command %q%s", args[0], meant(args[0], names))
}

// alike are what other tools call our commands.
var alike = map[string]string{"start": "run", "serve": "run", "up": "run", "dev": "run", "apply": "run", "check": "validate", "lint": "validate", "test": "validate",
	"plan": "compile", "build": "compile", "render": "compile", "explain": "compile"}

// noArguments refuses what stands behind the flags: most often files that a shell made of a pattern.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.Flags().Lookup("filename") == nil:
		return usage(cmd, "%q is one argument too many: %s takes none", args[0], cmd.CommandPath())
	}
	return usage(cmd, "%q stands alone: give each path a -f of its own, or name the folder that holds them", args[0])
}

// wrongFlag says in plain words what is wrong with a flag and what would be right.
func wrongFlag(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if args := cmd.Flags().Args(); cmd.HasSubCommands() && len(args) > 0 {
			return aCommand(cmd, args) // its flags are no fault: there is no such command
		}
		for _, c := range slices.SortedFunc(slices.Values(cmd.Commands()), runFirst) {
			if name := unknown.GetSpecifiedName(); c.Flags().Lookup(name) != nil || len(name) == 1 && c.Flags().ShorthandLookup(name) != nil {
				return usage(cmd, "a flag stands behind its command, as in: %s %s %s", cmd.CommandPath(), c.Name(), dashed(name))
			}
		}
		if short := unknown.GetSpecifiedShortnames(); short != "" {
			return usage(cmd, "there is no flag -%s", unknown.GetSpecifiedName())
		}
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		name := dashed(unknown.GetSpecifiedName())
		return usage(cmd, "there is no flag %s%s", name, meant(name, names))
	}
	if bare, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		f := bare.GetFlag()
		return usage(cmd, "--%s needs a value: %s", f.Name, f.Usage)
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		f := invalid.GetFlag()
		return usage(cmd, "--%s %s: %s", f.Name, redacted(invalid.GetValue()), wanted(f, invalid.Unwrap()))
	}
	return usage(cmd, "%v", err)
}

// runFirst sorts the command that most people mean before the others.
func runFirst(a, b *cobra.Command) int {
	switch {
	case a.Name() == b.Name():
		return 0
	case a.Name() == "run":
		return -1
	case b.Name() == "run":
		return 1
	}
	return strings.Compare(a.Name(), b.Name())
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// wanted says what the value of a flag has to be like.
func wanted(f *pflag.Flag, cause error) string {
	switch f.Value.Type() {
	case "int":
		return "want a whole number"
	case "duration":
		return "want a duration such as 20s, 2m or 0s"
	case "bool":
		return "the flag stands alone, or takes true or false"
	}
	return cause.Error()
}

// meant is the end of a sentence about a misspelt word: "; did you mean X?", or what else is possible where it is near to none.
func meant(word string, among []string) string {
	if near := spelling.Nearest(word, among); near != "" {
		return "; did you mean " + near + "?"
	}
	if len(among) == 0 {
		return ""
	}
	return "; there is " + strings.Join(among, ", ")
}
