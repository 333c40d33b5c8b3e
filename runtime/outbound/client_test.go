package outbound

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c := New(cfg)
	t.Cleanup(c.Close)
	return c
}

func serve(t *testing.T, h http.HandlerFunc) *url.URL {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return parse(t, s.URL)
}

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func event() *message.Message {
	return &message.Message{
		ID: "4711 ü", Source: "/shop/topics/orders", Type: "order.created", DataContentType: "application/json", Key: "k1",
		Attributes: []message.Attribute{{Name: "wbreplyto", Value: "_INBOX.secret"}, {Name: "host", Value: "evil"}, {Name: "wbreason", Value: "Terminal"}},
		Data:       []byte(`{"n":9007199254740993}`),
	}
}

func fault(t *testing.T, err error) *flow.Fault {
	t.Helper()
	var f *flow.Fault
	if !errors.As(err, &f) {
		t.Fatalf("%v (%T) is not a fault", err, err)
	}
	if len(f.Error()) > maxText {
		t.Errorf("the error has %d bytes", len(f.Error()))
	}
	return f
}

func TestSendIsBinaryMode(t *testing.T) {
	var got http.Header
	var body []byte
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "fine")
	})
	answer, err := newClient(t, Config{}).Send(t.Context(), &Target{URL: u}, event())
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != 200 || string(answer.Body) != "fine" || answer.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("answer: %d %q", answer.Status, answer.Body)
	}
	if string(body) != `{"n":9007199254740993}` {
		t.Errorf("body: %s", body)
	}
	for name, want := range map[string]string{
		"Ce-Id": "4711%20%C3%BC", "Idempotency-Key": "4711%20%C3%BC", "Ce-Partitionkey": "k1", "Content-Type": "application/json",
		"Ce-Host": "evil", "Ce-Wbreason": "Terminal", "Ce-Wbreplyto": "", "User-Agent": "waybill", "Accept-Encoding": "",
	} {
		if got.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Get(name), want)
		}
	}
}

func TestStatusDecidesTheBlame(t *testing.T) {
	var status atomic.Int64
	var retryAfter atomic.Value
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if v := retryAfter.Load().(string); v != "" {
			w.Header().Set("Retry-After", v)
		}
		if status.Load() == 302 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, "s3cret body")
	})
	u.Path = "/s3cret/path"
	c := newClient(t, Config{})
	for _, k := range []struct {
		status     int
		retryAfter string
		blame      flow.Blame
		after      time.Duration
	}{
		{400, "", flow.Message, 0}, {410, "", flow.Message, 0}, {413, "", flow.Message, 0}, {415, "", flow.Message, 0}, {422, "", flow.Message, 0},
		{401, "", flow.Address, 0}, {403, "", flow.Address, 0}, {404, "", flow.Address, 0}, {405, "", flow.Address, 0}, {421, "", flow.Address, 0},
		{429, "3", flow.Busy, 3 * time.Second}, {503, "0", flow.Busy, 0}, {503, "999999", flow.Busy, 15 * time.Minute},
		{429, "", flow.Destination, 0}, {503, "soon", flow.Destination, 0}, {500, "3", flow.Destination, 0},
		{302, "", flow.Destination, 0}, {304, "", flow.Destination, 0}, {402, "", flow.Destination, 0}, {408, "", flow.Destination, 0}, {409, "", flow.Destination, 0}, {425, "", flow.Destination, 0},
		{500, "", flow.Destination, 0}, {502, "", flow.Destination, 0}, {504, "", flow.Destination, 0}, {599, "", flow.Destination, 0},
	} {
		status.Store(int64(k.status))
		retryAfter.Store(k.retryAfter)
		_, err := c.Send(t.Context(), &Target{URL: u}, event())
		f := fault(t, err)
		if f.Blame != k.blame || f.After != k.after {
			t.Errorf("%d with Retry-After %q: blame %d after %s, want %d after %s", k.status, k.retryAfter, f.Blame, f.After, k.blame, k.after)
		}
		if s := f.Error(); !strings.Contains(s, u.Host+" answered") || strings.Contains(s, "s3cret") {
			t.Errorf("%d: %s", k.status, s)
		}
	}
	for _, ok := range []int{200, 201, 202, 204, 299} {
		status.Store(int64(ok))
		if _, err := c.Send(t.Context(), &Target{URL: u, Discard: true}, event()); err != nil {
			t.Errorf("%d: %v", ok, err)
		}
	}
}

