package poll

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
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
	if r.Poller, err = New(r.plan, Deps{Client: r.client, Namespace: "shop", Publisher: r.out, Checkpoint: r.store}); err != nil {
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
	r.handler = respond(list(maxSeen, 3))
	r.once("")
	r.want(id) // known
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

// paged serves the items in pages of two, each kind of pagination at its own path.
func paged(items func() []string) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		all := items()
		var page int
		switch q.URL.Path {
		case "/link", "/page":
			_, _ = fmt.Sscan(q.URL.Query().Get("page"), &page)
		case "/cursor":
			_, _ = fmt.Sscan(strings.TrimPrefix(q.URL.Query().Get("cursor"), "to-"), &page)
		}
		part := all[min(2*page, len(all)):min(2*page+2, len(all))]
		more := 2*page+2 < len(all)
		var next string
		if more && q.URL.Path == "/link" {
			w.Header().Set("Link", fmt.Sprintf(`<?page=%d>; rel="next", <?page=0>; rel="first"`, page+1))
		}
		if more && q.URL.Path == "/cursor" {
			next = fmt.Sprintf(`,"next":"to-%d"`, page+1)
		}
		respond(fmt.Sprintf(`{"items":[%s]%s}`, strings.Join(part, ","), next))(w, q)
	}
}

var paginations = map[string]*plan.Pagination{
	"/link":   {Type: "Link"},
	"/cursor": {Type: "Cursor", Cursor: cel("body.next"), Param: "cursor"},
	"/page":   {Type: "Page", Param: "page", Start: 0},
}

func TestPagination(t *testing.T) {
	for path, pagination := range paginations {
		t.Run(path, func(t *testing.T) {
			r := newRig(t, plan.Poller{Detect: changed, Items: cel("body.items"), ID: cel("item"), HTTP: &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: path}, Pagination: pagination}})
			items := []string{`"a"`, `"b"`, `"c"`, `"d"`, `"e"`}
			requests := 0
			r.handler = func(w http.ResponseWriter, q *http.Request) {
				requests++
				w.Header().Set("ETag", `"same"`) // of each page: it must not be taken for the whole
				if q.Header.Get("If-None-Match") != "" {
					t.Error("a conditional request for one of several pages")
				}
				paged(func() []string { return items })(w, q)
			}
			r.once("")
			r.want(data, `"a"`, `"b"`, `"c"`, `"d"`, `"e"`)
			if want := map[string]int{"/link": 3, "/cursor": 3, "/page": 4}[path]; requests != want {
				t.Errorf("%d requests, want %d", requests, want)
			}
			items = append(items, `"f"`, `"g"`)
			r.once("")
			r.want(data, `"f"`, `"g"`)
		})
	}
}

func TestMaxPagesGoesOnInTheNextPoll(t *testing.T) {
	p := *paginations["/link"]
	p.MaxPages = 2
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body.items"), ID: cel("item"), HTTP: &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: "/link"}, Pagination: &p}})
	items := []string{`"a"`, `"b"`, `"c"`, `"d"`, `"e"`}
	r.handler = paged(func() []string { return items })
	r.once("")
	r.want(data, `"a"`, `"b"`, `"c"`, `"d"`)
	r.restart()
	r.once("")
	r.want(data, `"e"`)
	// The round was not begun by this process: nothing is forgotten, nothing comes twice.
	r.once("")
	r.once("")
	r.want(data)
}

func TestARestartGoesOnInTheMiddleOfThePages(t *testing.T) {
	for path, pagination := range paginations {
		t.Run(path, func(t *testing.T) {
			r := newRig(t, plan.Poller{Detect: always, Items: cel("body.items"), HTTP: &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: path}, Pagination: pagination}})
			var asked []string
			r.handler = func(w http.ResponseWriter, q *http.Request) {
				asked = append(asked, q.URL.RawQuery)
				paged(func() []string { return []string{`"a"`, `"b"`, `"c"`, `"d"`, `"e"`} })(w, q)
			}
			r.out.refuse = func(m *message.Message) error {
				if string(m.Data) == `"d"` {
					return errors.New("away")
				}
				return nil
			}
			r.once(BrokerFailed)
			before := slices.Clone(r.out.stored)
			r.want(data, `"a"`, `"b"`, `"c"`)
			r.out.refuse = nil
			asked = nil
			r.restart()
			r.once("")
			after := slices.Clone(r.out.stored)
			r.want(data, `"c"`, `"d"`, `"e"`)
			if after[0].ID != before[2].ID {
				t.Error("c came again under another id")
			}
			if want := map[string]string{"/link": "page=1", "/cursor": "cursor=to-1", "/page": "page=1"}[path]; asked[0] != want {
				t.Errorf("asked %q first, want %q", asked[0], want)
			}
		})
	}
}

