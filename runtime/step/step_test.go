package step

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func stage(t testing.TB, s plan.Step) flow.Stage {
	t.Helper()
	s.Name = "it"
	client := outbound.New(outbound.Config{})
	t.Cleanup(client.Close)
	st, err := New(s, Deps{Client: client, Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func filterStep(cel string) plan.Step    { return plan.Step{Filter: &plan.Expr{CEL: cel}} }
func transformStep(cel string) plan.Step { return plan.Step{Transform: &plan.Expr{CEL: cel}} }
func splitStep(cel string) plan.Step     { return plan.Step{Split: &plan.Expr{CEL: cel}} }
func dedupeStep(cel string, window time.Duration, maxKeys int) plan.Step {
	return plan.Step{Dedupe: &plan.Dedupe{Key: plan.Expr{CEL: cel}, Window: plan.Duration(window), MaxKeys: maxKeys}}
}

// batch makes a batch with an input for each data.
func batch(data ...string) *flow.Batch {
	b := &flow.Batch{}
	for i, d := range data {
		m := message.Message{
			ID: "m" + strconv.Itoa(i), Source: "/s", Type: "t", Subject: "sub", Key: "k" + strconv.Itoa(i%3), DataSchema: "http://schema",
			Data: []byte(d), Attributes: []message.Attribute{{Name: "tenant", Value: "acme"}},
		}
		b.Inputs = append(b.Inputs, flow.Input{Delivery: &driver.Delivery{Message: m}, Attempt: 1})
		b.Events = append(b.Events, flow.Event{Message: m, Input: i})
	}
	return b
}

// left is the data of the events of inputs that have not failed.
func left(b *flow.Batch) []string {
	out := []string{}
	for _, e := range b.Events {
		if b.Inputs[e.Input].Err == nil {
			out = append(out, string(e.Message.Data))
		}
	}
	return out
}

func blame(t testing.TB, err error) flow.Blame {
	t.Helper()
	f, ok := errors.AsType[*flow.Fault](err)
	if !ok {
		t.Fatalf("%v (%T) is no fault", err, err)
	}
	return f.Blame
}

func TestFilterDropsAndFailsApart(t *testing.T) {
	b := batch(`{"n":1}`, `{"n":"one"}`, `{"n":3}`, `not json`, `{}`, `{"n":4}`)
	stage(t, filterStep(`data.n > 2`)).Process(t.Context(), b)
	if got := left(b); !slices.Equal(got, []string{`{"n":3}`, `{"n":4}`}) {
		t.Error(got)
	}
	for i, want := range []string{"dropped", "failed", "", "failed", "failed", ""} {
		in := b.Inputs[i]
		got := ""
		switch {
		case in.Err != nil:
			got = "failed"
			if blame(t, in.Err) != flow.Message {
				t.Error("the expression's error is not the message's fault")
			}
			if !strings.HasPrefix(in.Err.Error(), "step it: ") || strings.Contains(in.Err.Error(), "one") {
				t.Error(in.Err)
			}
		case in.Dropped == Filtered:
			got = "dropped"
		}
		if got != want {
			t.Errorf("input %d: %+v, want %q", i, in, want)
		}
	}
}

func TestTransformReplacesDataOnly(t *testing.T) {
	b := batch(`{"a":1.10,"b":[1, 2]}`, `{"b":1}`)
	stage(t, transformStep(`{"z": data.a, "b": data.b, "t": attributes.tenant}`)).Process(t.Context(), b)
	if blame(t, b.Inputs[1].Err) != flow.Message {
		t.Error(b.Inputs[1].Err)
	}
	m := b.Events[0].Message
	want := b.Inputs[0].Delivery.Message
	if got := string(m.Data); got != `{"z":1.10,"b":[1, 2],"t":"acme"}` {
		t.Error(got)
	}
	if m.DataContentType != "application/json" || m.DataSchema != "" {
		t.Errorf("%q %q", m.DataContentType, m.DataSchema)
	}
	if m.ID != want.ID || m.Source != want.Source || m.Type != want.Type || m.Subject != want.Subject || m.Key != want.Key || !slices.Equal(m.Attributes, want.Attributes) {
		t.Errorf("%+v", m)
	}
	if string(want.Data) != `{"a":1.10,"b":[1, 2]}` {
		t.Error("the delivery's own data was written to")
	}
}

// Data made by one batch share memory; to append to one must not reach into the next.
func TestTransformedDataDoNotOverlap(t *testing.T) {
	b := batch(`{"a":1}`, `{"a":2}`)
	stage(t, transformStep(`data.a`)).Process(t.Context(), b)
	_ = append(b.Events[0].Message.Data, "xyz"...)
	if got := string(b.Events[1].Message.Data); got != "2" {
		t.Error(got)
	}
}

func TestSplit(t *testing.T) {
	b := batch(`{"l":[{"x":1}, "two",3.0]}`, `{"l":[]}`, `{}`, `{"l":[null]}`)
	stage(t, splitStep(`data.l`)).Process(t.Context(), b)
	if got := left(b); !slices.Equal(got, []string{`{"x":1}`, `"two"`, `3.0`, `null`}) {
		t.Error(got)
	}
	var ids []string
	for _, e := range b.Events {
		if b.Inputs[e.Input].Err == nil {
			ids = append(ids, e.Message.ID+" "+e.Message.Key)
		}
	}
	if !slices.Equal(ids, []string{"m0-0 k0", "m0-1 k0", "m0-2 k0", "m3-0 k0"}) {
		t.Error(ids)
	}
	if b.Inputs[1].Dropped != Empty || b.Inputs[2].Err == nil {
		t.Errorf("%+v", b.Inputs)
	}
}

func TestSplitIsBounded(t *testing.T) {
	b := batch(`[` + strings.Repeat(`1,`, maxElements) + `1]`)
	stage(t, splitStep(`data`)).Process(t.Context(), b)
	if b.Inputs[0].Err == nil || !strings.Contains(b.Inputs[0].Err.Error(), "10001 elements") {
		t.Error(b.Inputs[0].Err)
	}
}

// Two splits, then a filter: an input is dropped only when the last of its events is.
func TestEventsOfOneInput(t *testing.T) {
	b := batch(`[[1,2],[3]]`, `[[1],[1]]`, `[[5],["x"]]`)
	s := stage(t, splitStep(`data`))
	s.Process(t.Context(), b)
	s.Process(t.Context(), b)
	stage(t, filterStep(`data > 1`)).Process(t.Context(), b)
	if got := left(b); !slices.Equal(got, []string{"2", "3"}) {
		t.Error(got)
	}
	if b.Events[0].Message.ID != "m0-0-1" || b.Events[1].Message.ID != "m0-1-0" {
		t.Error(b.Events[0].Message.ID, b.Events[1].Message.ID)
	}
	if b.Inputs[0].Dropped != "" || b.Inputs[1].Dropped != Filtered || b.Inputs[2].Err == nil || b.Inputs[2].Dropped != "" {
		t.Errorf("%+v", b.Inputs)
	}
}

func TestEndedAttemptFailsWithItsOwnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, s := range []plan.Step{
		filterStep(`data.n > 2`), transformStep(`data`), splitStep(`data`), dedupeStep(`id`, time.Minute, 10),
		{HTTP: &plan.HTTPCall{HTTPTarget: plan.HTTPTarget{URL: "http://192.0.2.1/"}, Concurrency: 2}},
	} {
		b := batch(`[]`, `{}`)
		stage(t, s).Process(ctx, b)
		for _, in := range b.Inputs {
			if !errors.Is(in.Err, context.Canceled) || in.Dropped != "" {
				t.Errorf("%+v: %+v", s, in)
			}
		}
	}
}

func TestNewRefusesWhatIsNoStep(t *testing.T) {
	for _, s := range []plan.Step{{}, filterStep(`data.`), filterStep(`id`), splitStep(`id`), {HTTP: &plan.HTTPCall{HTTPTarget: plan.HTTPTarget{URL: "ftp://x"}}}} {
		if _, err := New(s, Deps{Client: outbound.New(outbound.Config{})}); err == nil {
			t.Errorf("%+v", s)
		}
	}
}

func commit(s flow.Stage, b *flow.Batch) { s.(flow.Committer).Commit(b) }

func TestDedupeMarksAfterConfirmation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := stage(t, dedupeStep(`data`, time.Minute, 10))
		first, second := batch(`"a"`, `"b"`), batch(`"a"`)
		d.Process(t.Context(), first)
		d.Process(t.Context(), second)
		if blame(t, second.Inputs[0].Err) != flow.Broker {
			t.Error(second.Inputs[0].Err)
		}
		commit(d, second)
		first.Fail(0, &flow.Fault{Blame: flow.Destination, Err: io.EOF})
		commit(d, first)

		third := batch(`"a"`, `"b"`)
		d.Process(t.Context(), third)
		if got := left(third); !slices.Equal(got, []string{`"a"`}) || third.Inputs[1].Dropped != Duplicate {
			t.Errorf("after a failed, b confirmed: %v %+v", got, third.Inputs)
		}
		commit(d, third)
		time.Sleep(time.Minute) // the bubble's clock
		fourth := batch(`"a"`)
		d.Process(t.Context(), fourth)
		if got := left(fourth); !slices.Equal(got, []string{`"a"`}) {
			t.Error("the window does not end", got)
		}
	})
}

