package poll

import (
	"net/url"
	"slices"
	"testing"
)

// Whatever a cursor is, the server is given exactly that, once, and the other parameters stay as they were.
func FuzzWithParam(f *testing.F) {
	f.Add("b=x%20y&a=1;2&page=1&b=%zz", "page", "2 &")
	f.Add("", "cursor", "=%&#\x00\xff")
	f.Add("pa%67e=1&&PAGE=2", "page", "")
	f.Fuzz(func(t *testing.T, query, name, value string) {
		u, err := url.Parse("https://h/p")
		if err != nil {
			t.Fatal(err)
		}
		u.RawQuery = query
		out := withParam(u, name, value)
		back, err := url.ParseQuery(out.RawQuery)
		if got := back[name]; !slices.Equal(got, []string{value}) && err == nil {
			t.Fatalf("%q of %q: the server is given %q", name, out.RawQuery, got)
		}
		if again := withParam(out, name, value); again.RawQuery != out.RawQuery {
			t.Fatalf("%q became %q", out.RawQuery, again.RawQuery)
		}
		before, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		for other, values := range before {
			if other != name && !slices.Equal(back[other], values) {
				t.Fatalf("%q was %q and is %q", other, values, back[other])
			}
		}
		if u.RawQuery != query {
			t.Fatal("the address itself was changed")
		}
	})
}