// Within one process what was published of a page is not published again with the rest of it.
func TestATriedPageIsNotPublishedTwice(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: always, Items: cel("body"), Key: cel("item")})
	r.handler = respond(`["a","b","c"]`)
	r.out.refuse = func(m *message.Message) error {
		if m.Key == "b" {
			return errors.New("away")
		}
		return nil
	}
	r.once(BrokerFailed)
	r.want(data, `"a"`, `"c"`)
	r.out.refuse = nil
	r.once("")
	r.want(data, `"b"`)
}

func TestAPageThatIsGoneBeginsTheRoundAgain(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body.items"), ID: cel("item"), HTTP: &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: "/cursor"}, Pagination: paginations["/cursor"]}})
	items := func() []string { return []string{`"a"`, `"b"`, `"c"`} }
	gone := true
	r.handler = func(w http.ResponseWriter, q *http.Request) {
		if gone && q.URL.RawQuery != "" {
			w.WriteHeader(http.StatusGone)
			return
		}
		paged(items)(w, q)
	}
	if f := r.once(SourceRefused); !strings.Contains(f.Error(), "begins again") {
		t.Error(f)
	}
	r.want(data, `"a"`, `"b"`)
	gone = false
	r.once("")
	r.want(data, `"c"`)
}

func TestALastPageMayBeMissing(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body.items"), ID: cel("item"), HTTP: &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: "/page"}, Pagination: paginations["/page"]}})
	r.handler = func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Query().Get("page") == "1" {
			w.WriteHeader(404)
			return
		}
		paged(func() []string { return []string{`"a"`, `"b"`} })(w, q)
	}
	r.once("")
	r.want(data, `"a"`, `"b"`)
}

func TestCredentialsStayWithTheirServer(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body"), ID: cel("item"), HTTP: &plan.PollHTTP{
		Headers: []plan.Header{{Name: "X-Api-Key", Value: "s3cret"}, {Name: "accept", Value: "application/vnd.shop+json"}},
		Auth:    &plan.Auth{Bearer: &plan.SecretRef{Name: "api", Key: "token"}}, Pagination: &plan.Pagination{Type: "Link"},
	}})
	r.secrets.Put("shop", "api", map[string][]byte{"token": []byte("s3cret")})
	headers := map[string]http.Header{}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		headers["other"] = q.Header.Clone()
		respond(`["c"]`)(w, q)
	}))
	defer other.Close()
	r.handler = func(w http.ResponseWriter, q *http.Request) {
		headers[q.URL.Path] = q.Header.Clone()
		if q.URL.Path == "/second" {
			w.Header().Set("Link", "<"+other.URL+"/third>; rel=next")
			respond(`["b"]`)(w, q)
			return
		}
		w.Header().Set("Link", "</second>; rel=next")
		respond(`["a"]`)(w, q)
	}
	r.once("")
	r.want(data, `"a"`, `"b"`, `"c"`)
	for _, path := range []string{"/", "/second"} {
		if h := headers[path]; h.Get("Authorization") != "Bearer s3cret" || h.Get("X-Api-Key") != "s3cret" || h.Get("Accept") != "application/vnd.shop+json" {
			t.Errorf("%s was asked with %v", path, h)
		}
	}
	for name, values := range headers["other"] {
		if strings.Contains(strings.Join(values, ""), "s3cret") {
			t.Errorf("the other server was shown %s", name)
		}
	}
}

func TestLinksThatAreNotFollowed(t *testing.T) {
	for _, link := range []string{"ftp://h/", "http://me:pw@h/", "file:///etc/passwd", "http://", "http://h h/"} {
		r := newRig(t, plan.Poller{Detect: changed, Items: cel("body"), HTTP: &plan.PollHTTP{Pagination: &plan.Pagination{Type: "Link"}}})
		r.handler = func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Link", "<"+link+">; rel=next")
			respond(`["a"]`)(w, q)
		}
		if f := r.once(SourceFailed); strings.Contains(f.Error(), link) {
			t.Errorf("%s: %v", link, f)
		}
	}
	// A link to the page itself is an end.
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body"), HTTP: &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: "/p?a=1"}, Pagination: &plan.Pagination{Type: "Link"}}})
	r.handler = func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Link", "<?a=1#top>; rel=next")
		respond(`["a"]`)(w, q)
	}
	r.once("")
	r.want(data, `"a"`)
}

