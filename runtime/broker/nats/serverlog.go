package nats

import (
	"fmt"
	"log/slog"
	"sync"
)

// serverLog passes the server's warnings and errors on and drops the rest. A fatal error does not end the process: it is kept so that
// StartEmbedded can return it.
type serverLog struct {
	to    *slog.Logger
	mu    sync.Mutex
	fatal string
}

func (*serverLog) Noticef(string, ...any) {}
func (*serverLog) Debugf(string, ...any)  {}
func (*serverLog) Tracef(string, ...any)  {}

func (l *serverLog) Warnf(format string, v ...any) {
	if l.to != nil {
		l.to.Warn("embedded NATS server: " + fmt.Sprintf(format, v...))
	}
}

func (l *serverLog) Errorf(format string, v ...any) {
	if l.to != nil {
		l.to.Error("embedded NATS server: " + fmt.Sprintf(format, v...))
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
