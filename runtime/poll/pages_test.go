package poll

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// paged serves the items in pages of two, each kind of pagination at its own path.
func paged(items func() []string) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		all := items()
		var page int
		switch q.URL.Path {
		case "/link", "/page":
			_, _ = fmt.Sscan(q.URL.Query().Get("page"), &page)
		case "/cursor", "/header":
			_, _ = fmt.Sscan(strings.TrimPrefix(q.URL.Query().Get("cursor"), "to-"), &page)
		}
		part := all[min(2*page, len(all)):min(2*page+2, len(all))]
		more := 2*page+2 < len(all)
		var next string
		if more && q.URL.Path == "/link" {
			w.Header().Set("Link", fmt.Sprintf(`<?page=%d>; rel="next", <?page=0>; rel="first"`, page+1))
		}
		if more && q.URL.Path == "/header" {
			w.Header().Set("X-Next", fmt.Sprintf("to-%d", page+1))
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
	"/header": {Type: "Cursor", Cursor: cel(`headers["x-next"]`), Param: "cursor"},
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
			if want := map[string]int{"/link": 3, "/cursor": 3, "/header": 3, "/page": 4}[path]; requests != want {
				t.Errorf("%d requests, want %d", requests, want)
			}
			items = append(items, `"f"`, `"g"`)
			r.once("")
			r.want(data, `"f"`, `"g"`)
		})
	}
}

// Behind their last page many servers answer 204, or 200 with nothing.
func TestAnEmptyBodyIsAnEmptyPage(t *testing.T) {
	for path, pagination := range map[string]*plan.Pagination{
		"/page":   {Type: "Page", Param: "page"},
		"/cursor": {Type: "Cursor", Cursor: cel("'end' in body ? '' : string(int(body.page) + 1)"), Param: "page"},
		"/link":   {Type: "Link"},
		"/":       nil,
	} {
		for _, status := range []int{200, 204} {
			t.Run(fmt.Sprint(path, status), func(t *testing.T) {
				r := newRig(t, plan.Poller{Detect: changed, Items: cel("body.items"), ID: cel("string(item)"), HTTP: &plan.PollHTTP{HTTPTarget: plan.HTTPTarget{URL: path}, Pagination: pagination}})
				pages := 1
				if pagination == nil {
					pages = 0
				}
				r.handler = func(w http.ResponseWriter, q *http.Request) {
					page := 0
					_, _ = fmt.Sscan(q.URL.Query().Get("page"), &page)
					if page >= pages {
						w.WriteHeader(status)
						return
					}
					w.Header().Set("Link", fmt.Sprintf(`<?page=%d>; rel="next"`, page+1))
					respond(fmt.Sprintf(`{"items":[%d],"page":%d}`, page, page))(w, q)
				}
				if pagination == nil && status == 200 {
					r.once(PageUnreadable)
					return
				}
				r.once("")
				r.want(data, []string{"0", "1"}[:pages]...)
				if s := r.Stats(); s.Rounds != 1 || r.st.At != nil {
					t.Errorf("the round goes on: %+v", s)
				}
				// The round was a whole one: what is new begins the next.
				if pagination != nil {
					pages = 2
					r.once("")
					r.want(data, "1")
				}
			})
		}
	}
}

func TestABodyWithNothingInItIsAnEmptyPage(t *testing.T) {
	for _, end := range []string{"[]", "{}", "null", "[ ]", "{ }", "\n[\n]\r\n", " {\t\n} ", "null\n"} {
		r := newRig(t, plan.Poller{Detect: always, HTTP: &plan.PollHTTP{Pagination: &plan.Pagination{Type: "Page", Param: "page"}}})
		r.handler = func(w http.ResponseWriter, q *http.Request) {
			body := end
			if q.URL.Query().Get("page") == "0" {
				body = `{"a":[ ]}`
			}
			respond(body)(w, q)
		}
		r.once("")
		r.want(data, `{"a":[ ]}`)
		if s := r.Stats(); s.Pages != 2 || s.Rounds != 1 {
			t.Errorf("%q: %+v", end, s)
		}
	}
	for _, other := range []string{"[", "]", "{]", "[}", "[0]", "[[]]", `""`, "0", "nul"} {
		if nothing([]byte(other)) {
			t.Errorf("%q is something", other)
		}
	}
}

// Without items each page is an item of its own: none is a change of the one before it.
func TestChangedTellsPagesWithoutItemsApart(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed, HTTP: &plan.PollHTTP{Pagination: &plan.Pagination{Type: "Page", Param: "page"}}})
	pages := []string{`{"n":0}`, `{"n":1}`, `{"n":3}`}
	r.handler = func(w http.ResponseWriter, q *http.Request) {
		page := 0
		_, _ = fmt.Sscan(q.URL.Query().Get("page"), &page)
		if page < len(pages) {
			respond(pages[page])(w, q)
		} else {
			respond("[]")(w, q)
		}
	}
	r.once("")
	r.want(data, pages...)
	r.restart()
	r.once("")
	r.want(data)
	pages[1] = `{"n":2}`
	r.once("")
	r.want(data, pages[1])
	pages = pages[:2]
	r.once("")
	r.once("")
	r.want(data)
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
			if want := map[string]string{"/link": "page=1", "/cursor": "cursor=to-1", "/header": "cursor=to-1", "/page": "page=1"}[path]; asked[0] != want {
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

// An empty 200 in the place of the first page may be a fault: it is no round in which all items have gone.
func TestAnEmptyFirstPageForgetsNothing(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body.items"), ID: cel("item.id"),
		HTTP: &plan.PollHTTP{Pagination: &plan.Pagination{Type: "Page", Param: "page"}}})
	bad := false
	r.handler = func(w http.ResponseWriter, q *http.Request) {
		switch page := q.URL.Query().Get("page"); {
		case bad && page == "0":
			respond("")(w, q)
		case page == "0", page == "1":
			respond(`{"items":[{"id":"`+page+`"}]}`)(w, q)
		default:
			respond(`{"items":[]}`)(w, q)
		}
	}
	r.once("")
	if got := r.out.take(id); len(got) != 2 {
		t.Fatalf("got %v", got)
	}
	bad = true
	if err := r.poll(t.Context()); err == nil {
		t.Error("an empty 200 counts as a round")
	}
	bad = false
	r.once("")
	r.want(id) // nothing is new
}
