package poll

import (
	"math"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/runtime/message"
)

// overlap is how far behind its cursor an HTTP source is asked.
func (p *Poller) overlap() time.Duration {
	if p.plan.HTTP == nil {
		return 0
	}
	return time.Duration(p.plan.HTTP.Overlap)
}

// since is what a round asks for what lies beyond: it is the same for all of its pages.
func (p *Poller) since() string {
	if overlap := p.overlap(); overlap > 0 {
		if reach, ok := p.st.reach(overlap); ok {
			return spell(reach, p.st.Cursor)
		}
	}
	return p.st.Cursor
}

// reach is the first microsecond of which unknown items are new: further back they come too late, or were forgotten. Of the cursor's own time
// they always are.
func (st *state) reach(overlap time.Duration) (micros int64, ok bool) {
	newest, ok := message.ParseTime(st.Cursor)
	if !ok {
		return math.MinInt64, false
	}
	at := newest.UnixMicro()
	micros = at - overlap.Microseconds()
	if floor := st.Recent.floor; floor != 0 {
		micros = min(max(micros, floor), at)
	}
	return micros, true
}

// spell writes a moment as a cursor is written, with its zone and as many digits, and so not later than it is: the server may know no other form.
func spell(micros int64, like string) string {
	layout := "2006-01-02T15:04:05"
	if _, fraction, ok := strings.Cut(like, "."); ok {
		digits := len(fraction) - len(strings.TrimLeft(fraction, "0123456789"))
		layout += "." + strings.Repeat("0", min(digits, 9))
	}
	zone := time.UTC
	if t, ok := message.ParseTime(like); ok {
		if _, offset := t.Zone(); offset != 0 {
			zone = time.FixedZone("", offset)
		}
	}
	return time.UnixMicro(micros).In(zone).Format(layout + "Z07:00")
}

// recall remembers the items of a page that lie within the overlap.
func (at *position) recall(fs []found, overlap time.Duration) {
	newest, ok := message.ParseTime(at.Cursor)
	if !ok {
		return // nothing has come yet
	}
	seen := make([]recentRow, 0, len(fs))
	for i := range fs {
		if t, ok := message.ParseTime(fs[i].cursor); ok {
			seen = append(seen, recentRow{fs[i].tie, t.UnixMicro()})
		}
	}
	at.Recent.add(seen, newest.UnixMicro()-overlap.Microseconds())
}
