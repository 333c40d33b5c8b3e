package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/waybill-dev/waybill/runtime/engine"
)

const refresh = 500 * time.Millisecond

// A display shows what goes on: on a terminal a table that is drawn anew, else a line whenever a resource's state changes. Log lines are
// written through it, so that they stay above the table and are not drawn over.
type display struct {
	log   io.Writer
	table *os.File // nil: no terminal, or the output is for a program

	mu    sync.Mutex
	lines int               // of the table as it stands on the screen
	last  map[string]string // what was told of each resource
}

func newDisplay(stdout, stderr io.Writer, json bool) *display {
	d := &display{log: stderr, last: map[string]string{}}
	if f, ok := stdout.(*os.File); ok && !json && term.IsTerminal(int(f.Fd())) {
		d.table = f
	}
	return d
}

// Write writes a log line; the next refresh draws the table below it.
func (d *display) Write(line []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.erase()
	return d.log.Write(line)
}

// watch shows eng until ctx ends.
func (d *display) watch(ctx context.Context, eng *engine.Engine) {
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		all := eng.Status()
		d.mu.Lock()
		if d.table != nil {
			d.draw(all)
		} else {
			d.tell(all)
		}
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pending tells why what does not run yet does not.
func (d *display) pending(eng *engine.Engine) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tell(eng.Status())
}

func (d *display) erase() {
	if d.lines > 0 {
		fmt.Fprintf(d.table, "\x1b[%dA\x1b[J", d.lines)
		d.lines = 0
	}
}

func (d *display) draw(all []engine.Status) {
	width, height, err := term.GetSize(int(d.table.Fd()))
	if err != nil || width < 20 || height < 4 {
		return // nothing could be read there
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RESOURCE\tSTATE\tIN\tOUT\tDROPPED\tIN FLIGHT\tHELD\tRETRIED\tDEAD\t")
	for _, s := range all {
		c, out := s.Counts, fmt.Sprint(s.Counts.Out)
		if s.Kind == "Topic" {
			out = "–" // its Subscriptions and Pipelines count what they take
		}
		fmt.Fprintf(w, "%s/%s/%s\t%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", s.Kind, s.Namespace, s.Name, s.State,
			c.In, out, c.Dropped, c.InFlight, c.Held, c.Retried, c.DeadLettered, remark(s))
	}
	_ = w.Flush() // into memory
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	if len(lines) > height-1 { // what does not fit cannot be drawn over later
		hidden := len(lines) - (height - 2)
		lines = append(lines[:height-2], fmt.Sprintf("… and %d more", hidden))
	}
	d.erase()
	for _, line := range lines {
		line = strings.TrimRight(line, " ")
		if runes := []rune(line); len(runes) > width-1 {
			line = string(runes[:width-1])
		}
		fmt.Fprintln(d.table, line)
	}
	d.lines = len(lines)
}

// tell writes of each resource whose state, or what it struggles with, is another than before; those of which the same is to be said in one
// line.
func (d *display) tell(all []engine.Status) {
	var order []string
	changed := map[string][]string{}
	for _, s := range all {
		name, now := s.Kind+"/"+s.Namespace+"/"+s.Name, strings.TrimSpace(string(s.State)+" "+remark(s))
		before, seen := d.last[name]
		d.last[name] = now
		if before == now || s.State == engine.Starting || !seen && s.State == engine.Running {
			continue
		}
		if changed[now] == nil {
			order = append(order, now)
		}
		changed[now] = append(changed[now], name)
	}
	for _, now := range order {
		names := changed[now]
		if more := len(names) - 3; more > 0 {
			names = append(names[:3:3], fmt.Sprintf("%d more", more))
		}
		fmt.Fprintf(d.log, "%s: %s\n", strings.Join(names, ", "), now)
	}
}

// remark is what a person should know about a resource beside its state.
func remark(s engine.Status) string {
	if s.Condition == "" || s.Message == "" {
		return s.Condition + s.Message
	}
	return s.Condition + ": " + s.Message
}