// rawServer answers each connection with the bytes that handle writes.
func rawServer(t *testing.T, handle func(net.Conn)) *url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer conn.Close(); handle(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return parse(t, "http://"+l.Addr().String()+"/s3cret")
}

func readRequest(conn net.Conn) {
	buf := make([]byte, 64<<10)
	_, _ = conn.Read(buf)
}

func TestFailuresWithoutAnAnswer(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := parse(t, "http://"+closed.Addr().String())
	closed.Close()

	tlsServer := httptest.NewTLSServer(http.NotFoundHandler())
	tlsServer.Config.ErrorLog = nil
	defer tlsServer.Close()

	hang := rawServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	for name, k := range map[string]struct {
		url   *url.URL
		blame flow.Blame
		want  string
		hangs bool
	}{
		"refused":      {refused, flow.Unreachable, "connection refused", false},
		"no such name": {parse(t, "http://no-such-host.invalid/"), flow.Unreachable, "no-such-host.invalid: no connection", false},
		"unknown CA":   {parse(t, tlsServer.URL), flow.Unreachable, "certificate", false},
		"not TLS":      {parse(t, strings.Replace(hang.String(), "http:", "https:", 1)), flow.Unreachable, "no connection", true},
		"reset":        {rawServer(t, readRequest), flow.Cut, "before it answered", false},
		"timeout":      {hang, flow.Destination, "did not answer within", true},
		"not HTTP":     {rawServer(t, func(c net.Conn) { readRequest(c); _, _ = io.WriteString(c, "s3cret\r\n\r\n") }), flow.Destination, "is not HTTP", false},
		"cut off": {rawServer(t, func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ns3c")
		}), flow.Destination, "cut off", false},
		"endless headers": {rawServer(t, func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+strings.Repeat("X: s3cret\r\n", 20000))
		}), flow.Destination, "is not HTTP", false},
		"slow to complete": {rawServer(t, func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ns3c")
			_, _ = io.Copy(io.Discard, c)
		}), flow.Destination, "did not answer within", true},
	} {
		t.Run(name, func(t *testing.T) {
			timeout := 10 * time.Second
			if k.hangs {
				timeout = 200 * time.Millisecond
			}
			_, err := newClient(t, Config{}).Send(t.Context(), &Target{URL: k.url, Timeout: timeout}, event())
			f := fault(t, err)
			if f.Blame != k.blame || !strings.Contains(f.Error(), k.want) || strings.Contains(f.Error(), "s3c") {
				t.Errorf("blame %d: %v; want blame %d and %q", f.Blame, f, k.blame, k.want)
			}
		})
	}
}

func TestACancelledAttemptIsNoFault(t *testing.T) {
	arrived := make(chan struct{})
	u := rawServer(t, func(c net.Conn) { readRequest(c); close(arrived); _, _ = io.Copy(io.Discard, c) })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err := newClient(t, Config{}).Send(ctx, &Target{URL: u}, event())
	var f *flow.Fault
	if !errors.Is(err, context.Canceled) || errors.As(err, &f) {
		t.Errorf("%v (%T); want ctx's error and no fault", err, err)
	}
}

