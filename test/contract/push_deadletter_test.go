package contract

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestADeadLetterCarriesItsHistory(t *testing.T) {
	t.Parallel()
	says(t, "P16", "P18")
	r := push(t, []route{
		{name: "in", spec: []string{"retry: {maxAttempts: 2, " + soon + "}"}, answer: statuses(500, 507)},
		{name: "own", own: true, answer: always(422)},
		{name: "secret", answer: always(410)},
		// What is dead-lettered once may be so again, by another.
		{name: "again", answer: always(400)},
	}, "kind: Mailbox\nmetadata: {name: again-dead-dead}\nspec: {brokerRef: {name: main}}")
	began := time.Now()
	headers := []string{"ce-id", "7", "ce-source", "/shop", "ce-type", "order", "ce-specversion", "1.0", "ce-subject", "pens", "ce-partitionkey", "k", "ce-color", "red", "Content-Type", "application/octet-stream"}
	for _, name := range []string{"in", "own"} {
		r.publishTo(name, "\x00\xff bytes", headers...)
	}
	r.publishTo("secret", `{"password":"s3cret"}`, append([]string{"Authorization", "Bearer s3cret"}, headers...)...)
	d := r.dead("in", 1)[0]
	host := r.subscriber.Listener.Addr().String()
	for name, want := range map[string]string{
		"id": "7", "source": "/shop", "type": "order", "subject": "pens", "partitionkey": "k", "color": "red", "data_base64": "AP8gYnl0ZXM=", "datacontenttype": "application/octet-stream",
		"wbreason": "AttemptsExhausted", "wbattempts": "2", "wbfirsterror": host + " answered 500 Internal Server Error", "wblasterror": host + " answered 507 Insufficient Storage",
		"wborigin": "Subscription/default/in",
	} {
		if got := d.attribute(t, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if at, err := time.Parse(time.RFC3339Nano, d.attribute(t, "wbtime")); err != nil || at.Before(began.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("wbtime is %q: %v", d.attribute(t, "wbtime"), err)
	}
	if s := r.dead("secret", 1)[0]; strings.Contains(s.attribute(t, "wblasterror")+s.attribute(t, "wbfirsterror"), "s3cret") {
		t.Errorf("an error tells a secret: %s", s.Event)
	}

	// Without deadLetter they lie in an object that run names; a Mailbox of that name reads it.
	own := r.ready("Subscription", "own").DeadLetter
	if own == "" {
		t.Fatalf("run names no dead letter in %s", r.ready("Subscription", "own").raw)
	}
	if s := r.outcome("own"); s.Counts.DeadLettered != 1 {
		t.Errorf("own: %+v", s)
	}
	if in := r.ready("Subscription", "in").DeadLetter; in == own {
		t.Errorf("two Subscriptions share the dead letter %s", in)
	}
}

func TestAMailboxReadsTheDeadLettersThatNobodyDeclared(t *testing.T) {
	t.Parallel()
	says(t, "P18")
	subscriber := subscribe(t, func(w http.ResponseWriter, _ pushed) { w.WriteHeader(http.StatusUnprocessableEntity) })
	data := t.TempDir()
	documents := append([]string{broker}, route{name: "in", own: true}.documents(subscriber.URL)...)
	p := start(t, "-f", manifest(t, documents...), "--data", data).awaitUp()
	post(t, p.at("Topic", "in", "/"), "poison", "Idempotency-Key", "p").want(http.StatusAccepted)
	eventually(t, "the poison to be dead-lettered", func() bool { return p.status("Subscription", "in").Counts.DeadLettered == 1 })
	object := p.ready("Subscription", "in").DeadLetter
	p.signal(os.Interrupt)
	documents = append(documents, "kind: Mailbox\nmetadata: {name: reader}\nspec: {brokerRef: {name: main}, externalName: "+object+"}")
	again := start(t, "-f", manifest(t, documents...), "--data", data).awaitUp()
	if d := take(t, again.at("Mailbox", "reader", ""), 1)[0]; d.attribute(t, "id") != "p" || d.attribute(t, "wbreason") != "Terminal" || d.attribute(t, "wborigin") != "Subscription/default/in" {
		t.Errorf("read %s", d.Event)
	}
}

func TestErrorsAreBoundedAndTellNoSecret(t *testing.T) {
	t.Parallel()
	says(t, "P16")
	token := strings.Repeat("s3cret", 5)
	r := push(t, []route{
		// An answer whose fault takes many words to tell: an attribute that cannot be, of a long name.
		{name: "long", spec: []string{"retry: {maxAttempts: 1}", "reply: {topicRef: {name: out}}"}, answer: func(w http.ResponseWriter, _ pushed, _ int) {
			w.Header().Set("Content-Type", "application/cloudevents+json")
			fmt.Fprintf(w, `{"specversion":"1.0","id":"1","source":"/s","type":"t","%sÄ":"x"}`, strings.Repeat("n", 5000))
		}},
	}, "kind: Topic\nmetadata: {name: out}\nspec: {brokerRef: {name: main}}",
		"kind: Topic\nmetadata: {name: query}\nspec: {brokerRef: {name: main}}",
		"kind: Subscription\nmetadata: {name: query}\nspec: {topicRef: {name: query}, deliverTo: {uri: 'http://127.0.0.1:9/"+token+"/hook?token="+token+"'}, retry: {"+soon+"}}")
	r.publish("long", "1")
	d := r.dead("long", 1)[0]
	for _, name := range []string{"wbfirsterror", "wblasterror"} {
		if text := d.attribute(t, name); len(text) > 1024 || !strings.Contains(text, "answered with an event that cannot be read") {
			t.Errorf("%s has %d bytes, at most 1024 are promised: %s", name, len(text), text)
		}
	}
	r.publish("query", "1")
	var s status
	eventually(t, "query to fail", func() bool { s = r.subscription("query"); return s.Condition == "Retrying" })
	if strings.Contains(s.Message, "s3cret") || !strings.HasSuffix(s.Message, "(http://127.0.0.1:9/…/hook)") {
		t.Errorf("/status shows %q", s.Message)
	}
	r.signal(os.Interrupt)
	if strings.Contains(r.stderr.String()+r.lines(), "s3cret") {
		t.Errorf("the log tells a secret of an address:\n%s\n%s", r.stderr.String(), r.lines())
	}
}

func TestReasonsOfDeadLetters(t *testing.T) {
	t.Parallel()
	says(t, "P17")
	// A message that goes through more than sixteen flows: seventeen Subscriptions from Topic to Topic.
	const hops = 17
	var documents []string
	for i := range hops {
		documents = append(documents,
			fmt.Sprintf("kind: Topic\nmetadata: {name: t%d}\nspec: {brokerRef: {name: main}}", i),
			fmt.Sprintf("kind: Subscription\nmetadata: {name: s%d}\nspec: {topicRef: {name: t%d}, deliverTo: {topicRef: {name: t%d}}}", i, i, i+1))
	}
	subscriber := subscribe(t, nil)
	documents = append(documents,
		fmt.Sprintf("kind: Topic\nmetadata: {name: t%d}\nspec: {brokerRef: {name: main}}", hops),
		fmt.Sprintf("kind: Subscription\nmetadata: {name: last}\nspec: {topicRef: {name: t%d}, deliverTo: {uri: '%s/last'}}", hops-1, subscriber.URL),
		fmt.Sprintf("kind: Subscription\nmetadata: {name: beyond}\nspec: {topicRef: {name: t%d}, deliverTo: {uri: '%s/beyond'}, deadLetter: {mailboxRef: {name: beyond-dead}}}", hops, subscriber.URL),
		"kind: Mailbox\nmetadata: {name: beyond-dead}\nspec: {brokerRef: {name: main}}",
		"kind: Mailbox\nmetadata: {name: leased}\nspec: {brokerRef: {name: main}, deadLetter: {mailboxRef: {name: leased-dead}}}",
		"kind: Mailbox\nmetadata: {name: leased-dead}\nspec: {brokerRef: {name: main}}")
	r := push(t, []route{
		{name: "terminal", answer: always(400)},
		{name: "exhausted", spec: []string{"retry: {maxAttempts: 1}"}, answer: always(500)},
		{name: "cel", spec: []string{"filter: {cel: 'data.n > 1'}"}},
	}, documents...)
	for _, name := range []string{"terminal", "exhausted", "cel", "t0"} {
		r.publish(name, "1")
	}
	for name, want := range map[string]string{"terminal": "Terminal", "exhausted": "AttemptsExhausted", "cel": "Terminal", "beyond": "Loop"} {
		if d := r.dead(name, 1)[0]; d.attribute(t, "wbreason") != want {
			t.Errorf("%s: %s, want %s: %s", name, d.attribute(t, "wbreason"), want, d.Event)
		}
	}
	if got := subscriber.await(1); len(got) != 1 || got[0].path != "/last" {
		t.Errorf("of sixteen and seventeen flows the pushes are %v", got)
	}
	post(t, r.at("Mailbox", "leased", "/messages"), "unwanted", "Idempotency-Key", "r").want(http.StatusAccepted)
	l := receive(t, r.at("Mailbox", "leased", ""), "wait=5s")[0]
	post(t, r.at("Mailbox", "leased", "/leases/"+l.Lease+"/reject"), "").want(http.StatusNoContent)
	if d := r.dead("leased", 1)[0]; d.attribute(t, "wbreason") != "Rejected" || d.attribute(t, "wborigin") != "Mailbox/default/leased" {
		t.Errorf("leased: %s", d.Event)
	}
}

func TestADeadLetterThatDiesAgainTellsItsLatestDeath(t *testing.T) {
	t.Parallel()
	says(t, "P16")
	subscriber := subscribe(t, func(w http.ResponseWriter, p pushed) {
		w.WriteHeader(map[string]int{"/in": 400, "/dead": 422}[p.path])
	})
	p := serve(t, "kind: Topic\nmetadata: {name: in}\nspec: {brokerRef: {name: main}}",
		"kind: Subscription\nmetadata: {name: in}\nspec: {topicRef: {name: in}, deliverTo: {uri: '"+subscriber.URL+"/in'}, deadLetter: {mailboxRef: {name: dead}}}",
		"kind: Mailbox\nmetadata: {name: dead}\nspec: {brokerRef: {name: main}, deliverTo: {uri: '"+subscriber.URL+"/dead'}, deadLetter: {mailboxRef: {name: deader}}}",
		"kind: Mailbox\nmetadata: {name: deader}\nspec: {brokerRef: {name: main}}")
	post(t, p.at("Topic", "in", "/"), "poison", "Idempotency-Key", "p").want(http.StatusAccepted)
	d := take(t, p.at("Mailbox", "deader", ""), 1)[0]
	if d.attribute(t, "id") != "p" || d.attribute(t, "wborigin") != "Mailbox/default/dead" || !strings.Contains(d.attribute(t, "wblasterror"), "422") || strings.Contains(string(d.Event), "answered 400") {
		t.Errorf("dead-lettered again as %s", d.Event)
	}
	if got := ids(subscriber.all()); !slices.Equal(got, []string{"p", "p"}) {
		t.Errorf("pushed %v", got)
	}
}

// TestTheGuardAgainstCrashLoops kills a process in the midst of each handling, until the broker has delivered the message too often.
func TestTheGuardAgainstCrashLoops(t *testing.T) {
	t.Parallel()
	says(t, "P17")
	const most = 3*1 + 10 // deliveries, with one attempt
	release := make(chan struct{})
	subscriber := subscribe(t, func(w http.ResponseWriter, p pushed) {
		if p.header.Get("Ce-Id") == "crash" {
			<-release
		}
		w.WriteHeader(http.StatusNoContent)
	})
	t.Cleanup(func() { close(release) })
	data := t.TempDir()
	documents := append([]string{broker}, route{name: "in", spec: []string{"retry: {maxAttempts: 1}", "ackWait: 1s"}}.documents(subscriber.URL)...)
	file := manifest(t, documents...)
	p := start(t, "-f", file, "--data", data, "--drain", "0s").awaitUp()
	post(t, p.at("Topic", "in", "/"), "boom", "Idempotency-Key", "crash").want(http.StatusAccepted)
	// A drain without time hands back what is in handling: nothing is counted but by the broker, which may forget a delivery or two when it
	// is restarted so often.
	pushes := 0
	for ended := false; !ended; {
		eventually(t, "a push or the end of them", func() bool {
			ended = p.status("Subscription", "in").Counts.DeadLettered == 1
			return ended || len(subscriber.all()) > pushes
		})
		if pushes = len(subscriber.all()); !ended {
			if pushes > most+5 {
				t.Fatalf("%d pushes and no end", pushes)
			}
			p.signal(os.Interrupt)
			p = start(t, "-f", file, "--data", data, "--drain", "0s").awaitUp()
		}
	}
	d := take(t, p.at("Mailbox", "in-dead", ""), 1)[0]
	if d.attribute(t, "id") != "crash" || d.attribute(t, "wbreason") != "CrashLoop" || d.attribute(t, "wbattempts") != strconv.Itoa(most+1) {
		t.Errorf("dead-lettered as %s", d.Event)
	}
	if pushes < most {
		t.Errorf("%d pushes, want %d at least", pushes, most)
	}
	post(t, p.at("Topic", "in", "/"), "fine", "Idempotency-Key", "fine").want(http.StatusAccepted)
	subscriber.await(pushes + 1)
}
