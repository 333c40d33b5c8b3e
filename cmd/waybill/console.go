package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A console is how `waybill run` logs to a person: a line in the form that the display has for all it tells.
//
//	15:04:05 WARN  Subscription/default/billing: a message was dead-lettered: billing answered 400 Bad Request (id=7, reason=Terminal, …)
//
// What is wrong with a resource is told once, as its state. So a warning waits for a moment: where the state shows trouble by then, the
// warning is of the same cause and is left out. A record with an id is about one message, and is told always.
type console struct {
	display *display
	attrs   []slog.Attr
}

func (c *console) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (c *console) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &console{c.display, append(slices.Clone(c.attrs), attrs...)}
}

func (c *console) WithGroup(string) slog.Handler { return c } // nobody here groups

func (c *console) Handle(_ context.Context, r slog.Record) error {
	var about, why, broker string
	var rest []string
	message, event := r.Message, false
	add := func(a slog.Attr) bool {
		text := oneLine(a.Value.Resolve().String())
		switch {
		case text == "" || text == about:
		case a.Key == "resource":
			about = text
		case a.Key == "error":
			why = text
		case a.Key == "broker":
			broker = text
		case a.Key == "stack":
			rest = append(rest, "stack="+strconv.Quote(text))
		default:
			event = event || a.Key == "id"
			rest = append(rest, a.Key+"="+text)
		}
		return true
	}
	for _, a := range c.attrs {
		add(a)
	}
	r.Attrs(add)

	var b strings.Builder
	if about == "" && broker != "" {
		about = "Broker/" + broker
	}
	if about != "" {
		b.WriteString(about + ": ")
		message = strings.ToLower(message[:min(1, len(message))]) + message[min(1, len(message)):]
	}
	b.WriteString(message)
	if why != "" {
		b.WriteString(": " + why)
	}
	if len(rest) > 0 {
		b.WriteString(" (" + strings.Join(rest, ", ") + ")")
	}
	c.display.note(note{about: about, level: r.Level, text: b.String(), at: r.Time, sign: !event && about != "" && r.Level < slog.LevelError})
	return nil
}

// oneLine keeps what others wrote, ids and errors, from looking like lines of ours, or from moving the cursor.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// A note is one line that may be told.
type note struct {
	about string // KIND/NAMESPACE/NAME; "": the process
	level slog.Level
	text  string
	at    time.Time
	sign  bool // of trouble that the resource's state may tell of
}

func (n *note) String() string {
	return fmt.Sprintf("%s %-5s %s\n", n.at.Format(time.TimeOnly), n.level, n.text)
}
