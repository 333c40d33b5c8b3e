package main

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/engine"
)

// A screen is a display whose lines are looked at, on a clock that the test moves.
type screen struct {
	*display
	out bytes.Buffer
	now time.Time
}

func newScreen() *screen {
	s := &screen{now: time.Date(2026, 1, 2, 15, 0, 0, 0, time.UTC)}
	s.display = newDisplay(nil, &s.out, true)
	return s
}

var clockTime = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d `)

// look shows that the resources are so for a while, and gives what is told meanwhile, without the times.
func (s *screen) look(all ...engine.Status) string {
	for range 6 {
		s.now = s.now.Add(refresh)
		s.tell(all, s.now)
	}
	defer s.out.Reset()
	return clockTime.ReplaceAllString(s.out.String(), "")
}

func (s *screen) log() *slog.Logger { return slog.New(&console{display: s.display}) }

func running(kind, name, condition, message string) engine.Status {
	return engine.Status{Kind: kind, Namespace: "default", Name: name, State: engine.Running, Condition: condition, Message: message}
}

func TestAnOutageIsToldWhenItBeginsAndWhenItEnds(t *testing.T) {
	s := newScreen()
	well := running("Subscription", "a", "", "")
	down := running("Subscription", "a", "DestinationDown", "h answered 500")
	if got := s.look(well); got != "" {
		t.Errorf("of what is well: %q", got)
	}
	if got := s.look(down); got != "WARN  Subscription/default/a: DestinationDown: h answered 500\n" {
		t.Errorf("when it begins: %q", got)
	}
	down.Message = "h answered 502"
	if got := s.look(down); got != "" {
		t.Errorf("in other words, soon after: %q", got)
	}
	s.now = s.now.Add(reminder)
	if got := s.look(down); got != "WARN  Subscription/default/a: DestinationDown: h answered 502\n" {
		t.Errorf("in other words, later: %q", got)
	}
	if got := s.look(well); got != "INFO  Subscription/default/a: running again\n" {
		t.Errorf("when it ends: %q", got)
	}
}

func TestWhatPassesInAMomentIsNotTold(t *testing.T) {
	s := newScreen()
	for i := range 10 {
		is := running("Subscription", "a", "", "")
		if i%2 == 0 {
			is = running("Subscription", "a", "Retrying", "h answered 500")
		}
		s.now = s.now.Add(refresh)
		s.tell([]engine.Status{is}, s.now)
	}
	if s.out.Len() > 0 {
		t.Errorf("told: %q", s.out.String())
	}
	if got := s.look(running("Subscription", "a", "Retrying", "h answered 500")); !strings.Contains(got, "a: Retrying: ") {
		t.Errorf("what stays: %q", got)
	}
}

func TestTheSameTroubleIsToldInOneLine(t *testing.T) {
	s := newScreen()
	var all []engine.Status
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		all = append(all, running("Topic", name, "BrokerAway", "broker default/main: gone"))
	}
	want := "WARN  Topic/default/a, Topic/default/b, Topic/default/c and 2 more: BrokerAway: broker default/main: gone\n"
	if got := s.look(all...); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhatCannotStartIsToldAtOnce(t *testing.T) {
	s := newScreen()
	s.tell([]engine.Status{
		{Kind: "Topic", Namespace: "default", Name: "a", State: engine.Waiting, Message: "the broker is away"},
		{Kind: "Topic", Namespace: "default", Name: "b", State: engine.Failed, Message: "no driver"},
		{Kind: "Topic", Namespace: "default", Name: "c", State: engine.Paused},
		{Kind: "Topic", Namespace: "default", Name: "d", State: engine.Starting},
	}, s.now)
	want := "WARN  Topic/default/a: Waiting: the broker is away\nERROR Topic/default/b: Failed: no driver\nINFO  Topic/default/c: paused, as declared\n"
	if got := clockTime.ReplaceAllString(s.out.String(), ""); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.out.Reset()
	if got := s.look(running("Topic", "a", "", "")); got != "" {
		t.Errorf("its address is told by another: %q", got)
	}
}

func TestAWarningIsLeftOutWhereAStateTellsTheSame(t *testing.T) {
	s := newScreen()
	log := s.log().With("resource", "Subscription/default/a", "flow", "Subscription/default/a")
	warn := func() { log.Warn("The destination is down", "faults", 10, "error", errors.New("h answered 500")) }

	warn()
	if got := s.look(running("Subscription", "a", "DestinationDown", "h answered 500")); strings.Count(got, "\n") != 1 || !strings.Contains(got, "DestinationDown") {
		t.Errorf("the state tells it: %q", got)
	}
	if got := s.look(running("Subscription", "a", "", "")); !strings.Contains(got, "running again") {
		t.Fatal(got)
	}
	warn()
	s.display.held[0].at = s.now // the record has its own clock
	if got := s.look(running("Subscription", "a", "", "")); got != "WARN  Subscription/default/a: the destination is down: h answered 500 (faults=10)\n" {
		t.Errorf("no state tells it: %q", got)
	}
}

func TestADeadLetterIsToldWhateverTheState(t *testing.T) {
	s := newScreen()
	s.look(running("Subscription", "a", "DestinationDown", "x"))
	s.log().With("resource", "Subscription/default/a").Warn("A message was dead-lettered", "id", "7\x1b[2J\nINFO all is well", "reason", "Terminal", "error", "h answered 400", "deadLetter", "a_dead")
	want := "WARN  Subscription/default/a: a message was dead-lettered: h answered 400 (id=7 [2J INFO all is well, reason=Terminal, deadLetter=a_dead)\n"
	if got := clockTime.ReplaceAllString(s.out.String(), ""); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestErrorsAndWhatBelongsToNoResourceAreToldAtOnce(t *testing.T) {
	s := newScreen()
	s.log().Error("serving HTTP ended", "error", errors.New("gone"))
	s.log().Warn("closing connections")
	s.log().Info("not for people")
	slog.NewLogLogger(s.log().Handler(), slog.LevelWarn).Print("http: TLS handshake error")
	if got := clockTime.ReplaceAllString(s.out.String(), ""); got != "ERROR serving HTTP ended: gone\nWARN  closing connections\nWARN  http: TLS handshake error\n" {
		t.Errorf("got %q", got)
	}
}