func TestADiscardedAnswerCannotFail(t *testing.T) {
	u := rawServer(t, func(c net.Conn) {
		readRequest(c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut")
	})
	if _, err := newClient(t, Config{}).Send(t.Context(), &Target{URL: u, Discard: true}, event()); err != nil {
		t.Errorf("%v; want the status to count", err)
	}
}

func TestABodyThatDoesNotEndHoldsNobodyUp(t *testing.T) {
	var status atomic.Int64
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(int(status.Load()))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	c := newClient(t, Config{})
	unwanted := func(http.Header) bool { return false }
	for name, k := range map[string]struct {
		status int64
		target Target
	}{
		"discarded": {200, Target{URL: u, Discard: true}}, "not wanted": {200, Target{URL: u, Want: unwanted}}, "refused": {500, Target{URL: u}},
	} {
		status.Store(k.status)
		began := time.Now()
		_, err := c.Send(t.Context(), &k.target, event())
		if took := time.Since(began); (err != nil) != (k.status == 500) || took > 10*time.Second {
			t.Errorf("%s: %v after %v", name, err, took)
		}
	}
}

func TestAnAddressIsShownWithoutSecrets(t *testing.T) {
	for raw, want := range map[string]string{
		"http://example.com":                         "http://example.com",
		"http://u:p@example.com:81/events?token=t#f": "http://example.com:81/events",
		"https://hooks.example.com/services/T0/" + strings.Repeat("x", 24) + "/end": "https://hooks.example.com/services/T0/…/end",
		"http://[::1]:80/a%2Fb": "http://[::1]:80/a%2Fb",
	} {
		if got := Shown(parse(t, raw)); got != want {
			t.Errorf("%s is shown as %s, want %s", raw, got, want)
		}
	}
	_, err := newClient(t, Config{}).Send(t.Context(), &Target{URL: parse(t, "http://127.0.0.1:1/here?secret=1")}, event())
	if f := fault(t, err); f.At != "http://127.0.0.1:1/here" {
		t.Errorf("at %q", f.At)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	zipped := func(n int) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(make([]byte, n))
		_ = z.Close()
		return b.Bytes()
	}
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/length":
			_, _ = w.Write(make([]byte, 1001))
		case "/chunked":
			for range 1001 {
				_, _ = w.Write([]byte("x"))
				w.(http.Flusher).Flush()
			}
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zipped(10 << 20))
		case "/exact":
			if r.Header.Get("Accept-Encoding") != "gzip" {
				w.WriteHeader(http.StatusNotAcceptable)
				return
			}
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zipped(1000))
		case "/liar":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "plain")
		case "/br":
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, "plain")
		}
	})
	c := newClient(t, Config{})
	get := func(path string) (*Response, error) {
		return c.Do(t.Context(), &Request{Method: "GET", URL: parse(t, u.String()+path), MaxBody: 1000, Gzip: true})
	}
	for path, want := range map[string]string{"/length": "more than 1000 bytes", "/chunked": "more than 1000 bytes", "/bomb": "more than 1000 bytes", "/liar": "gzip", "/br": "content encoding"} {
		_, err := get(path)
		if err == nil {
			t.Errorf("%s: no error; want %q", path, want)
			continue
		}
		if f := fault(t, err); f.Blame != flow.Destination || !strings.Contains(f.Error(), want) {
			t.Errorf("%s: %v; want %q", path, f, want)
		}
	}
	if answer, err := get("/exact"); err != nil || len(answer.Body) != 1000 {
		t.Errorf("at the limit: %v", err)
	}
}

func TestAuthFollowsRotation(t *testing.T) {
	var got http.Header
	u := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Clone() })
	var secrets secret.Memory
	secrets.Put("shop", "api", map[string][]byte{"token": []byte("one\n"), "username": []byte("me"), "password": []byte("pä:ss\n"), "bad": []byte("a\x01b"), "lines": []byte("s3cret\nolder\n")})
	c := newClient(t, Config{Secrets: &secrets})
	ref := func(key string) plan.SecretRef { return plan.SecretRef{Name: "api", Key: key} }
	token, missing, bad, lines := ref("token"), ref("nothing"), ref("bad"), ref("lines")
	send := func(a plan.Auth) error {
		_, err := c.Send(t.Context(), &Target{URL: u, Namespace: "shop", Auth: &a}, event())
		return err
	}
	for _, k := range []struct {
		auth   plan.Auth
		header string
		want   string
	}{
		{plan.Auth{Bearer: &token}, "Authorization", "Bearer one"},
		{plan.Auth{Basic: &plan.BasicAuth{Username: ref("username"), Password: ref("password")}}, "Authorization", "Basic bWU6cMOkOnNz"},
		{plan.Auth{Header: &plan.HeaderAuth{Name: "X-Api-Key", Value: token}}, "X-Api-Key", "one"},
	} {
		if err := send(k.auth); err != nil || got.Get(k.header) != k.want {
			t.Errorf("%s: %q, %v; want %q", k.header, got.Get(k.header), err, k.want)
		}
	}
	for _, a := range []plan.Auth{
		{Bearer: &missing}, {Header: &plan.HeaderAuth{Name: "X", Value: bad}}, {Bearer: &lines}, {Header: &plan.HeaderAuth{Name: "X", Value: lines}},
		{Basic: &plan.BasicAuth{Username: ref("username"), Password: lines}}, {Basic: &plan.BasicAuth{Username: bad, Password: ref("password")}},
	} {
		f := fault(t, send(a))
		if f.Blame != flow.Unreachable || !strings.Contains(f.Error(), "secret shop/api") || !strings.Contains(f.Error(), "key ") || strings.ContainsAny(f.Error(), "\x01") || strings.Contains(f.Error(), "s3cret") {
			t.Errorf("blame %d: %v; want the Secret named, and nothing counted", f.Blame, f)
		}
	}
	secrets.Put("shop", "api", map[string][]byte{"token": []byte("two")})
	if err := send(plan.Auth{Bearer: &token}); err != nil || got.Get("Authorization") != "Bearer two" {
		t.Errorf("after rotation: %q, %v", got.Get("Authorization"), err)
	}
}

