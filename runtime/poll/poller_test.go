package poll

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/postgres"
	"github.com/waybill-dev/waybill/runtime/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted stores messages, but what refuse gives an error for. Nothing of a key is stored behind what failed.
type scripted struct {
	mu     sync.Mutex
	refuse func(*message.Message) error
	stored []message.Message
}

func (s *scripted) Publish(_ context.Context, ms []message.Message) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, len(ms))
	failed := map[string]error{}
	for i := range ms {
		if s.refuse != nil {
			errs[i] = s.refuse(&ms[i])
		}
		if before := failed[ms[i].Key]; before != nil {
			errs[i] = fmt.Errorf("%w: %w", broker.ErrHeld, before)
		}
		if errs[i] == nil {
			s.stored = append(s.stored, ms[i])
		} else if ms[i].Key != "" {
			failed[ms[i].Key] = errs[i]
		}
	}
	return errs
}

// take gives what was stored since the last call, as ID or DATA.
func (s *scripted) take(of func(message.Message) string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, m := range s.stored {
		out = append(out, of(m))
	}
	s.stored = nil
	return out
}

func id(m message.Message) string   { return m.ID }
func data(m message.Message) string { return string(m.Data) }

// memory is a checkpoint that fails on cue.
type memory struct {
	doc    []byte
	writes int
	err    error
}

func (m *memory) Load(context.Context) ([]byte, error) { return m.doc, nil }

func (m *memory) Save(_ context.Context, doc []byte) error {
	if m.err != nil {
		return m.err
	}
	m.doc = bytes.Clone(doc)
	m.writes++
	return nil
}

// rig is a poller with its source, its broker and its checkpoint.
type rig struct {
	t       *testing.T
	plan    plan.Poller
	out     *scripted
	store   *memory
	client  *outbound.Client
	secrets secret.Memory
	handler http.HandlerFunc
	db      *postgres.Database // of a plan with SQL
	*Poller
}

func cel(source string) *plan.Expr { return &plan.Expr{CEL: source} }

func newRig(t *testing.T, p plan.Poller) *rig {
	t.Helper()
	r := &rig{t: t, out: &scripted{}, store: &memory{}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { r.handler(w, q) }))
	r.client = outbound.New(outbound.Config{Secrets: &r.secrets})
	t.Cleanup(func() { r.client.Close(); s.Close() })
	if p.HTTP == nil {
		p.HTTP = &plan.PollHTTP{}
	}
	p.HTTP.URL = s.URL + p.HTTP.URL
	p.Source, p.Type = "/shop/pollers/rates", "rate"
	if p.Schedule == (plan.Schedule{}) {
		p.Schedule.Every = plan.Duration(time.Second)
	}
	if p.HTTP.Pagination != nil && p.HTTP.Pagination.MaxPages == 0 {
		p.HTTP.Pagination.MaxPages = 100
	}
	r.plan = p
	r.restart()
	return r
}

// restart makes a new poller of the checkpoint, as a new process does.
func (r *rig) restart() {
	r.t.Helper()
	var err error
	if r.Poller, err = New(r.plan, Deps{Client: r.client, Namespace: "shop", Publisher: r.out, Checkpoint: r.store, Database: r.db}); err != nil {
		r.t.Fatal(err)
	}
	if err := r.load(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// once polls and wants it to fail for that reason, "" for none.
func (r *rig) once(want Reason) *failure {
	r.t.Helper()
	f := asFailure(r.poll(r.t.Context()))
	switch {
	case want == "" && f != nil:
		r.t.Fatal(f)
	case want != "" && (f == nil || f.reason != want):
		r.t.Fatalf("the poll ended with %v, want %s", f, want)
	}
	return f
}

func (r *rig) want(of func(message.Message) string, want ...string) {
	r.t.Helper()
	if got := r.out.take(of); !slices.Equal(got, want) {
		r.t.Fatalf("published %q, want %q", got, want)
	}
}

func respond(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = io.WriteString(w, body)
	}
}

func TestItemsLeaveAsTheyCame(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body.results"), ID: cel("item.id"), Key: cel(`headers["x-shop"] + "/" + item.sku`)})
	r.handler = func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("X-Shop", "zh")
		respond(`{"results":[ {"id":9007199254740993, "sku":"a","price":1.10, "x":"\u00fc"},{"id":2,"sku":"b","big":1e400} ]}`)(w, q)
	}
	r.once("")
	ms := r.out.stored
	if len(ms) != 2 || string(ms[0].Data) != `{"id":9007199254740993, "sku":"a","price":1.10, "x":"\u00fc"}` || string(ms[1].Data) != `{"id":2,"sku":"b","big":1e400}` {
		t.Fatalf("published %q", r.out.take(data))
	}
	m := ms[0]
	if !strings.HasPrefix(m.ID, "9007199254740993-") || m.Key != "zh/a" || m.Source != "/shop/pollers/rates" || m.Type != "rate" || m.DataContentType != "application/json" {
		t.Errorf("%+v", m)
	}
	if err := m.Check(); err != nil || m.Time == "" {
		t.Errorf("%q: %v", m.Time, err)
	}
}

