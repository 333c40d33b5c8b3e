package poll

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// A source gives the page at a position of a round whose cursor is since. v makes the request conditional.
type source func(ctx context.Context, at *position, since string, v validators) (*answer, error)

// An answer is one page.
type answer struct {
	page        expr.Page
	read        time.Time
	validators  validators
	links       []string // Link headers
	address     *url.URL
	notModified bool
	// rows of a database, and whether the page ends before they do.
	rows []record
	cut  bool
	// end: there is no such page, and the one before was the last.
	end bool
}

// errGone says that the server does not know the page: an address or a cursor that it gave has ended.
var errGone = errors.New("the next page is not there any more; the round begins again")

type httpSource struct {
	client    *outbound.Client
	namespace string
	plan      plan.PollHTTP
	base      *url.URL
	header    http.Header
}

func newHTTPSource(c *outbound.Client, namespace string, p plan.PollHTTP) (*httpSource, error) {
	base, err := c.URL(p.HTTPTarget)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	h := http.Header{"Accept": {"application/json, */*;q=0.5"}}
	given := map[string]bool{}
	for _, f := range p.Headers {
		if name := http.CanonicalHeaderKey(f.Name); given[name] {
			h.Add(name, f.Value)
		} else {
			h.Set(name, f.Value)
			given[name] = true
		}
	}
	return &httpSource{client: c, namespace: namespace, plan: p, base: base, header: h}, nil
}

func (s *httpSource) get(ctx context.Context, at *position, since string, v validators) (*answer, error) {
	u, err := s.address(at, since)
	if err != nil {
		return nil, err
	}
	r := outbound.Request{
		Method: http.MethodGet, URL: u, Header: http.Header{"Accept": {"*/*"}}, Gzip: true,
		Timeout: time.Duration(s.plan.Timeout), MaxBody: s.plan.MaxResponseBytes,
	}
	// What is meant for one server is not shown to another to which a link leads: keys stand in headers too.
	if sameOrigin(u, s.base) {
		r.Header, r.Auth, r.Namespace = s.header.Clone(), s.plan.Auth, s.namespace
	}
	if v.ETag != "" {
		r.Header.Set("If-None-Match", v.ETag)
	}
	if v.LastModified != "" {
		r.Header.Set("If-Modified-Since", v.LastModified)
	}
	response, err := s.client.Do(ctx, &r)
	if err != nil {
		return nil, err
	}
	a := &answer{
		read: time.Now(), links: response.Header.Values("Link"), address: u,
		validators: validators{ETag: response.Header.Get("ETag"), LastModified: response.Header.Get("Last-Modified")},
	}
	switch {
	case response.Status == http.StatusNotModified && v != (validators{}):
		a.notModified = true
		return a, nil
	case response.Status == http.StatusNotFound && at.Number > 0 && s.paged("Page"):
		a.end = true
		return a, nil
	}
	if err := response.Check(u.Host); err != nil {
		// A source that asks for a pause has it, whatever else it says: unlike a push, a poll holds nobody up.
		if f, ok := errors.AsType[*flow.Fault](err); ok {
			if after, asked := outbound.RetryAfter(response.Header, time.Now()); asked {
				f.After = after
			}
		}
		switch response.Status {
		case http.StatusBadRequest, http.StatusNotFound, http.StatusGone, http.StatusUnprocessableEntity:
			if at.Number > 0 {
				err = fmt.Errorf("%w: %w", errGone, err)
			}
		}
		return nil, err
	}
	a.page = expr.Page{Body: response.Body, Status: response.Status, ContentType: contentType(response), Headers: make(map[string]string, len(response.Header))}
	for name, values := range response.Header {
		a.page.Headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	return a, nil
}

func (s *httpSource) paged(kind string) bool {
	return s.plan.Pagination != nil && s.plan.Pagination.Type == kind
}

// address is that of the page at a position.
func (s *httpSource) address(at *position, since string) (*url.URL, error) {
	if at.Link != "" {
		u, err := s.base.Parse(at.Link)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			return nil, fmt.Errorf("%w: the server's link to it is no http or https address", errGone)
		}
		return u, nil
	}
	u := s.base
	if c := s.plan.Cursor; c != nil {
		if since == "" {
			since = c.Start
		}
		if since != "" {
			u = withParam(u, c.Param, since)
		}
	}
	switch {
	case s.paged("Page"):
		u = withParam(u, s.plan.Pagination.Param, strconv.Itoa(s.plan.Pagination.Start+at.Number))
	case at.Token != "":
		u = withParam(u, s.plan.Pagination.Param, at.Token)
	}
	return u, nil
}

// link is the address of the next page as it is kept: without the server's name where that is the one that is polled, so that it may move.
// "" when there is none, or when it leads to the page itself.
func (s *httpSource) link(a *answer) string {
	target, ok := nextLink(a.links)
	if !ok {
		return ""
	}
	u, err := a.address.Parse(target)
	if err != nil {
		return target // address refuses it, in words
	}
	u.Fragment, u.RawFragment = "", ""
	switch {
	case u.String() == a.address.String():
		return ""
	case u.User == nil && sameOrigin(u, s.base):
		// A path that begins with two slashes would be read as a server's name.
		if uri := u.RequestURI(); !strings.HasPrefix(uri, "//") {
			return uri
		}
	}
	return u.String()
}

// contentType is what the server says, but JSON that is sent as text is JSON.
func contentType(r *outbound.Response) string {
	said := r.Header.Get("Content-Type")
	if strings.HasPrefix(strings.ToLower(said), "text/plain") {
		if body := strings.TrimLeft(string(r.Body[:min(len(r.Body), 64)]), " \t\r\n"); strings.HasPrefix(body, "{") || strings.HasPrefix(body, "[") {
			return "application/json"
		}
	}
	return said
}
