package contract

import (
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// An api is a scripted HTTP source that notes what it was asked.
type api struct {
	*httptest.Server
	mu    sync.Mutex
	asked []*http.Request
}

func serveAPI(t *testing.T, answer http.HandlerFunc) *api {
	t.Helper()
	a := &api{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.asked = append(a.asked, r.Clone(r.Context()))
		a.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		answer(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

// requests are those to a path, oldest first.
func (a *api) requests(path string) []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []*http.Request
	for _, r := range a.asked {
		if r.URL.Path == path {
			out = append(out, r)
		}
	}
	return out
}

// polling is a Poller, with the Mailbox of its name that it publishes to. spec is indented by two and begins with the schedule.
func polling(name, spec string) string {
	return fmt.Sprintf("apiVersion: waybill.dev/v1alpha1\nkind: Mailbox\nmetadata: {name: %[1]s}\nspec: {brokerRef: {name: main}}\n---\napiVersion: waybill.dev/v1alpha1\nkind: Poller\nmetadata: {name: %[1]s}\nspec:\n  to: {mailboxRef: {name: %[1]s}}\n%[2]s", name, spec)
}

// taken receives and acknowledges n messages, in order.
func taken(t *testing.T, address string, n int) []lent {
	t.Helper()
	var all []lent
	eventually(t, fmt.Sprintf("%d messages at %s", n, address), func() bool {
		for _, l := range receive(t, address, "max=100&wait=1s") {
			post(t, address+"/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent)
			all = append(all, l)
		}
		return len(all) >= n
	})
	return all
}

// each gives one attribute of each message.
func each(t *testing.T, all []lent, attribute string) []string {
	t.Helper()
	var out []string
	for _, l := range all {
		out = append(out, l.attribute(t, attribute))
	}
	return out
}

const secretOfAPI = `
apiVersion: v1
kind: Secret
metadata: {name: api}
stringData: {token: t0ken, username: joe, password: pa ss, other: 0ther}
`

func TestPollerAndStepShowCredentials(t *testing.T) {
	t.Parallel()
	says(t, "F4", "F1")
	source := serveAPI(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, `{"path":%q}`, r.URL.Path) })
	want := map[string]map[string]string{
		"bearer": {"Authorization": "Bearer t0ken"}, "basic": {"Authorization": "Basic am9lOnBhIHNz"}, "header": {"X-Api-Key": "t0ken"}, "keyed": {"Authorization": "Bearer 0ther"},
	}
	docs := []string{secretOfAPI, "kind: Topic\nmetadata: {name: in}\nspec: {brokerRef: {name: main}}"}
	for name, auth := range map[string]string{
		"bearer": "{bearer: {secretRef: {name: api}}}", "basic": "{basic: {secretRef: {name: api}}}",
		"header": "{header: {name: X-Api-Key, secretRef: {name: api}}}", "keyed": "{bearer: {secretRef: {name: api, key: other}}}",
	} {
		docs = append(docs,
			polling(name, fmt.Sprintf("  schedule: {every: 1h}\n  http:\n    url: %s/poll-%s\n    auth: %s\n    headers: [{name: X-Shop, value: zürich}, {name: Accept, value: application/vnd.shop+json}]", source.URL, name, auth)),
			fmt.Sprintf("kind: Pipeline\nmetadata: {name: %[1]s}\nspec:\n  from: {topicRef: {name: in}}\n  steps: [{name: call, http: {uri: %[2]s/step-%[1]s, auth: %[3]s}}]\n  to: {mailboxRef: {name: %[1]s}}", name, source.URL, auth))
	}
	p := serve(t, docs...)
	post(t, p.at("Topic", "in", ""), `{}`, "Content-Type", "application/json").want(http.StatusAccepted)
	for name, headers := range want {
		if got := each(t, taken(t, p.at("Mailbox", name, ""), 2), "data"); !slices.Contains(got, fmt.Sprintf(`{"path":"/poll-%s"}`, name)) || !slices.Contains(got, fmt.Sprintf(`{"path":"/step-%s"}`, name)) {
			t.Errorf("%s: %q", name, got)
		}
		for _, path := range []string{"/poll-" + name, "/step-" + name} {
			r := source.requests(path)[0]
			for header, value := range headers {
				if r.Header.Get(header) != value {
					t.Errorf("%s: %s: %q, want %q", path, header, r.Header.Get(header), value)
				}
			}
		}
		if h := source.requests("/poll-" + name)[0].Header; h.Get("X-Shop") != "zürich" || h.Get("Accept") != "application/vnd.shop+json" {
			t.Errorf("%s: headers %v", name, h)
		}
	}
}

func TestPollerFollowsPages(t *testing.T) {
	t.Parallel()
	says(t, "F5", "F6", "F7")
	var source *api
	elsewhere := serveAPI(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `["e"]`) })
	source = serveAPI(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		switch r.URL.Path + "?" + r.URL.RawQuery {
		case "/v1/link?":
			w.Header().Add("Link", `nonsense, <first>; rel="first"`)
			w.Header().Add("Link", `<link?page=2>; title="a, <b>"; rel="last NEXT"`)
			_, _ = io.WriteString(w, `["a","b"]`)
		case "/v1/link?page=2":
			w.Header().Set("Link", `<../third>; rel=next`)
			_, _ = io.WriteString(w, `[]`) // an empty page is no end here
		case "/third?":
			w.Header().Set("Link", "<"+elsewhere.URL+"/far>; rel=next")
			_, _ = io.WriteString(w, `["c","d"]`)
		default:
			switch r.URL.Path {
			case "/number", "/nil", "/empty", "/missing":
				end := map[string]string{"/number": `"next":null,`, "/nil": `"next":null,`, "/empty": `"next":"",`, "/missing": ""}[r.URL.Path]
				next := map[string]string{"": `"next":9007199254740993,`, "9007199254740993": `"next":"a&b =c",`, "a&b =c": end}[q.Get("after")]
				fmt.Fprintf(w, `{%s"items":[%q]}`, next, "after "+q.Get("after"))
			case "/page":
				n, _ := strconv.Atoi(q.Get("p"))
				if n < 5 {
					fmt.Fprintf(w, `["%s %d"]`, q.Get("keep"), n)
				} else {
					_, _ = io.WriteString(w, `[]`)
				}
			}
		}
	})
	pages := func(name, path, items, pagination string) string {
		return polling(name, fmt.Sprintf("  schedule: {every: 1h}\n  http: {url: '%s%s', pagination: %s, auth: {bearer: {secretRef: {name: api}}}, headers: [{name: X-Key, value: k3y}]}\n  items: {cel: '%s'}", source.URL, path, pagination, items))
	}
	docs := []string{secretOfAPI, pages("link", "/v1/link", "body", "{type: Link}"), pages("page", "/page?keep=x", "body", "{type: Page, param: p, start: 3}"), pages("first", "/page?keep=y", "body", "{type: Page, param: p}")}
	for _, name := range []string{"number", "nil", "empty", "missing"} {
		docs = append(docs, pages(name, "/"+name, "body.items", "{type: Cursor, cursor: {cel: body.next}, param: after}"))
	}
	p := serve(t, docs...)
	want := map[string][]string{"link": {"a", "b", "c", "d", "e"}, "page": {"x 3", "x 4"}, "first": {"y 1", "y 2", "y 3", "y 4"}}
	for _, name := range []string{"number", "nil", "empty", "missing"} {
		want[name] = []string{"after ", "after 9007199254740993", "after a&b =c"}
	}
	for name, items := range want {
		if got := each(t, taken(t, p.at("Mailbox", name, ""), len(items)), "data"); !slices.Equal(got, items) {
			t.Errorf("%s: %q, want %q", name, got, items)
		}
	}
	if r := source.requests("/third")[0]; r.Header.Get("Authorization") != "Bearer t0ken" || r.Header.Get("X-Key") != "k3y" {
		t.Errorf("the third page was asked for with %v", r.Header)
	}
	if r := elsewhere.requests("/far")[0]; r.Header.Get("Authorization") != "" || r.Header.Get("X-Key") != "" {
		t.Errorf("another server was shown %v", r.Header)
	}
	if n := len(source.requests("/page")); n != 3+5 {
		t.Errorf("%d requests for pages, want 8: until the empty one", n)
	}
}

