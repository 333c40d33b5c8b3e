// Package verify tells whether a running Waybill keeps its promises: it publishes numbered messages of many keys from outside, as a user's
// traffic would (Publish), records what each observer saw (Destination, Receive, Live), and judges what was lost, seen twice or seen out of
// order (Judge). Meanwhile faults are injected, of which the seed alone decides which come when (Schedule).
//
// It knows nothing of brokers or processes: whoever uses it starts, breaks and stops those.
package verify

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// A Mark names one message of a run: the Seq-th of its key, from 1.
type Mark struct {
	Key string `json:"key"`
	Seq int    `json:"seq"`
}

func (m Mark) String() string { return fmt.Sprintf("%s/%d", m.Key, m.Seq) }

// Fate is what a publisher knows of a message.
type Fate string

const (
	Stored  Fate = "Stored"  // answered as durable
	Refused Fate = "Refused" // answered with an error that says that it was not taken
	Unknown Fate = "Unknown" // no answer, or one that leaves it open
)

// A Publication is the end of one message's publishing.
type Publication struct {
	Mark
	Fate  Fate      `json:"fate"`
	At    time.Time `json:"at"`
	Tries int       `json:"tries"`
}

// A Sighting is one time that an observer was given a message and took it.
type Sighting struct {
	Mark
	Observer string    `json:"observer"`
	At       time.Time `json:"at"`
}

// An Event is what else belongs to the story: a fault that was injected, a thing that an observer objects to.
type Event struct {
	What string    `json:"what"`
	At   time.Time `json:"at"`
}

// A History is what happened in a run. Sightings of one observer stand in the order in which it took them.
type History struct {
	Publications []Publication
	Sightings    []Sighting
	Events       []Event
}

// WriteTo writes the history as JSON lines: {"published": …}, {"seen": …} and {"event": …}.
func (h *History) WriteTo(w io.Writer) (int64, error) {
	counted := &counter{w: w}
	enc := json.NewEncoder(counted)
	for i := range h.Publications {
		if err := enc.Encode(map[string]any{"published": &h.Publications[i]}); err != nil {
			return counted.n, err
		}
	}
	for i := range h.Sightings {
		if err := enc.Encode(map[string]any{"seen": &h.Sightings[i]}); err != nil {
			return counted.n, err
		}
	}
	for i := range h.Events {
		if err := enc.Encode(map[string]any{"event": &h.Events[i]}); err != nil {
			return counted.n, err
		}
	}
	return counted.n, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
