package message_test

import (
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/runtime/message"
)

func with(pairs ...string) message.Message {
	m := message.Message{ID: "1", Source: "/s", Type: "t"}
	for i := 0; i < len(pairs); i += 2 {
		m = m.With(pairs[i], pairs[i+1])
	}
	return m
}

func TestDedupIDTellsMessagesApart(t *testing.T) {
	const early, late = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"
	seen := map[string]int{}
	for i, m := range []message.Message{
		{ID: "a", Source: "b"}, {ID: "b", Source: "a"}, {ID: "a b", Source: ""}, {ID: "a", Source: "b c"}, {ID: "a%20b", Source: ""}, {ID: "a b", Source: "c"}, {ID: "", Source: "a b"},
		{ID: "a", Source: "b d x y"}, {ID: "é\r\n\"", Source: "ü"},
		with(),
		with(message.Reason, "Terminal", message.Origin, "Subscription/default/a", message.DeadTime, early),
		with(message.Reason, "Terminal", message.Origin, "Subscription/default/b", message.DeadTime, early),
		with(message.Reason, "Terminal", message.Origin, "Subscription/default/a", message.DeadTime, late),
		with(message.Correlation, "rA"), with(message.Correlation, "rB"),
		with(message.Correlation, "rA", message.ExpiryTime, early), with(message.Correlation, "rA", message.ExpiryTime, late),
	} {
		id := m.DedupID()
		if other, twice := seen[id]; twice {
			t.Errorf("messages %d and %d have the same id %q", other, i, id)
		}
		seen[id] = i
		if strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is not printable ASCII", id)
		}
	}
}

func TestDedupIDIsOfTheEventAlone(t *testing.T) {
	a, b := with(), with(message.ExpiryTime, "2026-01-01T00:00:00Z", message.TraceParent, "00-1", message.Hops, "1")
	b.Type, b.Data, b.Key = "u", []byte("x"), "k"
	if a.DedupID() != b.DedupID() || a.DedupID() != "1 /s" {
		t.Fatalf("%q, %q", a.DedupID(), b.DedupID())
	}
	dead := with(message.Reason, "Terminal", message.Origin, "Mailbox/default/m", message.DeadTime, "x", message.Attempts, "3")
	again := with(message.DeadTime, "x", message.Origin, "Mailbox/default/m", message.Reason, "Terminal")
	if dead.DedupID() != again.DedupID() {
		t.Fatalf("%q, %q", dead.DedupID(), again.DedupID())
	}
	one := with(message.Reason, "Terminal", message.Origin, "Mailbox/default/m", message.DeadTime, "x", message.Death, "m/7")
	tried := with(message.Reason, "Terminal", message.Origin, "Mailbox/default/m", message.DeadTime, "y", message.Death, "m/7")
	other := with(message.Reason, "Terminal", message.Origin, "Mailbox/default/m", message.DeadTime, "x", message.Death, "m/8")
	if one.DedupID() != tried.DedupID() || one.DedupID() == other.DedupID() {
		t.Fatalf("%q, %q, %q", one.DedupID(), tried.DedupID(), other.DedupID())
	}
}

func TestDedupIDAllocatesItsResultOnly(t *testing.T) {
	m := message.Message{ID: "0198c7be-4b3a-7f55-8a41-2f1d5b7f9c10", Source: "/shop/orders", Type: "t"}
	if n := testing.AllocsPerRun(100, func() { _ = m.DedupID() }); n > 2 {
		t.Fatalf("%v allocations", n)
	}
}
