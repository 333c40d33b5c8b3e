// Command waybill runs, validates and compiles Waybill's resources on one machine: the same YAML, rules and delivery code as in a cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, as docs/cli.md promises them.
const (
	exitDone    = 0
	exitInvalid = 1 // invalid input, a taken port, a locked data folder
	exitUsage   = 2 // wrong flags, a missing path
	exitPartly  = 3 // partly running or partly drained
)

// An exit ends the command with a code; a nil err was reported already.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once; what is stored survives that
	code := Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Main is the whole command: it returns the exit code. ctx ends with the first signal and starts the drain.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "waybill",
		Short:         "Declared message delivery: run, validate and compile Waybill resources",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exit{exitUsage, fmt.Errorf("%w\nRun '%s --help' for usage", err, cmd.CommandPath())}
	})
	root.AddCommand(newRun(), newValidate(), newCompile())

	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var e *exit
	if !errors.As(err, &e) {
		e = &exit{exitUsage, err} // cobra's own: unknown command, missing flag
	}
	if e.err != nil {
		fmt.Fprintf(stderr, "waybill: %v\n", e.err)
	}
	return e.code
}
