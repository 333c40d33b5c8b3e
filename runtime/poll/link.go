package poll

import (
	"net/url"
	"strings"
)

// nextLink finds the target of the first link with the relation "next" in Link headers, as RFC 8288 writes them.
func nextLink(headers []string) (target string, ok bool) {
	for _, h := range headers {
		for h != "" {
			var l link
			l, h = readLink(h)
			if l.next {
				return l.target, true
			}
		}
	}
	return "", false
}

type link struct {
	target string
	next   bool
}

// readLink reads one link-value and gives what follows it. Of what is no link, all up to the next comma is left out.
func readLink(s string) (l link, rest string) {
	s = strings.TrimLeft(s, " \t,")
	if !strings.HasPrefix(s, "<") {
		_, rest, _ = strings.Cut(s, ",")
		return l, rest
	}
	target, s, closed := strings.Cut(s[1:], ">")
	if !closed {
		return l, ""
	}
	l.target = strings.TrimSpace(target)
	hasRel, elsewhere := false, false
	for {
		s = strings.TrimLeft(s, " \t")
		if !strings.HasPrefix(s, ";") {
			break
		}
		var name, value string
		name, value, s = readParam(s[1:])
		switch {
		case strings.EqualFold(name, "anchor"):
			elsewhere = true // a link between other documents
		case strings.EqualFold(name, "rel") && !hasRel: // only the first one counts
			hasRel = true
			for rel := range strings.FieldsSeq(value) {
				l.next = l.next || strings.EqualFold(rel, "next")
			}
		}
	}
	l.next = l.next && !elsewhere
	_, rest, _ = strings.Cut(s, ",")
	return l, rest
}

// readParam reads name, name=token or name="quoted" and gives what follows.
func readParam(s string) (name, value, rest string) {
	s = strings.TrimLeft(s, " \t")
	n := strings.IndexAny(s, "=;, \t")
	if n < 0 {
		return s, "", ""
	}
	name, s = s[:n], strings.TrimLeft(s[n:], " \t")
	if !strings.HasPrefix(s, "=") {
		return name, "", s
	}
	s = strings.TrimLeft(s[1:], " \t")
	if !strings.HasPrefix(s, `"`) {
		if n = strings.IndexAny(s, ";, \t"); n < 0 {
			n = len(s)
		}
		return name, s[:n], s[n:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return name, b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return name, b.String(), "" // never closed
}

// sameOrigin reports whether a and b have scheme, host and port in common: credentials may go from one to the other.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// withParam sets a query parameter and leaves the rest of the query as it is written.
func withParam(u *url.URL, name, value string) *url.URL {
	out := *u
	var kept []string
	for part := range strings.SplitSeq(u.RawQuery, "&") {
		key, _, _ := strings.Cut(part, "=")
		if decoded, err := url.QueryUnescape(key); part != "" && (err != nil || decoded != name) {
			kept = append(kept, part)
		}
	}
	kept = append(kept, url.QueryEscape(name)+"="+url.QueryEscape(value))
	out.RawQuery = strings.Join(kept, "&")
	return &out
}