// A request on a kept-alive connection that is closed while it is on its way may have been handled: it is sent again, but not with Once.
func TestOnceIsNeverSentAgain(t *testing.T) {
	for _, once := range []bool{false, true} {
		var requests atomic.Int64
		u := rawServer(t, func(c net.Conn) {
			for first := true; ; first = false {
				buf := make([]byte, 64<<10)
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				if !bytes.Contains(bytes.ToLower(buf[:n]), []byte("\r\nidempotency-key: ")) {
					t.Error("no Idempotency-Key")
				}
				requests.Add(1)
				if !first {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			}
		})
		c := newClient(t, Config{})
		target := &Target{URL: u, Once: once}
		m := event()
		m.Data = nil
		if _, err := c.Send(t.Context(), target, m); err != nil {
			t.Fatal(err)
		}
		_, err := c.Send(t.Context(), target, m)
		if once {
			if f := fault(t, err); f.Blame != flow.Cut || requests.Load() != 2 {
				t.Errorf("once: %v after %d requests; want the second to fail", err, requests.Load())
			}
		} else if err != nil || requests.Load() != 3 {
			t.Errorf("%v after %d requests; want the second sent again on a new connection", err, requests.Load())
		}
	}
}

func TestConnectionsAreReused(t *testing.T) {
	var opened atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(500)
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 20<<10))
	}))
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	c := newClient(t, Config{})
	const workers, calls = 64, 20
	var wg sync.WaitGroup
	for i := range workers {
		target := &Target{URL: parse(t, s.URL+[]string{"/good", "/bad"}[i%2]), Discard: true}
		wg.Go(func() {
			for range calls {
				if _, err := c.Send(context.Background(), target, event()); (err != nil) != (target.URL.Path == "/bad") {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// A dial that was begun while a connection came free is kept too.
	if n := opened.Load(); n > 2*workers {
		t.Errorf("%d connections for %d workers", n, workers)
	}
}

func TestURL(t *testing.T) {
	c := newClient(t, Config{})
	if u, err := c.URL(plan.HTTPTarget{Service: &plan.Service{Name: "billing", Namespace: "shop", Port: 8080, Path: "/events"}}); err != nil || u.String() != "http://billing.shop.svc:8080/events" {
		t.Errorf("service: %v, %v", u, err)
	}
	local := newClient(t, Config{Service: func(plan.Service) (string, error) { return "", errors.New("add --service") }})
	if _, err := local.URL(plan.HTTPTarget{Service: &plan.Service{}}); err == nil || err.Error() != "add --service" {
		t.Errorf("unmapped service: %v", err)
	}
	for _, bad := range []string{"", "billing", "ftp://host/", "http:///path", "http://me:s3cret@host/", "http://ho st/?s3cret", "http://host:s3cret/"} {
		if u, err := c.URL(plan.HTTPTarget{URL: bad}); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v, %v; want an error without the URL's secrets", bad, u, err)
		}
	}
}

func TestErrorTextsAreCut(t *testing.T) {
	long := errors.New(strings.Repeat("ü", maxText))
	err := cut(long)
	if n := len(err.Error()); n > maxText || n < maxText-8 || !strings.HasSuffix(err.Error(), "ü…") || !errors.Is(err, long) {
		t.Errorf("%d bytes, ending %q", n, err.Error()[n-8:])
	}
}
