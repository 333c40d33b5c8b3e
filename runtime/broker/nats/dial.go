package nats

import (
	"errors"
	"net"
	"sync"

	natsgo "github.com/nats-io/nats.go"
)

// A gate makes sure that what is sent while it is held goes out on one connection. nats.go renews a connection by itself: of two messages
// sent one after the other the first can be lost with the old connection and the second go out on the new one. So no new connection is
// made while somebody is sending, and whoever begins to send looks first whether there is a session.
type gate struct {
	mu   sync.RWMutex
	conn *conn
	dial natsgo.CustomDialer
	in   natsgo.InProcessConnProvider
}

// errSending makes nats.go dial again a moment later. It holds its own lock while it dials, which senders need, so waiting is no choice.
var errSending = errors.New("a batch is being sent on the connection before")

func (g *gate) end() error {
	if !g.mu.TryLock() {
		return errSending
	}
	defer g.mu.Unlock()
	g.conn.endSession()
	return nil
}

// Dial is for nats.go.
func (g *gate) Dial(network, address string) (net.Conn, error) {
	if err := g.end(); err != nil {
		return nil, err
	}
	return g.dial.Dial(network, address)
}

// InProcessConn is for nats.go.
func (g *gate) InProcessConn() (net.Conn, error) {
	if err := g.end(); err != nil {
		return nil, err
	}
	return g.in.InProcessConn()
}

// send calls f, all of whose messages go out in the session that is open now, or not at all.
func (g *gate) send(f func() error) (*session, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	s, err := g.conn.online()
	if err != nil {
		return nil, err
	}
	return s, f()
}