func TestDedupeWithinOneInput(t *testing.T) {
	b := batch(`["x","y","x"]`)
	stage(t, splitStep(`data`)).Process(t.Context(), b)
	stage(t, dedupeStep(`data`, time.Minute, 10)).Process(t.Context(), b)
	if got := left(b); !slices.Equal(got, []string{`"x"`, `"y"`}) {
		t.Error(got)
	}
}

func TestDedupeForgetsTheLeastUsed(t *testing.T) {
	d := stage(t, dedupeStep(`data`, time.Minute, 2))
	for _, data := range []string{`"a"`, `"b"`, `"a"`, `"c"`} {
		b := batch(data)
		d.Process(t.Context(), b)
		commit(d, b)
	}
	b := batch(`"a"`, `"b"`)
	d.Process(t.Context(), b)
	if got := left(b); !slices.Equal(got, []string{`"b"`}) {
		t.Error(got)
	}
}

// Whatever fails on the way, every key is confirmed exactly once in the end, and nothing is kept of flights that have ended.
func TestDedupeUnderConcurrentBatches(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := stage(t, dedupeStep(`data`, time.Hour, 1000)).(*dedupe)
		keys := rapid.SliceOfN(rapid.IntRange(0, 5), 1, 40).Draw(rt, "keys")
		size := rapid.IntRange(1, 8).Draw(rt, "batch")
		fail := rapid.SliceOfN(rapid.Bool(), 64, 64).Draw(rt, "fail")
		var attempt atomic.Int64
		var mu sync.Mutex
		confirmed := map[string]int{}
		var all sync.WaitGroup
		for part := range slices.Chunk(keys, size) {
			all.Go(func() {
				for len(part) > 0 {
					var data []string
					for _, k := range part {
						data = append(data, strconv.Itoa(k))
					}
					b := batch(data...)
					d.Process(t.Context(), b)
					for i := range b.Inputs {
						if b.Inputs[i].Err == nil && b.Inputs[i].Dropped == "" && fail[int(attempt.Add(1))%64] && attempt.Load() < 64 {
							b.Fail(i, io.EOF)
						}
					}
					mu.Lock()
					for _, k := range left(b) {
						confirmed[k]++
					}
					mu.Unlock()
					d.Commit(b)
					var again []int
					for i := range b.Inputs {
						if b.Inputs[i].Err != nil {
							again = append(again, part[i])
						}
					}
					part = again
				}
			})
		}
		all.Wait()
		for _, k := range keys {
			if n := confirmed[strconv.Itoa(k)]; n != 1 {
				rt.Fatalf("key %d confirmed %d times", k, n)
			}
		}
		if len(d.flights) != 0 {
			rt.Fatalf("%d flights never end", len(d.flights))
		}
	})
}