func TestPollerAsksBeyondItsCursor(t *testing.T) {
	t.Parallel()
	says(t, "F8")
	var mu sync.Mutex
	rows := map[string]string{
		"/seq": `[{"id":"b","at":9007199254740993},{"id":"a","at":9007199254740992},{"id":"c","at":9007199254740993}]`, "/time": `[{"id":"a","at":"2026-01-01T00:00:00+01:00"},{"id":"b","at":"2025-12-31T23:30:00Z"}]`, "/text": `[{"id":"a","at":"a9"},{"id":"b","at":"b1"}]`,
		"/late": `[{"id":"a","at":"2026-01-01T12:00:00.5+01:00"}]`,
	}
	source := serveAPI(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.WriteString(w, rows[r.URL.Path])
	})
	var docs []string
	for _, name := range []string{"seq", "time", "text"} {
		docs = append(docs, polling(name, fmt.Sprintf("  schedule: {every: 100ms}\n  http: {url: '%s/%s?x=1', cursor: {cel: item.at, param: since, start: begin}}\n  items: {cel: body}\n  id: {cel: item.id}\n  detect: Cursor", source.URL, name)))
	}
	docs = append(docs, polling("late", fmt.Sprintf("  schedule: {every: 100ms}\n  http: {url: '%s/late?x=1', cursor: {cel: item.at, param: since, start: begin}}\n  items: {cel: body}\n  id: {cel: item.id}\n  detect: Cursor\n  overlap: 90s", source.URL)))
	p := serve(t, docs...)
	want := map[string][]string{"seq": {"b", "a", "c"}, "time": {"a", "b"}, "text": {"a", "b"}, "late": {"a"}}
	greatest := map[string]string{"seq": "9007199254740993", "time": "2025-12-31T23:30:00Z", "text": "b1", "late": "2026-01-01T11:58:30.5+01:00"}
	for name, ids := range want {
		if got := each(t, taken(t, p.at("Mailbox", name, ""), len(ids)), "id"); !slices.Equal(got, ids) {
			t.Errorf("%s: %q, want %q", name, got, ids)
		}
		var since []string
		eventually(t, name+" to be asked beyond the cursor", func() bool {
			since = nil
			for _, r := range source.requests("/" + name) {
				since = append(since, r.URL.Query().Get("since"))
			}
			return slices.Contains(since, greatest[name])
		})
		if since[0] != "begin" {
			t.Errorf("%s: the first request had since=%q", name, since[0])
		}
	}
	// Of what the server gives again only what is new comes: another one at the cursor itself, and one beyond.
	mu.Lock()
	rows["/late"] = `[{"id":"a","at":"2026-01-01T12:00:00.5+01:00"},{"id":"old","at":"2026-01-01T10:58:30Z"},{"id":"in time","at":"2026-01-01T10:58:31Z"}]`
	rows["/seq"] = `[{"id":"c","at":9007199254740993},{"id":"d","at":9007199254740993},{"id":"old","at":7},{"id":"e","at":9007199254740994}]`
	mu.Unlock()
	if got := each(t, taken(t, p.at("Mailbox", "seq", ""), 2), "id"); !slices.Equal(got, []string{"d", "e"}) {
		t.Errorf("then %q, want d and e", got)
	}
	if got := each(t, taken(t, p.at("Mailbox", "late", ""), 1), "id"); !slices.Equal(got, []string{"in time"}) {
		t.Errorf("then %q, want what came late", got)
	}
}

