package verify_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/test/verify"
)

func history(stored []verify.Mark, seen ...verify.Mark) *verify.History {
	h := &verify.History{}
	for _, m := range stored {
		h.Publications = append(h.Publications, verify.Publication{Mark: m, Fate: verify.Stored})
	}
	for _, m := range seen {
		h.Sightings = append(h.Sightings, verify.Sighting{Mark: m, Observer: "o"})
	}
	return h
}

func mark(key string, seq int) verify.Mark { return verify.Mark{Key: key, Seq: seq} }

func TestJudge(t *testing.T) {
	a1, a2, a3, b1 := mark("a", 1), mark("a", 2), mark("a", 3), mark("b", 1)
	all := []verify.Mark{a1, a2, a3, b1}
	for name, c := range map[string]struct {
		h    *verify.History
		p    verify.Promise
		want string // a part of what is broken, "" for nothing
	}{
		"all well":                  {history(all, a1, b1, a2, a3), verify.Promise{Ordered: true, ExactlyOnce: true}, ""},
		"one lost":                  {history(all, a1, a2, b1), verify.Promise{}, "1 lost: a/3"},
		"another key overtakes":     {history(all, b1, a1, a2, a3), verify.Promise{Ordered: true}, ""},
		"one overtaken":             {history(all, a1, a3, a2, b1), verify.Promise{Ordered: true}, "1 out of order: a/2"},
		"overtaken where it may be": {history(all, a1, a3, a2, b1), verify.Promise{}, ""},
		"a run that came again":     {history(all, a1, a2, a1, a2, a3, b1), verify.Promise{Ordered: true}, ""},
		"twice where it must not":   {history(all, a1, a2, a3, b1, b1), verify.Promise{ExactlyOnce: true}, "1 seen again"},
		"what is not meant for it":  {history(all, a1, b1), verify.Promise{Wants: func(m verify.Mark) bool { return m == a1 }}, "not meant for it: b/1"},
		"what nobody needs to see":  {history(all, a1), verify.Promise{Wants: func(m verify.Mark) bool { return m == a1 }}, ""},
		"out of nowhere":            {history(all, a1, a2, a3, b1, mark("c", 1)), verify.Promise{}, "never published: c/1"},
	} {
		v := verify.Judge(c.h, "o", c.p)
		if got := v.Broken(); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestUnknownMayBeSeenOrNot(t *testing.T) {
	h := &verify.History{Publications: []verify.Publication{{Mark: mark("a", 1), Fate: verify.Unknown}, {Mark: mark("a", 2), Fate: verify.Unknown}}}
	h.Sightings = []verify.Sighting{{Mark: mark("a", 2), Observer: "o"}}
	v := verify.Judge(h, "o", verify.Promise{Ordered: true, ExactlyOnce: true})
	if got := v.Broken(); got != "" {
		t.Error(got)
	}
}

// Whatever one does to a faithful history, its fault is found and no other.
func TestJudgeFindsWhatWasDone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stored []verify.Mark
		next := map[string]int{}
		for _, key := range rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 2, 60).Draw(t, "keys") {
			next[key]++
			stored = append(stored, mark(key, next[key]))
		}
		seen := slices.Clone(stored)
		at := rapid.IntRange(0, len(seen)-1).Draw(t, "at")
		want := verify.Verdict{Observer: "o", Seen: len(stored)}
		switch rapid.SampledFrom([]string{"nothing", "lose", "repeat", "delay"}).Draw(t, "what") {
		case "lose":
			want.Lost, want.Seen = []verify.Mark{seen[at]}, len(stored)-1
			seen = slices.Delete(seen, at, at+1)
		case "repeat":
			want.Duplicates = 1
			seen = append(seen, seen[at])
		case "delay":
			m := seen[at]
			seen = append(slices.Delete(seen, at, at+1), m)
			if m.Seq < next[m.Key] {
				want.Reordered = []verify.Mark{m}
			}
		}
		got := verify.Judge(history(stored, seen...), "o", verify.Promise{})
		if got.Seen != want.Seen || got.Duplicates != want.Duplicates || !slices.Equal(got.Lost, want.Lost) || !slices.Equal(got.Reordered, want.Reordered) || got.Unheard != nil {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}