func TestHTTPStep(t *testing.T) {
	var now, most atomic.Int32
	release := make(chan struct{})
	var together sync.Once
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == 4 {
			together.Do(func() { close(release) })
		}
		<-release
		body, _ := io.ReadAll(r.Body)
		switch string(body) {
		case `"gone"`:
			w.WriteHeader(http.StatusNoContent)
		case `"bad"`:
			w.WriteHeader(http.StatusUnprocessableEntity)
		case `"away"`:
			w.WriteHeader(http.StatusServiceUnavailable)
		case `"same"`:
			w.WriteHeader(http.StatusAccepted)
		case `"big"`:
			w.Write(make([]byte, 1<<20+1))
		default:
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprintf(w, "%s of %s %s", body, r.Header.Get("Ce-Id"), r.Header.Get("Ce-Tenant"))
		}
	}))
	defer server.Close()
	b := batch(`"a"`, `"gone"`, `"b"`, `"bad"`, `"away"`, `"same"`, `"big"`, `"c"`)
	stage(t, plan.Step{HTTP: &plan.HTTPCall{HTTPTarget: plan.HTTPTarget{URL: server.URL}, Concurrency: 4, Timeout: plan.Duration(10 * time.Second)}}).Process(t.Context(), b)
	if got := left(b); !slices.Equal(got, []string{`"a" of m0 acme`, `"b" of m2 acme`, `"same"`, `"c" of m7 acme`}) {
		t.Error(got)
	}
	if most.Load() != 4 {
		t.Errorf("%d requests at once, want 4", most.Load())
	}
	if b.Inputs[1].Dropped != NoContent {
		t.Errorf("%+v", b.Inputs[1])
	}
	if blame(t, b.Inputs[3].Err) != flow.Message || blame(t, b.Inputs[4].Err) == flow.Message || blame(t, b.Inputs[6].Err) != flow.Message {
		t.Errorf("%v, %v, %v", b.Inputs[3].Err, b.Inputs[4].Err, b.Inputs[6].Err)
	}
	if text := b.Inputs[6].Err.Error(); !strings.HasPrefix(text, "step it: ") || !strings.Contains(text, "more than 1048576 bytes") {
		t.Error(text)
	}
	if m := b.Events[0].Message; m.DataContentType != "text/plain" || m.DataSchema != "" || m.ID != "m0" {
		t.Errorf("%+v", m)
	}
}

