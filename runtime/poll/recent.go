package poll

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
)

// recent remembers the rows, or items, within the overlap behind the cursor, which each round reads again, in 16 bytes each: a hash, and the time in
// their cursor. It holds maxSeen of them: where more lie within the overlap the oldest are forgotten, and the overlap begins behind them.
type recent struct {
	rows []recentRow // by time
	// floor is the first microsecond of which all rows are remembered, where some were forgotten for want of room.
	floor int64

	known map[uint64]struct{} // the hashes of rows; nil: to be made
}

type recentRow struct {
	hash uint64
	at   int64 // Unix microseconds
}

func (r *recent) has(hash uint64) bool {
	if r.known == nil {
		r.known = make(map[uint64]struct{}, len(r.rows))
		for _, o := range r.rows {
			r.known[o.hash] = struct{}{}
		}
	}
	_, ok := r.known[hash]
	return ok
}

func (r *recent) clone() recent { return recent{rows: slices.Clone(r.rows), floor: r.floor} }

// add remembers rows, and forgets those from before begin.
func (r *recent) add(rows []recentRow, begin int64) {
	r.known = nil
	r.rows = append(r.rows, rows...)
	slices.SortFunc(r.rows, func(a, b recentRow) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.hash, b.hash))
	})
	r.rows = slices.Compact(r.rows)
	r.rows = slices.DeleteFunc(r.rows, func(o recentRow) bool { return o.at < begin })
	if n := len(r.rows) - maxSeen; n > 0 {
		r.floor = max(r.floor, r.rows[n-1].at+1)
		r.rows = slices.DeleteFunc(r.rows, func(o recentRow) bool { return o.at < r.floor })
	}
	if r.floor <= begin {
		r.floor = 0
	}
}

// IsZero leaves it out of the checkpoint.
func (r recent) IsZero() bool { return len(r.rows) == 0 && r.floor == 0 }

func (r recent) MarshalJSON() ([]byte, error) {
	raw := binary.BigEndian.AppendUint64(make([]byte, 0, 8+16*len(r.rows)), uint64(r.floor))
	for _, o := range r.rows {
		raw = binary.BigEndian.AppendUint64(raw, o.hash)
		raw = binary.BigEndian.AppendUint64(raw, uint64(o.at))
	}
	return json.Marshal(base64.StdEncoding.EncodeToString(raw))
}

func (r *recent) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(raw)%16 != 8 {
		return errors.New("the rows seen last cannot be read")
	}
	*r = recent{floor: int64(binary.BigEndian.Uint64(raw))}
	for raw = raw[8:]; len(raw) > 0; raw = raw[16:] {
		r.rows = append(r.rows, recentRow{binary.BigEndian.Uint64(raw), int64(binary.BigEndian.Uint64(raw[8:]))})
	}
	return nil
}

// instant reads a time as PostgreSQL or RFC 3339 spells it; without a zone it is taken for UTC.
func instant(text string) (micros int64, ok bool) {
	text = strings.Replace(text, " ", "T", 1)
	for _, layout := range []string{"2006-01-02T15:04:05.999999999Z07", "2006-01-02T15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UnixMicro(), true
		}
	}
	return 0, false
}

// pass takes the rows of a page into account, which were published or seen before.
func (p *Poller) pass(next *position, fs []found, rows []record) {
	overlap := time.Duration(p.plan.SQL.Overlap).Microseconds()
	if len(rows) > 0 {
		next.Token = rows[len(rows)-1].cursor
	}
	if overlap == 0 {
		for i := range fs {
			switch c := fs[i].cursor; {
			case c != next.Cursor:
				next.Cursor, next.Ties = c, []uint64{fs[i].tie}
			case len(next.Ties) < maxSeen && !slices.Contains(next.Ties, fs[i].tie):
				next.Ties = append(next.Ties, fs[i].tie)
			}
		}
		return
	}
	newest := int64(0)
	if next.Cursor != "" {
		newest, _ = instant(values(next.Cursor)[0])
	}
	seen := make([]recentRow, len(fs))
	for i := range fs {
		at, _ := instant(values(fs[i].cursor)[0])
		if seen[i] = (recentRow{fs[i].tie, at}); at >= newest {
			newest, next.Cursor = at, fs[i].cursor
		}
	}
	next.Recent.add(seen, newest-overlap)
}
