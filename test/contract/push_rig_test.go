package contract

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// soon is a retry that a test need not wait for.
const soon = "backOff: {initial: 10ms, max: 40ms}"

// A route is one Subscription of a rig: a Topic and a dead letter of the same name, and a path of the subscriber that answers for it.
type route struct {
	name string
	// spec are more fields of the Subscription, a line each.
	spec []string
	// uri in place of the path of the rig's subscriber.
	uri string
	// own: the Subscription has no declared dead letter.
	own bool
	// answer answers the nth push (from 1) to the path; nil: 204.
	answer func(w http.ResponseWriter, p pushed, n int)
}

// A rig is a process with a subscriber of scripted answers.
type rig struct {
	*process
	subscriber *subscriber

	mu   sync.Mutex
	seen map[string]int
}

// push runs one Subscription for each route in one process, with more documents beside them.
func push(t *testing.T, routes []route, documents ...string) *rig {
	t.Helper()
	r := &rig{seen: map[string]int{}}
	r.subscriber = subscribe(t, func(w http.ResponseWriter, p pushed) {
		name := strings.Trim(p.path, "/")
		r.mu.Lock()
		r.seen[name]++
		n := r.seen[name]
		r.mu.Unlock()
		for _, to := range routes {
			if to.name == name && to.answer != nil {
				to.answer(w, p, n)
				return
			}
		}
		w.WriteHeader(http.StatusNoContent)
	})
	for _, to := range routes {
		documents = append(documents, to.documents(r.subscriber.URL)...)
	}
	r.process = serve(t, documents...)
	return r
}

func (to route) documents(base string) []string {
	uri := to.uri
	if uri == "" {
		uri = base + "/" + to.name
	}
	spec := append([]string{"topicRef: {name: " + to.name + "}", "deliverTo: {uri: '" + uri + "'}"}, to.spec...)
	all := []string{fmt.Sprintf("kind: Topic\nmetadata: {name: %s}\nspec: {brokerRef: {name: main}}", to.name)}
	if !to.own {
		spec = append(spec, "deadLetter: {mailboxRef: {name: "+to.name+"-dead}}")
		all = append(all, fmt.Sprintf("kind: Mailbox\nmetadata: {name: %s-dead}\nspec: {brokerRef: {name: main}}", to.name))
	}
	return append(all, "kind: Subscription\nmetadata: {name: "+to.name+"}\nspec:\n  "+strings.Join(spec, "\n  "))
}

// publish stores a plain body with an id, and headers, on a route's Topic.
func (r *rig) publish(route, id string, headers ...string) {
	r.t.Helper()
	r.publishTo(route, "message "+id, append([]string{"ce-id", id, "ce-source", "/test", "ce-type", "test", "ce-specversion", "1.0"}, headers...)...)
}

func (r *rig) publishTo(route, body string, headers ...string) {
	r.t.Helper()
	post(r.t, r.at("Topic", route, "/"), body, headers...).want(http.StatusAccepted)
}

// pushes are those that came to a route's path until now.
func (r *rig) pushes(route string) []pushed {
	return slices.DeleteFunc(r.subscriber.all(), func(p pushed) bool { return strings.Trim(p.path, "/") != route })
}

// awaitPushes waits until n have come to a route's path.
func (r *rig) awaitPushes(route string, n int) []pushed {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d pushes to %s", n, route), func() bool { return len(r.pushes(route)) >= n })
	return r.pushes(route)
}

// ids of pushes.
func ids(ps []pushed) []string {
	all := make([]string, len(ps))
	for i, p := range ps {
		all[i] = p.header.Get("Ce-Id")
	}
	return all
}

// count is how often an id is among pushes.
func count(ps []pushed, id string) (n int) {
	for _, p := range ps {
		if p.header.Get("Ce-Id") == id {
			n++
		}
	}
	return n
}

// dead waits until n messages of a route are dead-lettered, and returns all that are then.
func (r *rig) dead(route string, n int) []lent {
	r.t.Helper()
	return take(r.t, r.at("Mailbox", route+"-dead", ""), n)
}

// take receives n messages from a Mailbox, and acknowledges them.
func take(t *testing.T, address string, n int) []lent {
	t.Helper()
	var all []lent
	eventually(t, fmt.Sprintf("%d messages in %s", n, address), func() bool {
		for _, l := range receive(t, address, "max=100&wait=2s") {
			post(t, address+"/leases/"+l.Lease+"/ack", "").want(http.StatusNoContent)
			all = append(all, l)
		}
		return len(all) >= n
	})
	return all
}

// status is a resource as /status shows it.
type status struct {
	Kind, Namespace, Name, State, Condition, Message string
	Counts                                           struct {
		In, Out, Dropped, Retried, DeadLettered uint64
		InFlight, Held                          int
	}
}

// root is an address at the root of the process's port.
func (p *process) root(path string) string {
	p.t.Helper()
	for _, e := range p.seen() {
		if u, err := url.Parse(e.Address); err == nil && u.Host != "" {
			return "http://" + u.Host + path
		}
	}
	p.t.Fatalf("nothing is served in\n%s", p.lines())
	return ""
}

func (p *process) status(kind, name string) status {
	p.t.Helper()
	var all struct{ Resources []status }
	send(p.t, http.MethodGet, p.root("/status"), "").want(http.StatusOK).read(&all)
	for _, s := range all.Resources {
		if s.Kind == kind && s.Name == name {
			return s
		}
	}
	p.t.Fatalf("/status has no %s %s", kind, name)
	return status{}
}

// subscription is a route's Subscription as /status shows it.
func (r *rig) subscription(route string) status {
	r.t.Helper()
	return r.status("Subscription", route)
}

// settled waits until a route has nothing left to deliver, and returns its status.
func (r *rig) settled(route string) status {
	r.t.Helper()
	var s status
	eventually(r.t, route+" to have nothing left", func() bool {
		s = r.subscription(route)
		return s.Counts.Held == 0
	})
	return s
}

// metric reads one series; what is not there is -1.
func (p *process) metric(series string) float64 {
	p.t.Helper()
	for line := range strings.Lines(send(p.t, http.MethodGet, p.root("/metrics"), "").want(http.StatusOK).body) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			var f float64
			if _, err := fmt.Sscan(v, &f); err != nil {
				p.t.Fatal(err)
			}
			return f
		}
	}
	return -1
}

// gaps are the times between pushes.
func gaps(ps []pushed) []time.Duration {
	var all []time.Duration
	for i := 1; i < len(ps); i++ {
		all = append(all, ps[i].at.Sub(ps[i-1].at))
	}
	return all
}

// statuses answers each push with one of these, and what comes after them with 204. 0 is 204 too.
func statuses(list ...int) func(w http.ResponseWriter, p pushed, n int) {
	return func(w http.ResponseWriter, _ pushed, n int) {
		if n <= len(list) && list[n-1] != 0 {
			w.WriteHeader(list[n-1])
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// always answers every push with a status.
func always(status int) func(w http.ResponseWriter, p pushed, n int) {
	return func(w http.ResponseWriter, _ pushed, _ int) { w.WriteHeader(status) }
}

// hangUp ends the connection without an answer.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		conn.Close()
	}
}