func TestChangedTellsEveryChange(t *testing.T) {
	for name, p := range map[string]plan.Poller{
		"item with an id":      {Detect: changed, Items: cel("body"), ID: cel("item.id")},
		"the answer":           {Detect: changed},
		"item without an id":   {Detect: changed, Items: cel("body")},
		"the answer has an id": {Detect: changed, ID: cel(`"rates"`)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, p)
			ids := map[string]string{}
			for n, v := range []string{"A", "B", "A", "B", "A"} {
				item := fmt.Sprintf(`{"id":"1","v":"%s"}`, v)
				body := "[" + item + "]"
				if p.Items == nil {
					item = body
				}
				r.handler = respond(body)
				r.once("")
				got := r.out.stored
				if len(got) != 1 || string(got[0].Data) != item {
					t.Fatalf("%d: published %q", n, r.out.take(data))
				}
				if before, twice := ids[got[0].ID]; twice {
					t.Fatalf("%d: the id of %s came again", n, before)
				}
				ids[got[0].ID] = v
				r.out.take(id)
				r.once("") // unchanged
				r.restart()
				r.once("")
				r.want(id)
			}
		})
	}
}

func TestChangedForgetsWhatACompleteRoundDidNotBring(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body"), ID: cel("item")})
	r.handler = respond(`["a","b"]`)
	r.once("")
	first := r.out.take(id)
	r.handler = respond(`["a"]`)
	r.once("")
	r.want(id)
	writes := r.store.writes
	r.once("")
	if r.store.writes != writes {
		t.Error("the checkpoint was written without a change")
	}
	r.handler = respond(`["a","b"]`)
	r.once("")
	if got := r.out.take(id); len(got) != 1 || !strings.HasPrefix(got[0], "b-") || got[0] == first[1] {
		t.Errorf("back again: %q, first %q; want b with another id", got, first)
	}
}

func TestChangedRefusesMoreThanItRemembers(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body"), ID: cel("item")})
	list := func(from, n int) string {
		var out []string
		for i := range n {
			out = append(out, fmt.Sprintf(`"%d"`, from+i))
		}
		return "[" + strings.Join(out, ",") + "]"
	}
	r.handler = respond(list(0, maxSeen))
	r.once("")
	r.handler = respond(list(maxSeen, maxSeen)) // all others: they are forgotten only at the end
	r.once("")
	if n := len(r.out.take(id)); n != 2*maxSeen {
		t.Fatalf("published %d", n)
	}
	if n := len(r.store.doc); n > maxSeen*22+512 {
		t.Errorf("the checkpoint has %d bytes", n)
	}
	r.handler = respond(list(0, maxSeen+1))
	f := r.once(TooManyItems)
	if !strings.Contains(f.Error(), "Cursor or ETag") {
		t.Error(f)
	}
	r.want(id)
	// What lies behind is not looked at.
	r.handler = respond(list(0, maxSeen+1)[:len(list(0, maxSeen+1))-1] + `,{}]`)
	r.once(TooManyItems)
	if s := r.Stats(); s.Refused != 0 {
		t.Errorf("%+v", s)
	}
	r.handler = respond(list(maxSeen, 3))
	r.once("")
	r.want(id) // known
}

