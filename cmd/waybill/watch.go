package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/waybill-dev/waybill/runtime/engine"
)

const refresh = 500 * time.Millisecond

// watch shows what goes on until ctx ends: a table that is drawn anew on a terminal, else a line whenever a resource's state changes.
func watch(ctx context.Context, eng *engine.Engine, stdout, stderr io.Writer, quiet bool) {
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	var draw func([]engine.Status)
	if f, ok := stdout.(*os.File); ok && !quiet && term.IsTerminal(int(f.Fd())) {
		draw = (&table{out: f, width: func() int { w, _, _ := term.GetSize(int(f.Fd())); return w }}).draw
	} else {
		draw = (&changes{out: stderr, last: map[string]string{}}).tell
	}
	for {
		draw(eng.Status())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// table draws over what it drew before.
type table struct {
	out   io.Writer
	width func() int
	lines int
}

func (t *table) draw(all []engine.Status) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RESOURCE\tSTATE\tIN\tOUT\tIN FLIGHT\tRETRIED\tDEAD\t")
	for _, s := range all {
		c := s.Counts
		fmt.Fprintf(w, "%s/%s/%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", s.Kind, s.Namespace, s.Name, s.State,
			c.In, c.Out, c.InFlight, c.Retried, c.DeadLettered, remark(s))
	}
	_ = w.Flush() // into memory
	if t.lines > 0 {
		fmt.Fprintf(t.out, "\x1b[%dA\x1b[J", t.lines)
	}
	width := max(t.width(), 40)
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	for _, line := range lines {
		if runes := []rune(strings.TrimRight(line, " ")); len(runes) > width {
			line = string(runes[:width])
		}
		fmt.Fprintln(t.out, strings.TrimRight(line, " "))
	}
	t.lines = len(lines)
}

// changes tells of a resource when its state or what it waits for is another than before.
type changes struct {
	out  io.Writer
	last map[string]string
}

func (c *changes) tell(all []engine.Status) {
	for _, s := range all {
		name, now := s.Kind+"/"+s.Namespace+"/"+s.Name, strings.TrimSpace(string(s.State)+" "+remark(s))
		if before, seen := c.last[name]; before != now && (seen || s.State != engine.Running) {
			fmt.Fprintf(c.out, "%s: %s\n", name, now)
		}
		c.last[name] = now
	}
}

// remark is what a person should know about a resource beside its state.
func remark(s engine.Status) string {
	if s.Condition == "" || s.Message == "" {
		return s.Condition + s.Message
	}
	return s.Condition + ": " + s.Message
}
