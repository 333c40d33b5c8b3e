package poll

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/plan"
)

// timely is a poller whose server gives all rows from a time on, or all it has.
func timely(t *testing.T, overlap time.Duration, obeys bool) (r *rig, rows *[]string, asked *[]string) {
	r = newRig(t, plan.Poller{Detect: cursor, Items: cel("body"), ID: cel("item"), HTTP: &plan.PollHTTP{Cursor: &plan.Cursor{Expr: *cel("item.split('/')[0]"), Param: "since"}, Overlap: plan.Duration(overlap)}})
	rows, asked = &[]string{}, &[]string{}
	r.handler = func(w http.ResponseWriter, q *http.Request) {
		text := q.URL.Query().Get("since")
		*asked = append(*asked, text)
		since, _ := time.Parse(time.RFC3339, text)
		var out []string
		for _, row := range *rows {
			if at, _ := time.Parse(time.RFC3339, strings.Split(row, "/")[0]); !obeys || !at.Before(since) {
				out = append(out, fmt.Sprintf("%q", row))
			}
		}
		respond("["+strings.Join(out, ",")+"]")(w, q)
	}
	return r, rows, asked
}

func TestOverlapFindsWhatComesLate(t *testing.T) {
	for _, obeys := range []bool{true, false} {
		r, rows, asked := timely(t, 10*time.Second, obeys)
		poll := func(want ...string) {
			t.Helper()
			r.restart()
			r.once("")
			r.want(id, want...)
		}
		add := func(more ...string) { *rows = append(*rows, more...) }
		add("2026-01-01T12:00:20.50+01:00/a", "2026-01-01T12:00:05+01:00/b")
		poll("2026-01-01T12:00:20.50+01:00/a", "2026-01-01T12:00:05+01:00/b")
		poll()
		// Late, at the end of the overlap, too late, and the same moment in another zone.
		add("2026-01-01T12:00:15Z/far", "2026-01-01T11:00:15Z/late", "2026-01-01T11:00:10.5Z/edge", "2026-01-01T11:00:10.499Z/lost")
		*rows = slices.Delete(*rows, 2, 3)
		poll("2026-01-01T11:00:15Z/late", "2026-01-01T11:00:10.5Z/edge")
		poll()
		writes := r.store.writes
		poll()
		if r.store.writes != writes {
			t.Error("a poll that found nothing wrote the checkpoint")
		}
		add("2026-01-01T11:01:00Z/new")
		poll("2026-01-01T11:01:00Z/new")
		poll()
		if want := []string{"", "2026-01-01T12:00:10.50+01:00", "2026-01-01T12:00:10.50+01:00", "2026-01-01T12:00:10.50+01:00", "2026-01-01T12:00:10.50+01:00", "2026-01-01T12:00:10.50+01:00", "2026-01-01T11:00:50Z"}; !slices.Equal(*asked, want) {
			t.Errorf("asked since %q, want %q", *asked, want)
		}
		// Another overlap is no other cursor.
		r.plan.HTTP.Overlap = plan.Duration(time.Second)
		poll()
		r.plan.HTTP.Overlap = 0
		poll()
	}
}

// Of more items within the overlap than are remembered none is missed that is newer than they are, and none comes twice.
func TestOverlapIsAsLongAsItemsAreRemembered(t *testing.T) {
	r, rows, asked := timely(t, time.Hour, true)
	begin := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	at := func(n int, name string) string {
		return begin.Add(time.Duration(n)*time.Millisecond).Format("2006-01-02T15:04:05.000Z") + name
	}
	for i := range maxSeen + 100 {
		*rows = append(*rows, at(i, "/"))
	}
	r.once("")
	if n := len(r.out.take(id)); n != maxSeen+100 {
		t.Fatalf("published %d", n)
	}
	if n := len(r.st.Recent.rows); n != maxSeen {
		t.Errorf("%d items are remembered", n)
	}
	r.restart()
	*rows = append(*rows, at(50, "/forgotten"), at(200, "/late"))
	r.once("")
	r.want(id, at(200, "/late"))
	r.once("")
	r.want(id)
	// The first time of which all are remembered lies behind the 100 that were forgotten, and then behind 101.
	if got := (*asked)[1:]; !slices.Equal(got, []string{at(99, ""), at(100, "")}) {
		t.Errorf("asked since %q", got)
	}
}

// Pages that begin with the newest make what is old be forgotten before it comes.
func TestOverlapOverPagesThatBeginWithTheNewest(t *testing.T) {
	r, _, _ := timely(t, 10*time.Second, false)
	r.plan.HTTP.Pagination = &plan.Pagination{Type: "Page", Param: "page", MaxPages: 10}
	r.restart()
	rows := []string{"2026-01-01T12:00:02Z/b", "2026-01-01T12:00:01Z/a"}
	r.handler = func(w http.ResponseWriter, q *http.Request) {
		page := 0
		_, _ = fmt.Sscan(q.URL.Query().Get("page"), &page)
		if page < len(rows) {
			respond(fmt.Sprintf("[%q]", rows[page]))(w, q)
		} else {
			respond("[]")(w, q)
		}
	}
	r.once("")
	r.want(id, rows...)
	rows = append([]string{"2026-01-01T13:00:00Z/c"}, rows...)
	r.once("")
	r.want(id, rows[0])
	rows = append(rows, rows[0]) // which has moved on to another page meanwhile
	r.once("")
	r.want(id)
}

func TestOverlapNeedsTimes(t *testing.T) {
	r, rows, _ := timely(t, time.Minute, true)
	*rows = []string{"17/a"}
	if f := r.once(ItemRefused); !strings.Contains(f.Error(), "a time of RFC 3339") || !strings.Contains(f.Error(), "remove overlap") {
		t.Error(f)
	}
	r.want(id)
}

func TestSpell(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 987654000, time.UTC).UnixMicro()
	for like, want := range map[string]string{
		"2026-01-01T00:00:00Z": "2026-03-01T12:00:00Z", "2026-01-01T00:00:00.1Z": "2026-03-01T12:00:00.9Z", "2026-01-01T00:00:00.000000000000+05:45": "2026-03-01T17:45:00.987654000+05:45", "2026-01-01T00:00:00.000-08:00": "2026-03-01T04:00:00.987-08:00",
	} {
		if got := spell(at, like); got != want {
			t.Errorf("%s: %s, want %s", like, got, want)
		}
	}
}
