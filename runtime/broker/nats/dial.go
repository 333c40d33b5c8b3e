package nats

import (
	"net"
	"sync"

	natsgo "github.com/nats-io/nats.go"
)

// A gate makes sure that what is sent while it is held goes out on one connection. nats.go renews a connection by itself: of two messages
// sent one after the other the first can be lost with the old connection and the second go out on the new one. So a new connection is
// only made when nobody is sending, and whoever begins to send looks first whether the session is still the one it means.
type gate struct {
	mu   sync.RWMutex
	conn *conn
	dial natsgo.CustomDialer
	in   natsgo.InProcessConnProvider
}

func (g *gate) ended() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conn.endSession()
}

// Dial is for nats.go.
func (g *gate) Dial(network, address string) (net.Conn, error) {
	g.ended()
	return g.dial.Dial(network, address)
}

// InProcessConn is for nats.go.
func (g *gate) InProcessConn() (net.Conn, error) {
	g.ended()
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
