// Package outbound is how Waybill calls other people's HTTP servers: subscribers, http steps, polled sources. There is one client, with one
// pool of connections, for all of them. It follows no redirect, bounds time and size of every answer, refuses addresses that a manifest
// must not reach, and turns what went wrong into a *flow.Fault that says whose fault it was. Its errors name the host and the status, never
// a path, a payload or a secret.
package outbound

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

const (
	// DefaultMaxBody is how much of an answer is read where a request does not say.
	DefaultMaxBody = 1 << 20
	// DefaultTimeout of a call whose plan has none.
	DefaultTimeout = 30 * time.Second

	dialTimeout = 10 * time.Second
	idleTimeout = 90 * time.Second
	// drainBytes of an answer that nobody wants are read, for drainTime, so that the connection can be used again.
	drainBytes = 64 << 10
	drainTime  = time.Second
)

// Config is what a Client needs.
type Config struct {
	// Secrets gives what auth names. nil: every request with auth fails.
	Secrets secret.Store
	// Service turns a Service into a URL; nil: ClusterService.
	Service func(plan.Service) (string, error)
	// Guard refuses addresses at dial time, after DNS: a name may point anywhere. nil refuses none, as on a laptop.
	Guard *Guard
	// IdleConnsPerHost are kept open to one host; 0: 1024. Below the number of calls at once, connections are opened and closed all the time.
	IdleConnsPerHost int
	// Wrap, where set, puts something around what sends the requests: for traces.
	Wrap func(http.RoundTripper) http.RoundTripper
}

// Client calls HTTP servers. It is safe for concurrent use; a process has one.
type Client struct {
	transport *http.Transport
	send      http.RoundTripper // transport, wrapped
	secrets   secret.Store
	service   func(plan.Service) (string, error)
}

// New makes a Client. Proxies named in the environment are not used: behind one the guard would not see whom a request goes to.
func New(cfg Config) *Client {
	if cfg.IdleConnsPerHost == 0 {
		cfg.IdleConnsPerHost = 1024
	}
	if cfg.Service == nil {
		cfg.Service = ClusterService
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	if cfg.Guard != nil {
		dialer.ControlContext = cfg.Guard.control
	}
	c := &Client{
		secrets: cfg.Secrets,
		service: cfg.Service,
		transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    dialTimeout,
			MaxIdleConnsPerHost:    cfg.IdleConnsPerHost,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true, // what was asked for is decoded here, within a bound
			ForceAttemptHTTP2:      true,
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 10 * time.Second},
		},
	}
	if c.send = c.transport; cfg.Wrap != nil {
		c.send = cfg.Wrap(c.send)
	}
	return c
}

// Close closes the connections that are idle. Calls in flight go on.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Dial opens a connection to an address that may be called, for protocols other than HTTP.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return c.transport.DialContext(ctx, network, address)
}

// ClusterService is the address of a Service in its cluster.
func ClusterService(s plan.Service) (string, error) {
	return fmt.Sprintf("http://%s.%s.svc:%d%s", s.Name, s.Namespace, s.Port, s.Path), nil
}