func TestAPageHasABound(t *testing.T) {
	for _, detect := range []string{always, changed, etag} {
		r := newRig(t, plan.Poller{Detect: detect, Items: cel("body")})
		r.handler = respond("[" + strings.Repeat("1,", maxItems) + "1]")
		if f := r.once(TooManyItems); !strings.Contains(f.Error(), "ask for smaller pages") {
			t.Error(f)
		}
		r.want(data)
		r.handler = respond("[1]")
		r.once("")
		r.want(data, "1")
	}
}

func TestETag(t *testing.T) {
	for _, d := range []string{etag, changed} {
		t.Run(d, func(t *testing.T) {
			r := newRig(t, plan.Poller{Detect: d, Items: cel("body"), ID: cel("item")})
			version, asked := 1, []string{}
			r.handler = func(w http.ResponseWriter, q *http.Request) {
				asked = append(asked, q.Header.Get("If-None-Match")+"|"+q.Header.Get("If-Modified-Since"))
				tag := fmt.Sprintf(`W/"v%d"`, version)
				w.Header().Set("ETag", tag)
				w.Header().Set("Last-Modified", "Sun, 01 Mar 2026 12:00:00 GMT")
				if q.Header.Get("If-None-Match") == tag {
					w.WriteHeader(304)
					return
				}
				respond(fmt.Sprintf(`["a","%d"]`, version))(w, q)
			}
			r.once("")
			first := r.out.take(data)
			r.once("")
			r.restart()
			r.once("")
			r.want(id)
			version = 2
			r.once("")
			second := r.out.take(data)
			if want := map[string][]string{etag: {`"a"`, `"2"`}, changed: {`"2"`}}[d]; !slices.Equal(first, []string{`"a"`, `"1"`}) || !slices.Equal(second, want) {
				t.Errorf("published %q, then %q", first, second)
			}
			if want := []string{"|", `W/"v1"|Sun, 01 Mar 2026 12:00:00 GMT`, `W/"v1"|Sun, 01 Mar 2026 12:00:00 GMT`, `W/"v1"|Sun, 01 Mar 2026 12:00:00 GMT`}; !slices.Equal(asked, want) {
				t.Errorf("asked with %q", asked)
			}
			if s := r.Stats(); s.NotModified != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Many servers answer 200 again and again, whatever they are asked.
func TestETagOfAServerThatIgnoresConditions(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: etag, Items: cel("body")})
	for _, k := range []struct {
		name, value, modified string
		published             bool
	}{
		{"ETag", `"1"`, "", true}, {"ETag", `"1"`, "", false}, {"ETag", `W/"1"`, "", false}, {"ETag", `"1"`, "Sun, 01 Mar 2026 12:00:00 GMT", false}, {"ETag", `"2"`, "Sun, 01 Mar 2026 12:00:00 GMT", true},
		{"Last-Modified", "Sun, 01 Mar 2026 12:00:00 GMT", "", true}, {"Last-Modified", "Sun, 01 Mar 2026 12:00:00 GMT", "", false}, {"Last-Modified", "Sun, 01 Mar 2026 12:00:01 GMT", "", true},
		{"X-Other", "1", "", true}, {"X-Other", "1", "", true}, {"ETag", `"1"`, "", true},
	} {
		r.handler = func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set(k.name, k.value)
			if k.modified != "" {
				w.Header().Set("Last-Modified", k.modified)
			}
			respond(`["a"]`)(w, q)
		}
		r.restart()
		r.once("")
		if got := len(r.out.take(id)) > 0; got != k.published {
			t.Errorf("%s %s: published: %v", k.name, k.value, got)
		}
	}
	if s := r.Stats(); s.Rounds != 1 {
		t.Errorf("%+v", s)
	}
}

// The ETag is kept only once all of its answer was published.
func TestETagIsKeptBehindThePublishing(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: etag, Items: cel("body")})
	r.handler = func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("ETag", `"1"`)
		if q.Header.Get("If-None-Match") != "" {
			w.WriteHeader(304)
			return
		}
		respond(`["a","b"]`)(w, q)
	}
	r.out.refuse = func(m *message.Message) error {
		if string(m.Data) == `"b"` {
			return errors.New("away")
		}
		return nil
	}
	r.once(BrokerFailed)
	before := r.out.take(id)
	r.restart()
	r.out.refuse = nil
	r.once("")
	after := r.out.take(id)
	if len(before) != 1 || len(after) != 2 || after[0] != before[0] {
		t.Errorf("published %q, after the restart %q", before, after)
	}
	r.once("")
	r.want(id)
}