func TestPollerTellsChanges(t *testing.T) {
	t.Parallel()
	says(t, "F9")
	var mu sync.Mutex
	body := `[{"id":"x","v":"A"}]`
	set := func(s string) { mu.Lock(); defer mu.Unlock(); body = s }
	source := serveAPI(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.WriteString(w, body)
	})
	p := serve(t, polling("rates", fmt.Sprintf("  schedule: {every: 100ms}\n  http: {url: %s/rates}\n  items: {cel: body}\n  id: {cel: item.id}\n  key: {cel: item.id}\n  detect: Changed", source.URL)))
	box := p.at("Mailbox", "rates", "")
	ids := map[string]bool{}
	form := regexp.MustCompile(`^x-[0-9a-f]{16}$`)
	for _, v := range []string{"A", "B", "A", "", "A"} {
		if v == "" {
			// It goes, and a poll sees that: then it is back, which is news.
			set(`[]`)
			before := len(source.requests("/rates"))
			eventually(t, "two polls without the item", func() bool { return len(source.requests("/rates")) >= before+3 })
			continue
		}
		set(fmt.Sprintf(`[{"id":"x","v":%q}]`, v))
		l := taken(t, box, 1)
		id := l[0].attribute(t, "id")
		if len(l) != 1 || !form.MatchString(id) || ids[id] || l[0].attribute(t, "data") != fmt.Sprintf(`{"id":"x","v":%q}`, v) || l[0].attribute(t, "partitionkey") != "x" {
			t.Errorf("%s: %s, known ids %v", v, l[0].Event, ids)
		}
		ids[id] = true
	}
	if got := receive(t, box, "max=10&wait=500ms"); len(got) != 0 {
		t.Errorf("more than changed: %v", each(t, got, "id"))
	}
}

