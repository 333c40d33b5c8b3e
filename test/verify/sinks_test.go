package verify_test

import (
	"time"

	"github.com/waybill-dev/waybill/test/verify"
)

const (
	// What the scenarios declare for their pushes; the moods below are late for the one or the other.
	pushAckWait = time.Second
	pushTimeout = 2 * time.Second
)

// sinkKinds are the faults of destinations.
var sinkKinds = []verify.Kind{
	{Name: "sink away", Least: 100 * time.Millisecond, Most: 3 * time.Second},
	{Name: "sink answers 500", Least: 100 * time.Millisecond, Most: 3 * time.Second},
	{Name: "sink answers 429 with Retry-After", Least: 100 * time.Millisecond, Most: 2 * time.Second},
	{Name: "sink answers after the ack wait", Least: 100 * time.Millisecond, Most: 2 * time.Second},
	{Name: "sink answers after the timeout", Least: 100 * time.Millisecond, Most: 2 * time.Second},
	{Name: "sink drops the connection before", Least: 100 * time.Millisecond, Most: 2 * time.Second},
	{Name: "sink drops the connection after", Least: 100 * time.Millisecond, Most: 2 * time.Second},
	{Name: "sink is slow", Least: 500 * time.Millisecond, Most: 2 * time.Second},
	{Name: "sink answers at random", Least: 500 * time.Millisecond, Most: 3 * time.Second},
}

// sinks does these to one of the rig's destinations or to all of them. They last beside the faults that follow.
func (r *rig) sinks() map[string]injector {
	mood := func(m func(f verify.Fault) verify.Mood) injector {
		return func(f verify.Fault) {
			for _, d := range r.chosen(f) {
				time.AfterFunc(f.For, d.Behave(m(f)))
			}
		}
	}
	return map[string]injector{
		"sink away":                         r.away,
		"sink answers 500":                  mood(func(verify.Fault) verify.Mood { return verify.Answers(500, 0) }),
		"sink answers 429 with Retry-After": mood(func(verify.Fault) verify.Mood { return verify.Answers(429, 1) }),
		"sink answers after the ack wait":   mood(func(verify.Fault) verify.Mood { return verify.Late(pushAckWait + pushTimeout/5) }),
		"sink answers after the timeout":    mood(func(verify.Fault) verify.Mood { return verify.Late(pushTimeout + pushTimeout/5) }),
		"sink drops the connection before":  mood(func(verify.Fault) verify.Mood { return verify.Drops(false) }),
		"sink drops the connection after":   mood(func(verify.Fault) verify.Mood { return verify.Drops(true) }),
		"sink is slow":                      mood(func(f verify.Fault) verify.Mood { return verify.Slow(time.Duration(20+f.Roll%200) * time.Millisecond) }),
		"sink answers at random":            mood(func(f verify.Fault) verify.Mood { return verify.Random(f.Roll) }),
	}
}

// away takes destinations off the network: in a long run for 30 seconds every fifth time.
func (r *rig) away(f verify.Fault) {
	if *faults > 0 && f.Roll%5 == 0 {
		f.For = 30 * time.Second
	}
	for _, d := range r.chosen(f) {
		d.Away()
		time.AfterFunc(f.For, func() {
			if err := d.Back(); err != nil {
				r.record.Object("the verifier", "a destination cannot listen again: %v", err)
			}
		})
	}
}

func (r *rig) chosen(f verify.Fault) []*verify.Destination {
	if n := uint64(len(r.destinations)); f.Roll%2 == 0 {
		at := f.Roll / 10 % n
		return r.destinations[at : at+1]
	}
	return r.destinations
}
