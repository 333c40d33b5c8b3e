package nats

import (
	"strings"
	"time"
)

// origin is what the reply subject of a delivered message says about it.
type origin struct {
	stream, consumer string
	deliveries       uint64
	sequence         uint64 // in the stream
	delivery         uint64 // in the consumer
	stored           uint64 // Unix nanoseconds, 0: unknown
}

// parseReply reads "$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<delivery>.<time>.<pending>", which servers may extend to
// "$JS.ACK.<domain>.<account>.<stream>…" with further parts at the end.
func parseReply(reply string) (o origin, ok bool) {
	const start = "$JS.ACK."
	if !strings.HasPrefix(reply, start) {
		return o, false
	}
	var parts [12]string
	n := 0
	for rest, more := reply[len(start):], true; more; n++ {
		if n == len(parts) {
			return o, false
		}
		parts[n], rest, more = strings.Cut(rest, ".")
	}
	p := parts[:n]
	switch {
	case n == 7:
	case n >= 9:
		p = p[2:]
	default:
		return o, false
	}
	o.stream, o.consumer = p[0], p[1]
	var okA, okB, okC bool
	o.deliveries, okA = number(p[2])
	o.sequence, okB = number(p[3])
	o.delivery, okC = number(p[4])
	o.stored, _ = number(p[5]) // nothing hangs on it
	return o, okA && okB && okC && o.stream != "" && o.consumer != ""
}

func (o *origin) at() time.Time {
	if o.stored == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(o.stored))
}

func number(s string) (n uint64, ok bool) {
	if s == "" || len(s) > 19 {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + uint64(c)
	}
	return n, true
}