// Over HTTP an event whose data calls itself an event would be taken for another one.
func TestAnHTTPStepTakesNoEventForData(t *testing.T) {
	for _, of := range []string{"application/cloudevents+json", "Application/CloudEvents-batch+json; charset=utf-8", "nonsense"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", of)
			io.WriteString(w, `{"specversion":"1.0","id":"zz","source":"/zz","type":"zz","data":1}`)
		}))
		b := batch(`"a"`)
		stage(t, plan.Step{HTTP: &plan.HTTPCall{HTTPTarget: plan.HTTPTarget{URL: server.URL}}}).Process(t.Context(), b)
		server.Close()
		if err := b.Inputs[0].Err; blame(t, err) != flow.Destination || !strings.HasPrefix(err.Error(), "step it: the answer's Content-Type: ") {
			t.Errorf("%s: %v", of, err)
		}
	}
}

// An at-most-once flow calls its steps once too, also where a kept-alive connection is closed while the request is on its way.
func TestAtMostOnceCallsAStepOnce(t *testing.T) {
	client := outbound.New(outbound.Config{})
	defer client.Close()
	for _, once := range []bool{true, false} {
		st, err := New(plan.Step{Name: "it", HTTP: &plan.HTTPCall{HTTPTarget: plan.HTTPTarget{URL: "http://127.0.0.1:1"}}}, Deps{Client: client, AtMostOnce: once})
		if err != nil {
			t.Fatal(err)
		}
		if got := st.(*call).target.Once; got != once {
			t.Errorf("AtMostOnce %t: a request is never sent twice: %t", once, got)
		}
	}
}

// Inputs of a lane are sent one after the other up to the first that fails, and never more events at once than allowed.
func TestLanesAreSentInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var events []flow.Event
		var lane []int // of each input: its first input
		for len(lane) < 30 && rapid.IntRange(0, 9).Draw(t, "more") > 0 {
			first := len(lane)
			for range rapid.IntRange(1, 4).Draw(t, "inputs") {
				for range rapid.IntRange(0, 3).Draw(t, "events") {
					events = append(events, flow.Event{Input: len(lane)})
				}
				lane = append(lane, first)
			}
		}
		fails := rapid.SliceOfN(rapid.Bool(), len(events), len(events)).Draw(t, "fails")
		var mu sync.Mutex
		sent := make([]int, len(events))
		last := map[int]int{} // of each lane: the input being sent
		failed := map[int]int{}
		inLanes(byLane(events, func(input int) int { return lane[input] }), func(i int) bool {
			input := events[i].Input
			l := lane[input]
			mu.Lock()
			early := last[l] > input
			last[l] = input
			if f, ok := failed[l]; ok && f != input {
				early = true
			}
			if fails[i] {
				failed[l] = input
			}
			sent[i]++
			mu.Unlock()
			if early {
				t.Errorf("event %d of input %d: out of order", i, input)
			}
			return !fails[i]
		})
		for i, e := range events {
			f, ok := failed[lane[e.Input]]
			want := 1
			if ok && e.Input > f {
				want = 0
			}
			if sent[i] != want {
				t.Fatalf("event %d was sent %d times, want %d", i, sent[i], want)
			}
		}
	})
}

