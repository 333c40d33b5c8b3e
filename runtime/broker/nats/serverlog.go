package nats

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// serverLog passes the server's warnings and errors on and drops the rest. A fatal error does not end the process: it is kept so that
// StartEmbedded can return it.
type serverLog struct {
	to    *slog.Logger
	sick  func() // called when the server has said that it stores nothing any more
	mu    sync.Mutex
	fatal string
}

func (*serverLog) Noticef(string, ...any) {}
func (*serverLog) Debugf(string, ...any)  {}
func (*serverLog) Tracef(string, ...any)  {}

func (l *serverLog) Warnf(format string, v ...any) {
	if l.to == nil {
		return
	}
	level, text := slog.LevelWarn, fmt.Sprintf(format, v...)
	if recovery(text) {
		level = slog.LevelDebug
	}
	l.to.Log(context.Background(), level, "Embedded NATS server", "says", text)
}

// recovery reports whether a warning only tells that a store reads its messages anew, for its index is older than they are. It is so after
// every end without a shutdown, and nothing is lost by it. What an index that is damaged or cannot be read says is no such warning.
func recovery(text string) bool {
	_, text, ok := strings.Cut(text, "] ")
	if !ok {
		return false
	}
	for _, start := range []string{"Stream state outdated, ", "Recovering stream state from index errored: prior state file", "TTL state is outdated; ",
		"Message scheduling state is outdated; ", "Sourcing state is outdated; "} {
		if strings.HasPrefix(text, start) {
			return true
		}
	}
	return false
}

func (l *serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if l.to != nil {
		l.to.Error("Embedded NATS server", "says", text)
	}
	if l.sick != nil && writeFailed(text) {
		l.sick()
	}
}

func (l *serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.mu.Lock()
	if l.fatal == "" {
		l.fatal = text
	}
	l.mu.Unlock()
	l.Errorf("%s", text)
}

func (l *serverLog) fatalText() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == "" {
		return "it gave no reason"
	}
	return l.fatal
}
