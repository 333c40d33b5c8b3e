package contract

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// What several services send comes out as it went in, whichever way it was published and is read.
func TestPayloadsStayAsTheyAre(t *testing.T) {
	t.Parallel()
	says(t, "E1", "E10", "E11")
	sub := subscribe(t, nil)
	p := serve(t,
		"kind: Topic\nmetadata: {name: hooks}\nspec: {brokerRef: {name: main}}",
		"kind: Mailbox\nmetadata: {name: kept}\nspec: {brokerRef: {name: main}}",
		"kind: Subscription\nmetadata: {name: push}\nspec: {topicRef: {name: hooks}, deliverTo: {uri: '"+sub.URL+"'}}",
		"kind: Subscription\nmetadata: {name: keep}\nspec: {topicRef: {name: hooks}, deliverTo: {mailboxRef: {name: kept}}}")
	all := payloads(t)
	if len(all) < 300 {
		t.Fatalf("only %d payloads", len(all))
	}
	topic := p.at("Topic", "hooks", "/")
	live := listen(t, topic)
	publishAll(t, topic, all)

	// A structured event does not have the white space around its data.
	want := map[string][]byte{}
	for i, one := range all {
		want[fmt.Sprintf("binary-%d", i)] = one.data
		for _, mode := range []string{"structured", "batched"} {
			want[fmt.Sprintf("%s-%d", mode, i)] = one.data
			if rawJSON(one.data) {
				want[fmt.Sprintf("%s-%d", mode, i)] = bytes.Trim(one.data, " \t\r\n")
			}
		}
	}
	name := func(id string) string {
		_, n, _ := strings.Cut(id, "-")
		var i int
		_, _ = fmt.Sscan(n, &i)
		return id + " (" + all[i].name + ")"
	}
	got := map[string]bool{}
	for _, r := range sub.await(len(want)) {
		id := r.header.Get("Ce-Id")
		got[id] = true
		if r.body != string(want[id]) {
			t.Errorf("push of %s: %s", name(id), difference(r.body, string(want[id])))
		}
		if ct := r.header.Get("Content-Type"); ct != "application/json" && len(want[id]) > 0 {
			t.Errorf("push of %s as %q", name(id), ct)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d events were pushed, want %d", len(got), len(want))
	}

	left := len(want)
	for left > 0 {
		lents := receive(t, p.at("Mailbox", "kept", ""), "max=100&wait=10s")
		if len(lents) == 0 {
			t.Fatalf("%d messages are missing", left)
		}
		leases, err := json.Marshal(map[string][]string{"leases": leasesOf(lents)})
		if err != nil {
			t.Fatal(err)
		}
		post(t, p.at("Mailbox", "kept", "/leases/ack"), string(leases)).want(http.StatusOK)
		for _, l := range lents {
			left--
			id := l.attribute(t, "id")
			checkJSONForm(t, "lease of "+name(id), l.Event, want[id])
		}
	}
	for range want {
		e := live.next()
		var head struct{ ID string }
		if err := json.Unmarshal([]byte(e.data), &head); err != nil {
			t.Fatalf("live event %.200s: %v", e.data, err)
		}
		w := want[head.ID]
		if rawJSON(w) { // the stream has one kind of line break
			w = bytes.ReplaceAll(bytes.ReplaceAll(w, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
		}
		checkJSONForm(t, "live event "+name(head.ID), []byte(e.data), w)
	}
}

func leasesOf(lents []lent) []string {
	var leases []string
	for _, l := range lents {
		leases = append(leases, l.Lease)
	}
	return leases
}

// rawJSON reports whether data can stand in a JSON document as they are.
func rawJSON(data []byte) bool { return utf8.Valid(data) && json.Valid(data) }

// publishAll publishes each payload in each mode, some requests at a time.
func publishAll(t *testing.T, topic string, all []payload) {
	t.Helper()
	work := make(chan func())
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for do := range work {
				do()
			}
		})
	}
	document := func(mode string, i int) string {
		head := fmt.Sprintf(`{"specversion":"1.0","id":"%s-%d","source":"/hooks","type":"t"`, mode, i)
		switch data := all[i].data; {
		case len(data) == 0:
			return head + "}"
		case rawJSON(data):
			return head + `,"data":` + string(data) + "}"
		default:
			return head + `,"datacontenttype":"application/json","data_base64":"` + base64.StdEncoding.EncodeToString(data) + `"}`
		}
	}
	stored := func(mode string, i int, a answer, err error) {
		if err != nil || a.status != http.StatusAccepted {
			t.Errorf("%s in %s mode: %d %s %v", all[i].name, mode, a.status, a.body, err)
		}
	}
	var batch []string
	for i := range all {
		work <- func() {
			a, err := try(t, topic, string(all[i].data), "Ce-Specversion", "1.0", "Ce-Id", fmt.Sprintf("binary-%d", i), "Ce-Source", "/hooks", "Ce-Type", "t", "Content-Type", "application/json")
			stored("binary", i, a, err)
			a, err = try(t, topic, document("structured", i), "Content-Type", "application/cloudevents+json")
			stored("structured", i, a, err)
		}
		if batch = append(batch, document("batched", i)); len(batch) == 20 || i == len(all)-1 {
			body := "[" + strings.Join(batch, " ,\n") + "]"
			batch = nil
			work <- func() {
				a, err := try(t, topic, body, "Content-Type", "application/cloudevents-batch+json")
				stored("batched", i, a, err)
			}
		}
	}
	close(work)
	workers.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// checkJSONForm compares the data in the JSON form of an event with what they should be.
func checkJSONForm(t *testing.T, what string, event, want []byte) {
	t.Helper()
	var e struct {
		Data   json.RawMessage `json:"data"`
		Base64 *string         `json:"data_base64"`
	}
	if err := json.Unmarshal(event, &e); err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	raw := rawJSON(want) && depth(want) <= 9000
	switch {
	case len(want) == 0:
		if e.Data != nil || e.Base64 != nil {
			t.Errorf("%s has data", what)
		}
	case raw:
		if trimmed := bytes.Trim(want, " \t\r\n"); !bytes.Equal(e.Data, trimmed) {
			t.Errorf("%s: %s", what, difference(string(e.Data), string(trimmed)))
		}
	case e.Base64 == nil:
		t.Errorf("%s is not in base64", what)
	default:
		b, err := base64.StdEncoding.DecodeString(*e.Base64)
		if err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %v %s", what, err, difference(string(b), string(want)))
		}
	}
}

func depth(b []byte) int {
	deepest, now := 0, 0
	eachByte(b, func(_, b []byte, i int) []byte {
		switch b[i] {
		case '{', '[':
			now++
			deepest = max(deepest, now)
		case '}', ']':
			now--
		}
		return nil
	})
	return deepest
}

// difference shows where two texts part.
func difference(got, want string) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	return fmt.Sprintf("%d bytes, want %d; at byte %d %.60q, want %.60q", len(got), len(want), i, got[i:], want[i:])
}

// try is post for those that may not end the test.
func try(t *testing.T, url, body string, headers ...string) (answer, error) {
	return tryBody(t, url, strings.NewReader(body), headers...)
}

// tryBody is try with a body whose length is told only if the library knows its type.
func tryBody(t *testing.T, url string, body io.Reader, headers ...string) (answer, error) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	return answer{t, resp.StatusCode, resp.Header, b.String()}, err
}
