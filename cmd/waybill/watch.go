package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/waybill-dev/waybill/runtime/engine"
)

const refresh = 500 * time.Millisecond

// A resource whose trouble stays the same in kind, while its words change, is told of again after this time.
const reminder = 30 * time.Second

// A display shows what goes on: a line whenever a resource gets into trouble or out of it, and on a terminal, below these lines, a table that
// is drawn anew. What is logged goes through it, so that it stays above the table and is told once.
type display struct {
	log   io.Writer
	table *os.File // nil: no terminal, or the output is for a program

	mu    sync.Mutex
	lines int             // of the table as it stands on the screen
	told  map[string]told // of each resource
	new   map[string]told // what is so since a moment only, and may pass
	held  []note          // warnings that a state may tell better
	done  bool            // nobody looks at states any more
}

// told is what was last told of a resource.
type told struct {
	state, text string // "": all is well
	at          time.Time
}

func newDisplay(stdout, stderr io.Writer, json bool) *display {
	d := &display{log: stderr, told: map[string]told{}, new: map[string]told{}}
	if f, ok := stdout.(*os.File); ok && !json && term.IsTerminal(int(f.Fd())) {
		d.table = f
	}
	return d
}

// note tells n, now or when it is seen that no state tells the same.
func (d *display) note(n note) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n.sign && !d.done {
		d.held = append(d.held, n)
		return
	}
	d.print(n)
}

func (d *display) print(n note) {
	d.erase()
	fmt.Fprint(d.log, n.String())
}

// watch shows eng until ctx ends.
func (d *display) watch(ctx context.Context, eng *engine.Engine) {
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		all := eng.Status()
		d.mu.Lock()
		d.tell(all, time.Now())
		if d.table != nil {
			d.draw(all)
		}
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			d.mu.Lock()
			d.done = true
			for _, n := range d.held {
				d.print(n)
			}
			d.held = nil
			d.mu.Unlock()
			return
		case <-tick.C:
		}
	}
}

// pending tells why what does not run yet does not.
func (d *display) pending(eng *engine.Engine) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tell(eng.Status(), time.Now())
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
		fmt.Fprintf(w, "%s/%s/%s\t%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", s.Kind, s.Namespace, s.Name, condition(s),
			c.In, out, c.Dropped, c.InFlight, c.Held, c.Retried, c.DeadLettered, oneLine(s.Message))
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

// tell writes of each resource that got into trouble or out of it; those of which the same is to be said in one line.
func (d *display) tell(all []engine.Status, now time.Time) {
	trouble := map[string]bool{}
	var order []note
	names := map[note][]string{}
	for _, s := range all {
		name := s.Kind + "/" + s.Namespace + "/" + s.Name
		before, is := d.told[name], told{condition(s), s.Message, now}
		if s.State == engine.Running && s.Condition == "" {
			is.state, is.text = "", ""
		}
		trouble[name] = before.state != ""
		switch s.State {
		case engine.Starting, engine.Draining, engine.Stopped:
			continue
		}
		if before.state == is.state && (before.text == is.text || now.Sub(before.at) < reminder) {
			delete(d.new, name)
			continue
		}
		if s.State == engine.Running && before.state != string(engine.Waiting) {
			if begun := d.new[name]; begun.state != is.state || begun.at.IsZero() {
				d.new[name] = is
				continue
			} else if now.Sub(begun.at) < refresh {
				continue
			}
			delete(d.new, name)
		}
		d.told[name], trouble[name] = is, is.state != ""
		if is.state == "" && before.state == string(engine.Waiting) {
			continue // that it is ready now is told with its address
		}
		n := note{level: slog.LevelWarn, text: strings.TrimSuffix(is.state+": "+is.text, ": "), at: now}
		switch {
		case is.state == "":
			n.level, n.text = slog.LevelInfo, "running again"
		case s.State == engine.Failed:
			n.level = slog.LevelError
		case s.State == engine.Paused:
			n.level, n.text = slog.LevelInfo, "paused, as declared"
		}
		n.text = oneLine(n.text)
		if names[n] == nil {
			order = append(order, n)
		}
		names[n] = append(names[n], name)
	}
	for _, n := range order {
		about := names[n]
		if more := len(about) - 3; more > 1 {
			n.text = fmt.Sprintf("%s and %d more: %s", strings.Join(about[:3], ", "), more, n.text)
		} else {
			n.text = strings.Join(about, ", ") + ": " + n.text
		}
		d.print(n)
	}
	d.release(trouble, now)
}

// release tells what was held back and no state tells of, and forgets the rest.
func (d *display) release(trouble map[string]bool, now time.Time) {
	keep := d.held[:0]
	for _, n := range d.held {
		_, known := trouble[n.about]
		switch {
		case trouble[n.about], !known && slices.Contains(slices.Collect(maps.Values(trouble)), true):
		case now.Sub(n.at) < 4*refresh:
			keep = append(keep, n)
		default:
			d.print(n)
		}
	}
	d.held = keep
}

// condition is what a resource does, in a word: what it struggles with, if it does.
func condition(s engine.Status) string {
	if s.State == engine.Running && s.Condition != "" {
		return s.Condition
	}
	return string(s.State)
}
