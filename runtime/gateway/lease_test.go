package gateway

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/message"
)

func testSealer(mailbox string, keys ...string) *sealer {
	return &sealer{mailbox: []byte(mailbox), keys: func() ([][]byte, error) {
		var ks [][]byte
		for _, k := range keys {
			ks = append(ks, []byte(k))
		}
		return ks, nil
	}}
}

func sealed(t testing.TB, s *sealer, l *lease) string {
	t.Helper()
	as, err := s.aeads()
	if err != nil {
		t.Fatal(err)
	}
	return s.seal(as[0], l)
}

func opened(s *sealer, token string) (lease, error) {
	as, err := s.aeads()
	if err != nil {
		return lease{}, err
	}
	return s.open(as, token)
}

func TestLeaseTokenRoundTrip(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_123)
	m := message.Message{ID: "1", Source: "/s", Type: "t", Attributes: []message.Attribute{{Name: message.ReplyTo, Value: "inbox"}, {Name: message.Correlation, Value: "r1"}}}
	l := newLease(&m, []byte("$JS.ACK.handle"), 3, now, now.Add(time.Minute))
	s := testSealer("a", "0123456789abcdef")
	got, err := opened(s, sealed(t, s, &l))
	if err != nil || fmt.Sprint(got) != fmt.Sprint(l) {
		t.Fatalf("got  %v, %v\nwant %v", got, err, l)
	}
	if r := got.request(); r.ID != "1" || r.Attribute(message.ReplyTo) != "inbox" || r.Attribute(message.Correlation) != "r1" {
		t.Fatalf("got %v", r)
	}
	if first, second := sealed(t, s, &l), sealed(t, s, &l); first == second {
		t.Fatal("two tokens are alike: the nonce is not random")
	}
}

// One lease has one spelling: base64 leaves bits of the last character unused, and its decoder passes over line breaks.
func TestALeaseTokenHasOneSpelling(t *testing.T) {
	s := testSealer("a", "0123456789abcdef")
	l := newLease(&message.Message{}, []byte("handle"), 1, time.Now(), time.Now())
	for len(sealed(t, s, &l))%4 == 0 {
		l.handle = append(l.handle, 'x')
	}
	token := sealed(t, s, &l)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(token) - 1
	same := alphabet[strings.IndexByte(alphabet, token[last])^1]
	for _, other := range []string{token[:last] + string(same), token[:9] + "\n" + token[9:], token + "\r\n", token + "="} {
		if _, err := opened(s, other); err == nil {
			t.Errorf("%q is taken for %q", other, token)
		}
	}
	if _, err := opened(s, token); err != nil {
		t.Error(err)
	}
}