func TestAlwaysPublishesEachRoundUnderIdsOfItsOwn(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: always, Items: cel("body")})
	r.handler = func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("If-None-Match") != "" {
			t.Error("a conditional request")
		}
		w.Header().Set("ETag", `"1"`)
		respond(`["a","a","b"]`)(w, q)
	}
	all := map[string]bool{}
	for range 3 {
		r.once("")
		for _, id := range r.out.take(id) {
			all[id] = true
		}
		r.restart()
	}
	if len(all) != 9 {
		t.Errorf("%d ids, want 9", len(all))
	}
	// With an id the id is just that.
	r.plan.ID = cel("item")
	r.restart()
	r.once("")
	r.want(id, "a", "a", "b")
}

func TestCursor(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: cursor, Items: cel("body"), ID: cel(`string(item.seq) + item.v`), HTTP: &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: "/?x=1"}, Cursor: &plan.Cursor{Expr: *cel("item.seq"), Param: "since", Start: "5"}}})
	var queries []string
	type row struct {
		Seq int    `json:"seq"`
		V   string `json:"v"`
	}
	rows := []row{{10, "a"}, {9, "b"}, {10, "c"}} // newest first, more or less
	r.handler = func(w http.ResponseWriter, q *http.Request) {
		queries = append(queries, q.URL.RawQuery)
		body, _ := json.Marshal(rows)
		respond(string(body))(w, q)
	}
	r.once("")
	r.want(id, "10a", "9b", "10c")
	// A server that gives what has the cursor itself, and even older ones: only what is new is published.
	rows = append(rows, row{10, "d"}, row{11, "e"})
	r.once("")
	r.want(id, "10d", "11e")
	r.restart()
	r.once("")
	r.want(id)
	rows = nil
	r.once("")
	rows = []row{{12, "f"}}
	r.once("")
	r.want(id, "12f")
	if want := []string{"x=1&since=5", "x=1&since=10", "x=1&since=11", "x=1&since=11", "x=1&since=11"}; !slices.Equal(queries, want) {
		t.Errorf("asked %q, want %q", queries, want)
	}
	// Another parameter: the old cursor means nothing to it.
	queries = nil
	r.plan.HTTP.Cursor.Param = "after"
	r.restart()
	r.once("")
	if !slices.Equal(queries, []string{"x=1&after=5"}) {
		t.Errorf("asked %q", queries)
	}
}

// Which text lies below another only the server knows: nothing is skipped, and what was seen is not published again.
func TestACursorThatIsText(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: cursor, Items: cel("body"), ID: cel("item"), HTTP: &plan.PollHTTP{Cursor: &plan.Cursor{Expr: *cel("item"), Param: "since"}}})
	for _, round := range []struct{ rows, since, want string }{
		{`["b","a","é","z"]`, "", "b a é z"}, {`["b","a","é","z"]`, "é", ""}, {`["z","c","b"]`, "é", "c"}, {`[]`, "é", ""}, {`["a","b","é","ö"]`, "é", "ö"}, {`["a","ö"]`, "ö", ""},
	} {
		r.restart()
		r.handler = func(w http.ResponseWriter, q *http.Request) {
			if got := q.URL.Query().Get("since"); got != round.since {
				t.Errorf("asked since %q, want %q", got, round.since)
			}
			respond(round.rows)(w, q)
		}
		r.once("")
		r.want(id, strings.Fields(round.want)...)
	}
	// Of more than are remembered the newest are known.
	var all []string
	for i := range maxSeen + 10 {
		all = append(all, fmt.Sprintf(`"p%05d"`, i))
	}
	r.handler = respond("[" + strings.Join(all, ",") + "]")
	r.once("")
	r.out.take(id)
	r.once("")
	if got := r.out.take(data); !slices.Equal(got, all[:10]) {
		t.Errorf("published again: %q", got)
	}
}