func TestRefusedItemsDoNotStopTheOthers(t *testing.T) {
	for _, d := range []string{always, etag, changed} {
		t.Run(d, func(t *testing.T) {
			r := newRig(t, plan.Poller{Detect: d, Items: cel("body"), ID: cel("item.id"), Key: cel(`"k"`), MaxMessageBytes: 30})
			r.handler = func(w http.ResponseWriter, q *http.Request) {
				w.Header().Set("ETag", `"1"`)
				if q.Header.Get("If-None-Match") != "" {
					w.WriteHeader(304)
					return
				}
				respond(`[{"id":"a"},{"id":"too large by far","x":"s3cret"},{"s3cret":"no id"},{"id":""},{"id":"broker"},{"id":"b"}]`)(w, q)
			}
			r.out.refuse = func(m *message.Message) error {
				if strings.Contains(string(m.Data), "broker") {
					return driver.ErrTooLarge
				}
				return nil
			}
			f := r.once(ItemRefused)
			r.want(data, `{"id":"a"}`, `{"id":"b"}`)
			if s := r.Stats(); s.Refused != 4 || s.Published != 2 || strings.Contains(f.Error(), "s3cret") || !strings.Contains(f.Error(), "item 1") {
				t.Errorf("%+v: %v", s, f)
			}
			r.once(ItemRefused)
			if d == always {
				r.want(data, `{"id":"a"}`, `{"id":"b"}`)
			} else {
				r.want(data)
			}
			// The remedy: none of them is lost.
			r.plan.MaxMessageBytes, r.plan.ID, r.out.refuse = 1000, cel(`item.?id.orValue("x") + "!"`), nil
			r.restart()
			r.once("")
			if got := r.out.take(data); len(got) != 6 {
				t.Errorf("published %q", got)
			}
		})
	}
}

func TestTheCursorDoesNotPassARefusedItem(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: cursor, Items: cel("body"), ID: cel("item.id"), HTTP: &plan.PollHTTP{Cursor: &plan.Cursor{Expr: *cel("item.seq"), Param: "since"}}})
	var asked string
	r.handler = func(w http.ResponseWriter, q *http.Request) {
		asked = q.URL.RawQuery
		respond(`[{"id":"a","seq":1},{"seq":2},{"id":"c","seq":3}]`)(w, q)
	}
	r.once(ItemRefused)
	r.want(id, "a", "c")
	r.once(ItemRefused)
	r.want(id)
	if asked != "" {
		t.Errorf("asked %q: the cursor has moved", asked)
	}
	r.plan.ID = cel(`item.?id.orValue("b")`)
	r.restart()
	r.once("")
	r.want(id, "a", "b", "c")
	r.once("")
	if asked != "since=3" {
		t.Errorf("asked %q", asked)
	}
}

func TestFailuresHaveReasons(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body.items"), HTTP: &plan.PollHTTP{MaxResponseBytes: 1000, Timeout: plan.Duration(10 * time.Second)}})
	status := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, "s3cret")
		}
	}
	for _, k := range []struct {
		handler http.HandlerFunc
		want    Reason
	}{
		{status(500), SourceFailed}, {status(404), SourceRefused}, {status(401), SourceRefused}, {status(400), SourceRefused},
		{status(302, "Location", "/s3cret"), SourceFailed}, {status(304), SourceFailed}, {status(429, "Retry-After", "7200"), SourceBusy},
		{respond(`{"s3cret":`), PageUnreadable}, {respond(`{"s3cret":1}`), PageUnreadable}, {respond(`{"items":1}`), PageUnreadable}, {respond(`<s3cret>`), PageUnreadable},
		{respond(`{"items":["` + strings.Repeat("s3cret", 200) + `"]}`), SourceFailed},
		{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(make([]byte, 1<<20))
			_ = z.Close()
		}, SourceFailed},
	} {
		r.handler = k.handler
		f := r.once(k.want)
		if strings.Contains(f.Error(), "s3cret") || len(f.Error()) > 1100 {
			t.Errorf("%v", f)
		}
		if k.want == SourceBusy && f.after != 2*time.Hour {
			t.Errorf("pause: %s", f.after)
		}
	}
	r.handler = respond(`{"items":["a"]}`)
	r.store.err = errors.New("disk full")
	r.once(CheckpointFailed)
	r.once(CheckpointFailed) // before anything is asked for
	r.want(data, `"a"`)
	r.store.err = nil
	r.once("")
	r.want(data)
}

