package poll

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// A world is a source that changes, a broker and a checkpoint that fail, and a poller between them that is killed at any point.
type world struct {
	*rapid.T
	plan   plan.Poller
	client *outbound.Client
	poller *Poller

	// The source.
	rows     []row
	pageSize int
	inserted int
	revision int
	failing  int // requests until one fails; 0: none does

	// The broker and the checkpoint.
	log       []emission
	breaksAt  int // messages until the broker is lost; -1: it is not
	doc       []byte
	saveFails string // "", "before", "after": the write is lost, or done and its answer lost
	dead      bool   // the process is to be killed
	removed   map[string]int
}

type row struct {
	key      string
	seq, rev int
}

func (r row) json() string {
	return fmt.Sprintf(`{"k":%q,"seq":%d,"rev":%d,"at":%q}`, r.key, r.seq, r.rev, time.Unix(int64(r.seq), 0).UTC().Format(time.RFC3339))
}

// An emission is a message that the broker took; with removed set, a note that the source has dropped the item.
type emission struct {
	id, data string
	removed  string
}

var errKilled = errors.New("killed")

func (w *world) Publish(_ context.Context, ms []message.Message) []error {
	errs := make([]error, len(ms))
	for i, m := range ms {
		if w.dead || w.breaksAt == 0 {
			w.dead = w.dead || w.Bool("killed while publishing")
			errs[i] = errKilled
			if w.Bool("stored, but the answer was lost") {
				w.log = append(w.log, emission{id: m.ID, data: string(m.Data)})
			}
			w.breaksAt = 0
			continue
		}
		w.breaksAt--
		w.log = append(w.log, emission{id: m.ID, data: string(m.Data)})
	}
	return errs
}

func (w *world) Bool(label string) bool { return rapid.Bool().Draw(w.T, label) }

func (w *world) Load(context.Context) ([]byte, error) { return w.doc, nil }

func (w *world) Save(_ context.Context, doc []byte) error {
	if w.dead || w.saveFails == "before" {
		return errKilled
	}
	w.doc = slices.Clone(doc)
	if w.saveFails == "after" {
		return errKilled
	}
	return nil
}

func (w *world) ServeHTTP(rw http.ResponseWriter, q *http.Request) {
	if w.failing == 1 {
		rw.WriteHeader(500)
		return
	}
	w.failing--
	query := q.URL.Query()
	var all []string
	for _, r := range w.rows {
		since, err := strconv.Atoi(query.Get("since"))
		if t, isTime := time.Parse(time.RFC3339, query.Get("since")); isTime == nil {
			since, err = int(t.Unix()), nil
		}
		if err != nil || r.seq >= since {
			all = append(all, r.json())
		}
	}
	page, _ := strconv.Atoi(query.Get("page"))
	size := w.pageSize
	if w.plan.HTTP.Pagination == nil {
		size = len(all)
	}
	next := ""
	if to := (page + 1) * size; to < len(all) {
		link := *q.URL
		query.Set("page", strconv.Itoa(page+1))
		link.RawQuery = query.Encode()
		rw.Header().Set("Link", "<"+link.String()+`>; rel="next"`)
		next = fmt.Sprintf(`,"next":"%d"`, page+1)
	}
	body := `{"items":[` + strings.Join(all[min(page*size, len(all)):min((page+1)*size, len(all))], ",") + `]` + next + `}`
	tag := strconv.Quote(strconv.FormatUint(hash64([]byte(body)), 16)) // of this page alone
	rw.Header().Set("ETag", tag)
	rw.Header().Set("Content-Type", "application/json")
	if q.Header.Get("If-None-Match") == tag {
		rw.WriteHeader(304)
		return
	}
	_, _ = io.WriteString(rw, body)
}

