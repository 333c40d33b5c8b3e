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
	"time"

	"github.com/spf13/cobra"
)

// Exit codes, as docs/contract.md promises them.
const (
	exitDone    = 0
	exitInvalid = 1 // invalid input, a taken port, a locked data folder, an output that cannot be written
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
	os.Exit(Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// untilSignal gives a context that ends with the first signal, for a command that has something to bring to an end. The others leave signals
// alone, and so end with the first one, whatever they do.
func untilSignal(ctx context.Context) (context.Context, func()) {
	ctx, drain := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go obey(signals, drain)
	return ctx, func() {
		signal.Stop(signals)
		drain()
	}
}

// obey drains with the first signal and ends the process at once with the second; what is stored survives that.
func obey(signals <-chan os.Signal, drain func()) {
	<-signals
	drain()
	second := (<-signals).(syscall.Signal)
	signal.Reset(second)
	_ = syscall.Kill(syscall.Getpid(), second)
	<-time.After(time.Second) // the runtime's handler ends the process by the signal, on another thread
	// It was ignored when the process began, as a shell without job control has SIGINT for what it runs in the background.
	os.Exit(128 + int(second))
}

// Main is the whole command: it returns the exit code. The end of ctx starts the drain, as the first signal does.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "waybill",
		Short: "Declared message delivery: run, validate and compile Waybill resources",
		Long: `Waybill delivers messages as you declare it: Request/Response, Request/ACK, Request/Forget, PubSub, Mailbox and Polling.
This command takes the same YAML as a cluster and needs none.`,
		Example: `  waybill run -f config/samples/quickstart       # run it, on port 8080; Ctrl-C drains and stops
  waybill validate -f deploy/ -R                 # what would a cluster refuse?
  waybill compile -f orders.yaml -f broker.yaml  # which guarantee does each resource get, and how?`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          aCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	out := &written{to: stdout}
	root.SetOut(out)
	root.SetErr(stderr)
	root.SetArgs(args)
	root.SetVersionTemplate("waybill {{.Version}}\n")
	root.SetFlagErrorFunc(wrongFlag)
	run := newRun()
	run.SetOut(stdout) // it delivers whether or not anybody reads that
	root.AddCommand(run, newValidate(), newCompile(), newVersion())

	err := root.ExecuteContext(ctx)
	var e *exit
	switch {
	case errors.As(err, &e):
	case out.fault != nil:
		e = &exit{exitInvalid, nil}
	case err != nil:
		e = &exit{exitUsage, err}
	default:
		return exitDone
	}
	if out.fault != nil {
		fmt.Fprintf(stderr, "waybill: cannot write to the standard output: %v\n", out.fault)
	}
	if e.err != nil {
		fmt.Fprintf(stderr, "waybill: %v\n", e.err)
	}
	return e.code
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print which waybill this is",
		Args:  noArguments,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintf(cmd.OutOrStdout(), "waybill %s\n", version()) },
	}
}