// A poll is never overtaken by the next one, and what the server asks for is obeyed; faults are waited out.
func TestPollerKeepsToItsSchedule(t *testing.T) {
	t.Parallel()
	says(t, "F17")
	var mu sync.Mutex
	atOnce, most, n := 0, 0, 0
	source := serveAPI(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			mu.Lock()
			atOnce++
			most = max(most, atOnce)
			mu.Unlock()
			<-time.After(350 * time.Millisecond) // longer than the interval
			mu.Lock()
			atOnce--
			n++
			fmt.Fprintf(w, `%d`, n)
			mu.Unlock()
		case "/busy":
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			_, _ = io.WriteString(w, `1`)
		}
	})
	doc := func(name, schedule string) string {
		return polling(name, fmt.Sprintf("  schedule: %s\n  http: {url: %s/%s}", schedule, source.URL, name))
	}
	p := serve(t, doc("slow", "{every: 100ms}"), doc("busy", "{every: 100ms}"), doc("often", "{every: 200ms, jitterPercent: 50}"), doc("cron", "{cron: '0 0 29 2 *', timeZone: Asia/Kathmandu}"))
	taken(t, p.at("Mailbox", "slow", ""), 3)
	taken(t, p.at("Mailbox", "cron", ""), 1)
	mu.Lock()
	if most != 1 {
		t.Errorf("%d polls at once", most)
	}
	mu.Unlock()
	began := time.Now()
	before := len(source.requests("/often"))
	eventually(t, "five more polls", func() bool { return len(source.requests("/often")) >= before+5 })
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("five polls in %s", took)
	}
	// Counted in less than two seconds since each began: the server asked for two.
	if busy := source.requests("/busy"); len(busy) > 1+int(time.Since(began)/(2*time.Second))+2 {
		t.Errorf("%d requests to a server that asked for pauses", len(busy))
	}
	// 29 February aside, cron has asked once: at the start.
	if n := len(source.requests("/cron")); n != 1 {
		t.Errorf("cron asked %d times", n)
	}
	code, plans, stderr := waybill(t, "compile", "-o", "json", "-f", manifest(t, broker, doc("p", "{cron: '0 6 * * *', timeZone: Asia/Kathmandu, jitterPercent: 5}")))
	if code != 0 || !strings.Contains(plans, `"cron":"0 6 * * *"`) || !strings.Contains(plans, `"timeZone":"Asia/Kathmandu"`) || !strings.Contains(plans, `"jitterPercent":5`) {
		t.Errorf("exit code %d: %s%s", code, plans, stderr)
	}
	for wrong, say := range map[string]string{"{cron: 'every day'}": "cron", "{cron: '0 6 * * *', timeZone: Mars/Olympus}": "Mars/Olympus", "{every: 1s, timeZone: UTC}": "timeZone", "{every: 1s, cron: '* * * * *'}": "exactly one of every and cron"} {
		code, stdout, stderr := waybill(t, "validate", "-f", manifest(t, broker, doc("p", wrong)))
		if code != 1 || !strings.Contains(stdout+stderr, say) {
			t.Errorf("%s: exit code %d: %s%s", wrong, code, stdout, stderr)
		}
	}
}