func (w *world) restart() {
	w.dead = false
	p, err := New(w.plan, Deps{Client: w.client, Publisher: w, Checkpoint: w, Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		err = p.load(context.Background())
	}
	if err != nil {
		w.Fatal(err)
	}
	w.poller = p
}

// poll runs one poll with these faults; without any it must succeed.
func (w *world) poll(breaksAt int, saveFails string, failing int) {
	w.breaksAt, w.saveFails, w.failing = breaksAt, saveFails, failing
	faulty := breaksAt >= 0 || saveFails != "" || failing > 0
	if err := w.poller.poll(context.Background()); err != nil && !faulty {
		w.Fatalf("a poll without faults failed: %v", err)
	}
	w.breaksAt, w.saveFails, w.failing = -1, "", 0
	if w.dead {
		w.restart()
	}
}

// settle polls without faults until a round is complete that began after this call.
func (w *world) settle() {
	for range 100 {
		if w.poller.st.At == nil {
			break
		}
		w.poll(-1, "", 0)
	}
	for range 100 {
		if w.poll(-1, "", 0); w.poller.st.At == nil {
			return
		}
	}
	w.Fatal("the round has no end")
}

func (w *world) mutate() {
	w.revision++
	n := 0
	if len(w.rows) > 0 {
		n = rapid.IntRange(0, len(w.rows)-1).Draw(w.T, "row")
	}
	kind := rapid.SampledFrom([]string{"insert", "edit", "revert", "remove", "return"}).Draw(w.T, "change")
	if w.plan.Detect == cursor || len(w.rows) == 0 {
		kind = "insert"
	}
	switch kind {
	case "insert":
		w.inserted++
		// Several rows share a seq: the cursor has ties. With overlap some come late.
		late := 0
		if w.plan.HTTP.Overlap > 0 {
			late = rapid.IntRange(0, 3).Draw(w.T, "late")
		}
		w.rows = slices.Insert(w.rows, n, row{key: fmt.Sprintf("k%d", w.inserted), seq: w.inserted/2 - late, rev: w.revision})
	case "edit":
		w.rows[n].rev = w.revision
	case "revert": // two contents take turns
		w.rows[n].rev = (w.rows[n].rev + 1) % 2
	case "remove":
		gone := w.rows[n]
		w.removed[gone.key] = gone.rev
		w.rows = slices.Delete(w.rows, n, n+1)
		w.log = append(w.log, emission{removed: gone.key})
	case "return":
		for key, rev := range w.removed {
			if len(w.removed) > 1 && key != slices.Min(keys(w.removed)) {
				continue
			}
			delete(w.removed, key)
			w.rows = append(w.rows, row{key: key, rev: rev})
			break
		}
	}
}

func keys(m map[string]int) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	return out
}

