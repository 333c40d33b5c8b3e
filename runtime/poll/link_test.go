package poll

import (
	"net/url"
	"strings"
	"testing"
)

func TestNextLink(t *testing.T) {
	for header, want := range map[string]string{
		`<https://h/p?page=2>; rel="next"`:                                         "https://h/p?page=2",
		`<a>; rel="prev", <b>; rel=next`:                                           "b",
		`<a>; rel="prev last", <b?x=1,2;3>; title="a \"b\", <c>; rel=x"; REL=NeXt`: "b?x=1,2;3",
		`<b>; rel="last next"`:                                                     "b",
		`<b>; rel=prev; rel=next`:                                                  "", // only the first rel counts
		`<b>; rel=next; anchor="#x"`:                                               "",
		`<b>;rel=next;`:                                                            "b",
		`, ,<a>;rel=first ,, <b> ; rel = "next" `:                                  "b",
		`<b>; rev=next`:                                                            "",
		`<b`:                                                                       "",
		`nonsense, <b>; rel=next`:                                                  "b",
		`<b>; rel="next`:                                                           "b",
		`<>; rel=next`:                                                             "",
		``:                                                                         "",
	} {
		if got, _ := nextLink([]string{"<x>; rel=self", header}); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
}

func FuzzNextLink(f *testing.F) {
	f.Add(`<https://h/p?page=2>; rel="next"`)
	f.Add(`<a>; rel="prev last", <b>; title="a \"b\", <c>"; REL=NeXt`)
	f.Fuzz(func(t *testing.T, header string) {
		target, ok := nextLink([]string{header})
		if target != "" && !ok || !strings.Contains(header, target) || strings.ContainsAny(target, ">") {
			t.Errorf("%q of %q", target, header)
		}
		// A link in front of, or behind, what cannot be read stays.
		if got, _ := nextLink([]string{`<mine>; rel="next", ` + header}); got != "mine" {
			t.Errorf("in front: %q", got)
		}
		if got, _ := nextLink([]string{header, `<mine>; rel="next"`}); !ok && got != "mine" {
			t.Errorf("behind: %q", got)
		}
	})
}

func TestSameOrigin(t *testing.T) {
	for pair, want := range map[[2]string]bool{
		{"https://h/a", "https://H:443/b"}: true, {"http://h/", "http://h:80/"}: true,
		{"http://h/", "https://h/"}: false, {"https://h/", "https://h.evil/"}: false, {"https://h/", "https://h:8443/"}: false,
	} {
		a, _ := url.Parse(pair[0])
		b, _ := url.Parse(pair[1])
		if sameOrigin(a, b) != want {
			t.Errorf("%v: want %v", pair, want)
		}
	}
}

func TestWithParamLeavesTheRest(t *testing.T) {
	u, _ := url.Parse("https://h/p?b=x%20y&a=1;2&page=1&b=%zz")
	if got := withParam(u, "page", "2 &").String(); got != "https://h/p?b=x%20y&a=1;2&b=%zz&page=2+%26" {
		t.Error(got)
	}
	if u.Query().Get("page") != "1" {
		t.Error("the address itself was changed")
	}
}
