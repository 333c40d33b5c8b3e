package brokertest

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

var roundTripCases = []testCase{
	{name: "round trip: every attribute and byte comes back", run: func(t *testing.T, e *env) {
		began := time.Now()
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		p := e.publisher(t, c, q)
		bytes256 := make([]byte, 256)
		for i := range bytes256 {
			bytes256[i] = byte(i)
		}
		full := message.Message{
			ID: "id with spaces, 100% \"quoted\" and ü", Source: "/a/b?c=d%20e#f", Type: "com.example.täst.日本語.🚚",
			Subject: "größer als/alle %25 %zz %", Time: "2026-11-22T15:44:55.123456789+01:00",
			DataContentType: `application/json; charset="utf-8"`, DataSchema: "https://example.com/s?a=1&b=%20",
			Key: "schlüssel\U0001F511 %41",
			Attributes: []message.Attribute{
				{Name: "a", Value: " leading and trailing "}, {Name: "b2", Value: "%0A is no line break"}, {Name: "c", Value: "tab is not allowed, this is: ~!@#$^&*()=+[]{};:'<>,?/\\|`"},
				{Name: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {Name: "wbreplyto", Value: "_WB.default.x"}, {Name: "z", Value: strings.Repeat("long ", 800)},
			},
			Data: bytes256,
		}
		small := message.Message{ID: "1", Source: "s", Type: "t"}
		empty := message.Message{ID: "2", Source: "s", Type: "t", DataContentType: "application/octet-stream", Data: []byte{}}
		json := message.Message{ID: "3", Source: "s", Type: "t", DataContentType: "application/json", Data: []byte("{\"n\": 1.0e+2 ,\r\n\"x\":\"\\u00fc\"}")}
		sent := []message.Message{full, small, empty, json}
		for _, alone := range []bool{true, false} { // as a message of its own and in a batch
			if alone {
				for _, m := range sent {
					publish(t, p, m)
				}
			} else {
				for i := range sent {
					sent[i].ID += " again"
				}
				publish(t, p, sent...)
			}
			s := e.source(t, c, driver.SourceSpec{Object: q})
			got := receive(t, s, len(sent))
			for i := range got {
				same(t, got[i].Message, sent[i])
				// A minute is for clocks that differ, not for a field that means something else.
				if at := got[i].Stored; !at.IsZero() && (at.Before(began.Add(-time.Minute)) || at.After(time.Now().Add(time.Minute))) {
					t.Errorf("%s: is said to have been stored at %s, and was sent after %s", sent[i].ID, at, began)
				}
			}
			settle(t, s, driver.Done, got...)
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
		}
	}},
	{name: "round trip: control characters and bad names are refused", run: func(t *testing.T, e *env) {
		c := e.conn(t)
		q := e.queue(t, c, driver.None)
		p := e.publisher(t, c, q)
		bad := []func(m *message.Message){
			func(m *message.Message) { m.Subject = "two\r\nce-id: lines" },
			func(m *message.Message) { m.DataContentType = "text/plain\nx: y" },
			func(m *message.Message) { m.Key = "nul\x00" },
			func(m *message.Message) { m.Attributes = []message.Attribute{{Name: "a", Value: "x\ny"}} },
			func(m *message.Message) { m.Attributes = []message.Attribute{{Name: "a\r\nb", Value: "x"}} },
			func(m *message.Message) { m.Attributes = []message.Attribute{{Name: "", Value: "x"}} },
			func(m *message.Message) { m.ID = "" },
		}
		for i, spoil := range bad {
			m := msg("bad", "")
			spoil(&m)
			err := p.Publish(within(t), []message.Message{m})[0]
			if !errors.Is(err, driver.ErrInvalid) || c.Class(err) != driver.Invalid {
				t.Errorf("bad message %d: %v, class %v", i, err, c.Class(err))
			}
		}
		if n := state(t, c, q).Messages; n != 0 {
			t.Errorf("%d bad messages were stored", n)
		}
	}},
}

// same compares what came with what was sent. Attributes have no order of their own, and no data is the same as empty data.
func same(t *testing.T, got, sent message.Message) {
	t.Helper()
	if !bytes.Equal(got.Data, sent.Data) {
		t.Errorf("%s: data is %q, want %q", sent.ID, got.Data, sent.Data)
	}
	sorted := func(as []message.Attribute) []message.Attribute {
		as = slices.Clone(as)
		slices.SortFunc(as, func(a, b message.Attribute) int { return strings.Compare(a.Name, b.Name) })
		return as
	}
	got.Attributes, sent.Attributes = sorted(got.Attributes), sorted(sent.Attributes)
	got.Data, sent.Data = nil, nil
	if len(got.Attributes) == 0 && len(sent.Attributes) == 0 {
		got.Attributes, sent.Attributes = nil, nil
	}
	if !reflect.DeepEqual(got, sent) {
		t.Errorf("got\n%#v, want\n%#v", got, sent)
	}
}