// TestNothingIsSkippedOrRenamed: whatever fails and whenever the process is killed, each item, and each change of it, is published, and is
// published again only under the id that it had.
func TestNothingIsSkippedOrRenamed(t *testing.T) {
	var current *world
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) { current.ServeHTTP(rw, q) }))
	defer server.Close()
	client := outbound.New(outbound.Config{})
	defer client.Close()

	rapid.Check(t, func(rt *rapid.T) {
		w := &world{T: rt, client: client, breaksAt: -1, removed: map[string]int{}}
		current = w
		w.pageSize = rapid.IntRange(1, 3).Draw(rt, "page size")
		w.plan = plan.Poller{
			Detect: rapid.SampledFrom([]string{always, etag, changed, changed, cursor}).Draw(rt, "detect"), Source: "/s", Type: "t", Items: cel("body.items"),
			Schedule: plan.Schedule{Every: plan.Duration(time.Second)}, HTTP: &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: server.URL}},
		}
		if w.plan.Detect == cursor {
			w.plan.HTTP.Cursor = &plan.Cursor{Expr: *cel(rapid.SampledFrom([]string{"item.seq", `"s" + string(item.seq)`}).Draw(rt, "cursor")), Param: "since"}
		}
		if w.plan.Detect == cursor && w.Bool("overlap") {
			w.plan.HTTP.Cursor.CEL, w.plan.HTTP.Overlap = "item.at", plan.Duration(3*time.Second)
		}
		hasID := w.Bool("id")
		if hasID {
			w.plan.ID = cel("item.k")
		}
		maxPages := rapid.IntRange(1, 4).Draw(rt, "max pages")
		if w.plan.Detect != etag { // one page is all that an ETag speaks of
			w.plan.HTTP.Pagination = rapid.SampledFrom([]*plan.Pagination{
				nil, {Type: "Link", MaxPages: maxPages}, {Type: "Cursor", Cursor: cel("body.next"), Param: "page", MaxPages: maxPages}, {Type: "Page", Param: "page", MaxPages: maxPages},
			}).Draw(rt, "pagination")
		}
		for range rapid.IntRange(0, 6).Draw(rt, "rows") {
			w.inserted++
			w.rows = append(w.rows, row{key: fmt.Sprintf("k%d", w.inserted), seq: w.inserted / 2})
		}
		w.restart()

		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"poll", "poll", "lose the broker", "lose the broker", "lose a write", "fail a request", "restart", "change"}).Draw(rt, "step") {
			case "poll":
				w.poll(-1, "", 0)
			case "lose the broker":
				w.poll(rapid.IntRange(0, 4).Draw(rt, "after messages"), "", 0)
			case "lose a write":
				w.poll(-1, rapid.SampledFrom([]string{"before", "after"}).Draw(rt, "write"), 0)
				if w.Bool("killed") {
					w.restart()
				}
			case "fail a request":
				w.poll(-1, "", rapid.IntRange(1, 3).Draw(rt, "request"))
			case "restart":
				w.restart()
			case "change":
				// Pages are not a snapshot: what shifts between them during a round no poller can see. And what was published but not remembered when the
				// process was killed is not known to have changed back.
				w.settle()
				w.checkComplete()
				w.mutate()
			}
		}
		w.settle()
		w.checkComplete()
		w.checkIDs(hasID)
		if w.plan.Detect != always {
			before := len(w.log)
			w.settle()
			if len(w.log) != before {
				rt.Fatalf("nothing has changed, and %v was published", w.log[before:])
			}
		}
	})
}

// checkComplete: all that the source holds now was published, as the last that was said of each item.
func (w *world) checkComplete() {
	last := map[string]string{}
	for _, e := range w.log {
		if e.removed == "" {
			last[keyOf(e.data)] = e.data
		}
	}
	for _, r := range w.rows {
		if last[r.key] != r.json() {
			w.Fatalf("the source holds %s; the last that was published of it is %q", r.json(), last[r.key])
		}
	}
}

func keyOf(data string) string { return strings.Split(data, `"`)[3] }

// checkIDs walks through what was published of each item.
func (w *world) checkIDs(hasID bool) {
	type history struct {
		data, id string
		removed  bool
	}
	items := map[string]*history{}
	contentOf := map[string]string{}
	for n, e := range w.log {
		if e.removed != "" {
			if h := items[e.removed]; h != nil {
				h.removed = true
			}
			continue
		}
		key := keyOf(e.data)
		h := items[key]
		if h == nil {
			h = &history{}
			items[key] = h
		}
		switch w.plan.Detect {
		case changed:
			if hasID && !strings.HasPrefix(e.id, key+"-") {
				w.Fatalf("%d: id %q of %s", n, e.id, key)
			}
			switch {
			case h.data == e.data && !h.removed && h.id != e.id:
				w.Fatalf("%d: %s was published again under the id %s; it was %s", n, e.data, e.id, h.id)
			case h.data == e.data && h.removed && h.id == e.id:
				w.Fatalf("%d: %s came back under the id that it had, %s: a broker may drop it", n, e.data, e.id)
			case h.data != e.data && h.data != "" && contentOf[e.id] != "":
				w.Fatalf("%d: %s was published under the id %s, which was used before", n, e.data, e.id)
			}
		case cursor, etag, always:
			if hasID && e.id != key {
				w.Fatalf("%d: id %q of %s", n, e.id, key)
			}
			if w.plan.Detect == cursor && h.id != "" && h.id != e.id {
				w.Fatalf("%d: %s was published again under the id %s; it was %s", n, e.data, e.id, h.id)
			}
		}
		if before := contentOf[e.id]; before != "" && before != e.data && !hasID {
			w.Fatalf("%d: the id %s stands for %s and for %s", n, e.id, before, e.data)
		}
		contentOf[e.id] = e.data
		*h = history{data: e.data, id: e.id}
	}
}