func TestLeaseTokenOpensOnlyWhereItBelongs(t *testing.T) {
	l := newLease(&message.Message{}, []byte("handle"), 1, time.Now(), time.Now())
	token := sealed(t, testSealer("a", "0123456789abcdef"), &l)
	for name, c := range map[string]struct {
		s  *sealer
		ok bool
	}{
		"the same":                {testSealer("a", "0123456789abcdef"), true},
		"a second key":            {testSealer("a", "another key of 16", "0123456789abcdef"), true},
		"another mailbox":         {testSealer("b", "0123456789abcdef"), false},
		"another key":             {testSealer("a", "another key of 16"), false},
		"a mailbox's longer name": {testSealer("ab", "0123456789abcdef"), false},
	} {
		if _, err := opened(c.s, token); (err == nil) != c.ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := opened(testSealer("a"), token); err == nil {
		t.Error("no key at all")
	}
	if _, err := opened(testSealer("a", "short"), token); err == nil {
		t.Error("a short key")
	}
}

func FuzzLeaseToken(f *testing.F) {
	s := testSealer("a", "0123456789abcdef")
	l := newLease(&message.Message{}, []byte("handle"), 1, time.Now(), time.Now())
	raw, err := base64.RawURLEncoding.DecodeString(sealed(f, s, &l))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(10, []byte("x"))
	f.Add(len(raw), []byte(""))
	f.Fuzz(func(t *testing.T, at int, patch []byte) { // a good token with some of its bytes replaced, or cut off
		at = min(max(at, 0), len(raw))
		forged := append(slices.Clone(raw[:at]), patch...)
		if end := at + len(patch); end < len(raw) && len(patch) > 0 {
			forged = append(forged, raw[end:]...)
		}
		_, err := opened(s, base64.RawURLEncoding.EncodeToString(forged))
		if (err == nil) != bytes.Equal(forged, raw) || err != nil && !errors.Is(err, errNoLease) {
			t.Fatalf("%d bytes replaced at %d: %v", len(patch), at, err)
		}
	})
}

func FuzzDecodeLease(f *testing.F) {
	f.Add([]byte("12345678\x02\x04\x02\x01h\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, plain []byte) {
		if _, err := decodeLease(plain); err != nil && !errors.Is(err, errNoLease) {
			t.Fatal(err)
		}
	})
}

func FuzzParsePlace(f *testing.F) {
	f.Add(place{{Claim: "", Position: 17}, {Claim: "3", Position: 1 << 60}}.id("orders"))
	f.Fuzz(func(t *testing.T, id string) {
		p, ok := parsePlace(id, "orders")
		if !ok {
			return
		}
		if back, ok := parsePlace(p.id("orders"), "orders"); !ok || fmt.Sprint(back) != fmt.Sprint(p) {
			t.Fatalf("got %v, want %v", back, p)
		}
		if _, ok := parsePlace(p.id("orders"), "other"); ok {
			t.Fatal("an id of another topic was taken")
		}
	})
}

func TestLeasebookForgetsWhatIsOver(t *testing.T) {
	b := leasebook{notes: map[[8]byte]*note{}}
	now := time.Now()
	for range 100 {
		l := newLease(&message.Message{}, nil, 1, now, now.Add(time.Second))
		b.keep(b.note(&l, now), &message.Message{Data: make([]byte, 1000)})
	}
	if b.bytes != 100_000 || len(b.notes) != 100 {
		t.Fatalf("%d bytes, %d notes", b.bytes, len(b.notes))
	}
	later := now.Add(time.Hour)
	l := newLease(&message.Message{}, nil, 1, later, later.Add(time.Second))
	if n := b.note(&l, later); b.bytes != 0 || len(b.notes) != 1 || b.note(&l, later) != n {
		t.Fatalf("%d bytes, %d notes", b.bytes, len(b.notes))
	}
}

func TestReadPrefer(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  preference
		ok    bool
	}{
		{nil, preference{}, true},
		{[]string{"respond-async"}, preference{async: true}, true},
		{[]string{"Respond-Async, wait=10"}, preference{async: true, wait: 10 * time.Second}, true},
		{[]string{"handling=lenient", `wait="7"; x=y`}, preference{wait: 7 * time.Second}, true},
		{[]string{"wait=99999999999"}, preference{wait: maxWait}, true},
		{[]string{"wait=99999999999999999999"}, preference{wait: maxWait}, true},
		{[]string{"wait=60"}, preference{wait: maxWait}, true},
		{[]string{"wait=5, wait=9", "wait=11"}, preference{wait: 5 * time.Second}, true},
		{[]string{`note="a, wait=3; \" wait=4", x; y="wait=8", wait = 6`}, preference{wait: 6 * time.Second}, true},
		{[]string{"waiting=soon, ,;"}, preference{}, true},
		{[]string{"wait=1, wait=soon"}, preference{wait: time.Second}, true},
		{[]string{"wait=soon, wait=1"}, preference{}, false},
		{[]string{"wait=0"}, preference{}, false},
		{[]string{"wait=1.5"}, preference{}, false},
		{[]string{"wait=+5"}, preference{}, false},
		{[]string{"wait=5s"}, preference{}, false},
		{[]string{"wait"}, preference{}, false},
		{[]string{"wait=-1"}, preference{}, false},
	} {
		if got, ok := readPrefer(map[string][]string{"Prefer": c.lines}); ok != c.ok || ok && got != c.want {
			t.Errorf("%v: got %v, %v", c.lines, got, ok)
		}
	}
}

func TestWaitsBeyondTheBoundAreClamped(t *testing.T) {
	for given, want := range map[string]time.Duration{"5": 5 * time.Second, "70s": maxWait, "2147483648": maxWait, "99999999999999999999": maxWait, "9999999h": maxWait} {
		if d, ok := readDuration(given, maxWait, true); !ok || d != want {
			t.Errorf("%s: got %s, %t", given, d, ok)
		}
	}
	for _, bad := range []string{"", "-1", "x", "9999999999x", "1e99", "0.2", "1.5", "2.", "00.1", "+5"} {
		if d, ok := readDuration(bad, maxWait, true); ok {
			t.Errorf("%q: got %s", bad, d)
		}
	}
	if _, ok := readDuration("9999999h", 15*time.Minute, false); ok {
		t.Error("a delay beyond its bound was taken")
	}
}