// The concurrency of an http step holds for the step, however many batches are in it at once.
func TestHTTPConcurrencyIsOfAllBatchesTogether(t *testing.T) {
	var now, most atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		runtime.Gosched()
		now.Add(-1)
		w.WriteHeader(http.StatusOK)
	}))
	defer server.Close()
	client := outbound.New(outbound.Config{})
	defer client.Close()
	stage, err := New(plan.Step{Name: "call", HTTP: &plan.HTTPCall{HTTPTarget: plan.HTTPTarget{URL: server.URL}, Concurrency: 2}}, Deps{Client: client, Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	var batches sync.WaitGroup
	for range 4 {
		batches.Go(func() {
			b := &flow.Batch{}
			for i := range 8 {
				m := message.Message{ID: strconv.Itoa(i), Source: "/s", Type: "t"}
				b.Inputs = append(b.Inputs, flow.Input{Delivery: &driver.Delivery{Message: m}})
				b.Events = append(b.Events, flow.Event{Message: m, Input: i})
			}
			stage.Process(t.Context(), b)
			for i := range b.Inputs {
				if b.Inputs[i].Err != nil {
					t.Errorf("input %d: %v", i, b.Inputs[i].Err)
				}
			}
		})
	}
	batches.Wait()
	if most.Load() > 2 {
		t.Errorf("%d requests at once, want at most 2", most.Load())
	}
}

// A chain of steps against a model: order is kept, nothing is lost, nothing is made up.
func TestChainAgainstModel(t *testing.T) {
	chain := []flow.Stage{
		stage(t, filterStep(`data.n % 2 == 0`)),
		stage(t, splitStep(`data.l`)),
		stage(t, transformStep(`{"v": data}`)),
		stage(t, filterStep(`data.v != 3`)),
	}
	rapid.Check(t, func(rt *rapid.T) {
		var data, want []string
		dropped, failed := map[int]bool{}, map[int]bool{}
		for i := range rapid.IntRange(0, 30).Draw(rt, "messages") {
			n := rapid.IntRange(0, 3).Draw(rt, "n")
			l := rapid.SliceOfN(rapid.IntRange(1, 4), 0, 4).Draw(rt, "l")
			if rapid.IntRange(0, 9).Draw(rt, "bad") == 0 {
				data, failed[i] = append(data, `{"n":2}`), true
				continue
			}
			data = append(data, fmt.Sprintf(`{"n":%d,"l":[%s]}`, n, strings.Trim(strings.ReplaceAll(fmt.Sprint(l), " ", ","), "[]")))
			dropped[i] = true
			for index, v := range l {
				if n%2 == 0 && v != 3 {
					want = append(want, fmt.Sprintf(`m%d-%d {"v":%d}`, i, index, v))
					dropped[i] = false
				}
			}
		}
		b := batch(data...)
		for _, s := range chain {
			s.Process(t.Context(), b)
			b.Events = slices.DeleteFunc(b.Events, func(e flow.Event) bool { return b.Inputs[e.Input].Err != nil }) // as the flow does
		}
		var got []string
		for _, e := range b.Events {
			got = append(got, e.Message.ID+" "+string(e.Message.Data))
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("\ngot  %v\nwant %v", got, want)
		}
		for i, in := range b.Inputs {
			if (in.Err != nil) != failed[i] || (in.Dropped != "") != dropped[i] {
				rt.Fatalf("input %d of %s: %+v", i, data[i], in)
			}
		}
	})
}

func BenchmarkFilterTransform(b *testing.B) {
	const n = 512
	order := `{"id":"order-00001042","customer":"customer-0815","currency":"EUR","total":%d.9,"lines":[{"sku":"sku-100001","qty":2,"price":19.95},{"sku":"sku-100002","qty":1,"price":70},{"sku":"sku-100003","qty":4,"price":5}],"address":{"street":"Main Street 1","city":"Springfield"},"note":"please ring twice"}`
	var data []string
	for i := range n {
		total := 50
		if i%5 < 2 { // 40 % pass
			total = 150
		}
		data = append(data, fmt.Sprintf(order, total))
	}
	from := batch(data...)
	for i := range from.Events {
		from.Events[i].Message.Type = "order.created"
	}
	filter := stage(b, filterStep(`type == "order.created" && data.total > 100`))
	transform := stage(b, transformStep(`{"id": data.id, "customer": data.customer, "total": data.total, "units": data.lines.map(l, l.qty).sum()}`))
	work := &flow.Batch{Events: make([]flow.Event, n), Inputs: make([]flow.Input, n)}
	b.ReportAllocs()
	for b.Loop() {
		work.Events = work.Events[:n]
		copy(work.Events, from.Events)
		copy(work.Inputs, from.Inputs)
		filter.Process(b.Context(), work)
		transform.Process(b.Context(), work)
		if len(work.Events) != 206 {
			b.Fatal(len(work.Events))
		}
		for i := range work.Inputs {
			if work.Inputs[i].Err != nil {
				b.Fatal(work.Inputs[i].Err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/message")
}