func TestAnswersOfOtherKinds(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed})
	for _, k := range []struct {
		kind, body, want string
	}{
		{"text/csv", "a,b\n", "text/csv"}, {"application/json; charset=utf-8", `{"a":1}`, "application/json"}, {"text/plain", " [1]", "application/json"},
		{"text/plain", "hello", "text/plain"}, {"application/geo+json", `{"b":1}`, "application/geo+json"},
	} {
		r.handler = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", k.kind)
			_, _ = io.WriteString(w, k.body)
		}
		r.once("")
		if len(r.out.stored) != 1 || r.out.stored[0].DataContentType != k.want || string(r.out.stored[0].Data) != k.body {
			t.Errorf("%s: %+v", k.kind, r.out.stored)
		}
		r.out.take(id)
	}
	r.handler = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }
	r.once("")
	r.want(id)
}

func TestTheSourceMayMove(t *testing.T) {
	// The checkpoint holds a page's address without its server, so that a Service at another port is the same source.
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body.items"), ID: cel("item"), HTTP: &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: "/link"}, Pagination: &plan.Pagination{Type: "Link", MaxPages: 1}}})
	r.handler = paged(func() []string { return []string{`"a"`, `"b"`, `"c"`} })
	r.once("")
	if !bytes.Contains(r.store.doc, []byte(`"link":"/link?page=1"`)) {
		t.Errorf("the checkpoint: %s", r.store.doc)
	}
	// Another address altogether: the position means nothing, what was seen does.
	r.out.take(id)
	r.plan.HTTP.URL += "?v=2"
	r.plan.HTTP.Pagination.MaxPages = 5
	r.restart()
	r.once("")
	r.want(data, `"c"`)
}

func TestNewRefuses(t *testing.T) {
	every := plan.Schedule{Every: plan.Duration(time.Second)}
	http := &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: "http://h/"}}
	with := func(c *plan.Pagination) *plan.PollHTTP { h := *http; h.Pagination = c; return &h }
	client := outbound.New(outbound.Config{})
	for want, p := range map[string]plan.Poller{
		"source":                  {Schedule: every, Detect: changed},
		"schedule":                {HTTP: http, Detect: changed},
		"detect":                  {Schedule: every, HTTP: http},
		"http.cursor":             {Schedule: every, HTTP: http, Detect: cursor},
		"items: ":                 {Schedule: every, HTTP: http, Detect: changed, Items: cel("body.")},
		"id: ":                    {Schedule: every, HTTP: http, Detect: changed, ID: cel("[1]")},
		"key: ":                   {Schedule: every, HTTP: http, Detect: changed, Key: cel("itm")},
		"pagination: type":        {Schedule: every, HTTP: with(&plan.Pagination{}), Detect: changed},
		"pagination: cursor":      {Schedule: every, HTTP: with(&plan.Pagination{Type: "Cursor"}), Detect: changed},
		"http.pagination.cursor:": {Schedule: every, HTTP: with(&plan.Pagination{Type: "Cursor", Cursor: cel("item")}), Detect: changed},
		"http: ":                  {Schedule: every, HTTP: &plan.PollHTTP{}, Detect: changed},
	} {
		if _, err := New(p, Deps{Client: client}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestACheckpointThatCannotBeReadStopsThePoller(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed})
	r.handler = respond(`1`)
	for _, doc := range []string{`{"version":2}`, `{"version":1,"seen":"AAAA"}`, `nonsense`} {
		r.store.doc = []byte(doc)
		r.keep = keeper{store: r.store}
		if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "checkpoint") {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

func TestRunOnAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rates.json")
	r := newRig(t, plan.Poller{Detect: changed, Schedule: plan.Schedule{Every: plan.Duration(5 * time.Millisecond)}})
	polled := make(chan struct{}, 1000)
	r.handler = func(w http.ResponseWriter, q *http.Request) { respond(`{"rate":1}`)(w, q); polled <- struct{}{} }
	for range 2 {
		p, err := New(r.plan, Deps{Client: r.client, Publisher: r.out, Checkpoint: checkpoint.File(path)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		for range 4 {
			<-polled
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	r.want(data, `{"rate":1}`)
}