// What is no page is tried again, and costs nothing of what comes later.
func TestPollerOutlivesBadAnswers(t *testing.T) {
	t.Parallel()
	says(t, "F16", "F19")
	bad := map[string]http.HandlerFunc{
		"cut":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"items":[`) },
		"html":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `<html>502</html>`) },
		"shape":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"items":7}`) },
		"member": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"error":"no items"}`) },
		"status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"moved":  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat(" ", 10<<20)+`{"items":["x"]}`)
		},
		"many": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"items":[`+strings.Repeat(`"x",`, 100_000)+`"x"]}`)
		},
		"values": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"items":["x"],"others":[`+strings.Repeat("1,", 2_000_000)+`1]}`)
		},
		"bomb": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			for range 64 {
				_, _ = z.Write(make([]byte, 1<<20)) // the poller hangs up in the middle
			}
			_ = z.Close()
		},
	}
	var mu sync.Mutex
	answered := map[string]bool{}
	source := serveAPI(t, func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path[1:]
		mu.Lock()
		again := answered[name]
		answered[name] = true
		mu.Unlock()
		if !again {
			bad[name](w, r)
			return
		}
		_, _ = io.WriteString(w, `{"items":["good"]}`)
	})
	var docs []string
	for name := range bad {
		docs = append(docs, polling(name, fmt.Sprintf("  schedule: {every: 100ms}\n  http: {url: %s/%s}\n  items: {cel: body.items}\n  id: {cel: item}", source.URL, name)))
	}
	p := serve(t, docs...)
	for name := range bad {
		if got := each(t, taken(t, p.at("Mailbox", name, ""), 1), "data"); !slices.Equal(got, []string{"good"}) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if n := len(source.requests("/elsewhere")); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

// A process that is killed anywhere in its pages publishes each item, and each under one id.
func TestPollerKilledInTheMiddleOfItsPages(t *testing.T) {
	t.Parallel()
	says(t, "F16")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const pages, size = 12, 5
	asked := make(chan int, 1000)
	source := serveAPI(t, func(w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		select {
		case asked <- page:
		default:
		}
		var items []string
		for i := range size {
			items = append(items, fmt.Sprintf(`{"n":%d}`, page*size+i))
		}
		if page+1 < pages {
			w.Header().Set("Link", fmt.Sprintf(`<?page=%d>; rel=next`, page+1))
		}
		fmt.Fprintf(w, `{"items":[%s],"next":%s}`, strings.Join(items, ","), map[bool]string{true: strconv.Itoa(page + 1), false: "null"}[page+1 < pages])
	})
	docs := []string{broker}
	names := []string{"link-changed", "cursor-changed", "link-id", "link-cursor"}
	for i, spec := range []string{
		"  http: {url: %s/, pagination: {type: Link}}\n  items: {cel: body.items}\n  detect: Changed",
		"  http: {url: %s/, pagination: {type: Cursor, cursor: {cel: body.next}, param: page}}\n  items: {cel: body.items}\n  detect: Changed",
		"  http: {url: %s/, pagination: {type: Link}}\n  items: {cel: body.items}\n  id: {cel: string(item.n)}\n  detect: Changed",
		"  http: {url: %s/, pagination: {type: Link}, cursor: {cel: item.n, param: since}}\n  items: {cel: body.items}\n  detect: Cursor",
	} {
		docs = append(docs, polling(names[i], "  schedule: {every: 100ms}\n"+fmt.Sprintf(spec, source.URL)))
	}
	file, data := manifest(t, docs...), t.TempDir()
	for range 5 {
		p := start(t, "-f", file, "--data", data)
		for range 1 + random.IntN(2*pages) {
			select {
			case <-asked:
			case <-p.ended:
				t.Fatalf("waybill ended by itself: %s", p.stderr.String())
			case <-time.After(30 * time.Second):
				t.Fatal("no request for 30 s")
			}
		}
		p.signal(os.Kill)
		for len(asked) > 0 {
			<-asked
		}
	}
	p := start(t, "-f", file, "--data", data).awaitUp()
	for _, name := range names {
		box := p.at("Mailbox", name, "")
		all := taken(t, box, pages*size)
		all = append(all, receive(t, box, "max=100&wait=500ms")...)
		ids, items := map[string]string{}, map[string]string{}
		for _, l := range all {
			id, item := l.attribute(t, "id"), l.attribute(t, "data")
			if other, ok := items[item]; ok && other != id {
				t.Errorf("%s: %s came under the ids %s and %s", name, item, other, id)
			}
			ids[id], items[item] = item, id
		}
		if len(items) != pages*size || len(ids) != pages*size {
			t.Errorf("%s: %d items under %d ids, want %d", name, len(items), len(ids), pages*size)
		}
	}
}
