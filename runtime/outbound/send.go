package outbound

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/message/cehttp"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// Target is where messages are sent and on which terms.
type Target struct {
	URL       *url.URL
	Namespace string
	Auth      *plan.Auth
	Timeout   time.Duration
	// Discard, Want, Once and MaxBody as in Request.
	Discard, Once bool
	Want          func(http.Header) bool
	MaxBody       int
}

// Target resolves a planned call. namespace is that of its secrets.
func (c *Client) Target(namespace string, call plan.HTTPCall) (*Target, error) {
	u, err := c.URL(call.HTTPTarget)
	if err != nil {
		return nil, err
	}
	return &Target{URL: u, Namespace: namespace, Auth: call.Auth, Timeout: time.Duration(call.Timeout)}, nil
}

// Send posts m in the binary mode of CloudEvents: its attributes as headers, its data as they are, and its id as Idempotency-Key. The
// answer is a 2xx one. The error is a *flow.Fault, or ctx's own when that has ended.
func (c *Client) Send(ctx context.Context, t *Target, m *message.Message) (*Response, error) {
	h := make(http.Header, 12+len(m.Attributes))
	cehttp.WriteHeader(h, m)
	if t.Once {
		// Under its canonical name the key tells the transport that it may send the request again.
		h["idempotency-key"] = h["Ce-Id"]
	} else {
		h["Idempotency-Key"] = h["Ce-Id"]
	}
	r := Request{
		Method: http.MethodPost, URL: t.URL, Header: h, Body: m.Data, Namespace: t.Namespace, Auth: t.Auth,
		Timeout: t.Timeout, MaxBody: t.MaxBody, Discard: t.Discard, Want: t.Want, Once: t.Once,
	}
	answer, err := c.Do(ctx, &r)
	if err == nil {
		err = answer.Check(t.URL.Host)
	}
	if err == nil {
		return answer, nil
	}
	if f, ok := errors.AsType[*flow.Fault](err); ok {
		f.After, f.At = min(f.After, maxPause), Shown(t.URL)
	}
	return nil, err
}

// longSegment of a path is taken for a secret: incoming webhooks have their token there.
const longSegment = 20

// Shown is an address as those may see it who run a flow: without credentials, query and fragment, and with … for parts of the path that
// are as long as a token.
func Shown(u *url.URL) string {
	segments := strings.Split(u.EscapedPath(), "/")
	for i, s := range segments {
		if len(s) >= longSegment {
			segments[i] = "…"
		}
	}
	return u.Scheme + "://" + u.Host + strings.Join(segments, "/")
}
