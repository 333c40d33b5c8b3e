package gateway

import (
	"context"
	"net/http"
	"strings"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/reply"
)

// modeLeases is the mode of a mailbox whose messages are received here; in the others a handler or a Pipeline takes them.
const modeLeases = "Leases"

const mailboxPaths = "POST /messages, /messages/receive, /leases/ack and /leases/LEASE/ with ack, nack, reject, reply or extend"

// Mailbox serves a Mailbox: /messages takes messages, /messages/receive and /leases hand them out.
type Mailbox struct {
	front
	plan   plan.Mailbox
	sealer sealer
	book   leasebook
	polls  pollDesk
	lent   tally // messages that this replica has given out leases on
}

// NewMailbox makes the handler.
func NewMailbox(p plan.Mailbox, deps Deps) *Mailbox {
	m := &Mailbox{plan: p}
	m.init(deps, "mailboxes", p.Object)
	m.sealer = sealer{keys: deps.LeaseKeys, mailbox: []byte(deps.Resource.String() + "\x00" + p.Object.Broker + "\x00" + p.Object.Name)}
	m.book.notes = map[[8]byte]*note{}
	m.polls = pollDesk{open: m.openLeases, admit: m.admit, aside: m.setAside, release: m.handBack, log: m.log}
	m.polls.init()
	return m
}

func (m *Mailbox) broker() *broker.Broker { return m.deps.Broker(m.plan.Object.Broker) }

func (m *Mailbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case EncodedSlash(r.URL.RawPath):
		m.notFound(w, mailboxPaths)
	case path == "/messages":
		if m.allow(w, r, http.MethodPost) && m.authenticated(w, r, m.plan.Publish) && !m.refuseWhileDraining(w) {
			m.send(w, r)
		}
	case path == "/messages/receive":
		if m.mayReceive(w, r) {
			m.receive(w, r)
		}
	case path == "/leases/ack":
		if m.mayReceive(w, r) {
			m.settleList(w, r)
		}
	case strings.HasPrefix(path, "/leases/"):
		token, what, _ := strings.Cut(path[len("/leases/"):], "/")
		settle := m.settlements()[what]
		if settle == nil || token == "" {
			m.notFound(w, mailboxPaths)
			return
		}
		if m.mayReceive(w, r) {
			settle(w, r, token)
		}
	default:
		m.notFound(w, mailboxPaths)
	}
}

// EncodedSlash reports whether a slash of a URL's RawPath is percent-encoded: it separates nothing (RFC 3986, section 2.2).
func EncodedSlash(raw string) bool { return strings.Contains(strings.ToLower(raw), "%2f") }

// mayReceive checks method, token and mode; when it is false it has answered.
func (m *Mailbox) mayReceive(w http.ResponseWriter, r *http.Request) bool {
	if !m.allow(w, r, http.MethodPost) || !m.authenticated(w, r, m.plan.Receive) {
		return false
	}
	if m.plan.Mode == modeLeases {
		return true
	}
	by := "its handler (spec.deliverTo)"
	if m.plan.Mode == "Pipeline" {
		by = "a Pipeline"
	}
	m.refuse(w, problem{Status: http.StatusConflict, Reason: "WrongMode", Detail: "the messages of this mailbox are taken by " + by + "; they cannot be received here"})
	return false
}

// send serves POST /messages.
func (m *Mailbox) send(w http.ResponseWriter, r *http.Request) {
	prefer, ok := readPrefer(r.Header)
	if !ok {
		m.refuse(w, badArgument("header Prefer: wait must be a number of seconds, 1 or more"))
		return
	}
	in := m.read(w, r, limits{data: m.plan.MaxMessageBytes})
	if in == nil {
		return
	}
	if prefer.wait > 0 {
		m.ask(w, r, m.broker(), m.deps.Desk(m.plan.Object.Broker), in, request{want: reply.Reply, timeout: prefer.wait, expires: true})
		return
	}
	m.publish(w, r, m.broker(), in, prefer.async)
}

// discardBody reads a body that has no meaning, so that a client that goes away is noticed. When it is false it has answered.
func (m *Mailbox) discardBody(w http.ResponseWriter, r *http.Request) bool {
	_, reserved, ok := m.readBody(w, r, 64<<10)
	if ok {
		m.budget.give(reserved)
	}
	return ok
}

// Drain answers long polls with nothing at once, refuses new messages, and returns when what was accepted is stored or ctx ends. Leases
// may be settled as long as the server serves.
func (m *Mailbox) Drain(ctx context.Context) error {
	m.stopTaking()
	m.polls.close()
	m.book.stopTimers()
	return m.drain(ctx)
}