// URL resolves t: its URL, or that of its Service. What it returns is http or https and has a host.
func (c *Client) URL(t plan.HTTPTarget) (*url.URL, error) {
	raw := t.URL
	if t.Service != nil {
		var err error
		if raw, err = c.service(*t.Service); err != nil {
			return nil, err
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("not a URL; write http://HOST/PATH or https://HOST/PATH") // the parser's words repeat it, secrets included
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("the URL's scheme is %q; only http and https are called", u.Scheme)
	case u.Hostname() == "":
		return nil, fmt.Errorf("the URL has no host; write %s://HOST/PATH", u.Scheme)
	case u.User != nil:
		return nil, fmt.Errorf("the URL of %s holds credentials; put them into a Secret and name it in auth", u.Host)
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// Request is one call.
type Request struct {
	Method string
	URL    *url.URL
	Header http.Header // Do adds to it
	Body   []byte
	// Auth names secrets of Namespace.
	Namespace string
	Auth      *plan.Auth
	Timeout   time.Duration // of the whole call; 0: DefaultTimeout
	MaxBody   int           // bytes of the answer, after decompression; 0: DefaultMaxBody
	// Gzip asks for a compressed answer.
	Gzip bool
	// Discard: the answer's body is of no interest; its size and its end do not matter either.
	Discard bool
	// Want, where set, says by the header of a 2xx answer whether its body is of interest; if not, it is discarded.
	Want func(http.Header) bool
	// Once: the request is never sent twice, not even when a kept-alive connection turns out to be closed.
	Once bool
}

// Response is a complete answer. Body is empty unless Status is 2xx and the body was wanted.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends r and returns the answer, whatever its status; Check says what that means. Without a complete answer the error is a *flow.Fault,
// or ctx's own when that has ended.
func (c *Client) Do(ctx context.Context, r *Request) (*Response, error) {
	timeout, maxBody := r.Timeout, r.MaxBody
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	if maxBody <= 0 {
		maxBody = DefaultMaxBody
	}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if err := c.authorize(r.Header, r.Namespace, r.Auth); err != nil {
		return nil, &flow.Fault{Blame: flow.Unreachable, Err: cut(fmt.Errorf("%s: not called: %w", r.URL.Host, err))}
	}
	if r.Gzip {
		r.Header.Set("Accept-Encoding", "gzip")
	}
	if r.Header["User-Agent"] == nil {
		r.Header["User-Agent"] = userAgent
	}

	var seen progress
	call, cancel := context.WithTimeout(httptrace.WithClientTrace(ctx, seen.trace()), timeout)
	defer cancel()
	answer, err := c.send.RoundTrip(r.http(call))
	if err != nil {
		return nil, seen.fault(ctx, call, r, timeout, err)
	}
	defer answer.Body.Close()
	out := &Response{Status: answer.StatusCode, Header: answer.Header}
	if r.Discard || !out.ok() || r.Want != nil && !r.Want(answer.Header) {
		if answer.Body != http.NoBody {
			// Whatever goes wrong here, the status has been said: a body that does not end holds nobody up.
			enough := time.AfterFunc(drainTime, cancel)
			_, _ = io.CopyN(io.Discard, answer.Body, drainBytes)
			enough.Stop()
		}
		return out, nil
	}
	if out.Body, err = readBody(answer, maxBody); err != nil {
		return nil, seen.fault(ctx, call, r, timeout, err)
	}
	return out, nil
}

var userAgent = []string{"waybill"}

func (r *Request) http(ctx context.Context) *http.Request {
	h := &http.Request{Method: r.Method, URL: r.URL, Host: r.URL.Host, Header: r.Header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if len(r.Body) > 0 {
		body := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.Body)), nil }
		h.Body, _ = body()
		h.GetBody = body
		h.ContentLength = int64(len(r.Body))
	}
	return h.WithContext(ctx)
}

// readBody reads and decodes an answer. Its errors may be shown: they hold nothing of the answer.
func readBody(answer *http.Response, limit int) ([]byte, error) {
	var from io.Reader = answer.Body
	size := answer.ContentLength
	switch encoding := strings.ToLower(answer.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(answer.Body)
		if err != nil {
			return nil, answerError{problem: "the answer is said to be gzip and is not, or is cut off"}
		}
		from, size = z, -1
		answer.Header.Del("Content-Encoding")
	default:
		return nil, answerError{problem: "the answer has a content encoding that was not asked for"}
	}
	if size > int64(limit) {
		return nil, tooLarge(limit)
	}
	var buf bytes.Buffer
	if size > 0 {
		buf.Grow(int(size) + bytes.MinRead)
	}
	if _, err := buf.ReadFrom(io.LimitReader(from, int64(limit)+1)); err != nil {
		return nil, err
	}
	if buf.Len() > limit {
		return nil, tooLarge(limit)
	}
	return buf.Bytes(), nil
}

// An answerError is about an answer that came, and may be shown.
type answerError struct {
	problem string
	is      error // nil: nobody need tell it from others
}

func (e answerError) Error() string { return e.problem }
func (e answerError) Unwrap() error { return e.is }

// ErrTooLarge says that an answer has more bytes than are read of it.
var ErrTooLarge = errors.New("the answer is too large")

func tooLarge(limit int) error {
	return answerError{fmt.Sprintf("the answer has more than %d bytes", limit), ErrTooLarge}
}

// progress is how far a call has come: it decides whose fault its failure is. The transport sets it from its own goroutines.
type progress struct{ connected, answered atomic.Bool }

func (p *progress) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { p.connected.Store(true) },
		GotFirstResponseByte: func() { p.answered.Store(true) },
	}
}
