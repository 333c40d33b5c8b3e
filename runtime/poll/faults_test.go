package poll

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
)

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

// Else each of them would be a change of the other, at every poll.
func TestTwoItemsOfOneIDAreNotChangesOfEachOther(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body"), ID: cel("item.id")})
	r.handler = respond(`[{"id":"a"},{"id":"b","n":1},{"id":"b","n":2},{"id":"a"}]`)
	if f := r.once(ItemRefused); !strings.Contains(f.Error(), "item 2: id: an item before it") {
		t.Error(f)
	}
	r.want(data, `{"id":"a"}`, `{"id":"b","n":1}`)
	r.once(ItemRefused)
	r.want(data)
	r.plan.ID = cel(`item.id + string(item.?n.orValue(0))`)
	r.restart()
	r.once("")
	r.want(data, `{"id":"a"}`, `{"id":"b","n":1}`, `{"id":"b","n":2}`)
	r.once("")
	r.want(data)
}

// What is passed over for its twin is not published: only what becomes of the twin counts.
func TestAnItemThatStandsTwiceOnAPageIsPublishedOnce(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body"), ID: cel("item.id")})
	r.handler = respond(`[{"id":"a"},{"id":"a"}]`)
	r.out.refuse = func(*message.Message) error { return errors.New("the broker is away") }
	r.once(BrokerFailed)
	r.out.refuse = nil
	r.once("")
	r.want(data, `{"id":"a"}`)

	r = newRig(t, plan.Poller{Detect: changed, Items: cel("body"), ID: cel("item.id"), MaxMessageBytes: 12})
	r.handler = respond(`[{"id":"aaaaaaaa"},{"id":"aaaaaaaa"}]`)
	r.once(ItemRefused)
	r.once(ItemRefused)
	r.plan.MaxMessageBytes = 0
	r.restart()
	r.once("")
	r.want(data, `{"id":"aaaaaaaa"}`)
}

func TestWhatTheTopicsSchemaRefusesIsNotPublished(t *testing.T) {
	r := newRig(t, plan.Poller{Detect: changed, Items: cel("body"), ID: cel("string(item.id)"), Schema: json.RawMessage(`{"properties":{"id":{"type":"integer"}}}`)})
	r.handler = respond(`[{"id":1},{"id":"s3cret"}]`)
	f := r.once(ItemRefused)
	r.want(data, `{"id":1}`)
	if !strings.Contains(f.Error(), "item 1") || !strings.Contains(f.Error(), "/id: is a string, must be integer") || strings.Contains(f.Error(), "s3cret") {
		t.Error(f)
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
	for code, want := range map[int]Reason{500: SourceFailed, 404: SourceRefused, 302: SourceFailed, 429: SourceBusy, 503: SourceBusy} {
		r.handler = status(code, "Retry-After", "999999999")
		if f := r.once(want); f.after != 24*time.Hour {
			t.Errorf("%d: pause: %s", code, f.after)
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
		{"", ` {"c":1}`, "application/json"}, {"", "42", "application/json"}, {"", "\xff\xfe", "application/octet-stream"}, {"", `{"cut`, "application/octet-stream"}, {"", "hello", "application/octet-stream"},
	} {
		r.handler = func(w http.ResponseWriter, _ *http.Request) {
			if w.Header()["Content-Type"] = nil; k.kind != "" { // nil: the server guesses none
				w.Header().Set("Content-Type", k.kind)
			}
			_, _ = io.WriteString(w, k.body)
		}
		r.once("")
		if len(r.out.stored) != 1 || r.out.stored[0].DataContentType != k.want || string(r.out.stored[0].Data) != k.body {
			t.Errorf("%s %q: %+v", k.kind, k.body, r.out.stored)
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
