package engine

import (
	"net"
	"net/http"
	"sync"
)

// CloseNewcomers lets the Shutdown of s close connections on which no request has come yet, such as a browser opens ahead and a TCP check
// leaves open. By itself it waits five seconds for each to become one.
func CloseNewcomers(s *http.Server) {
	n := &newcomers{conns: map[net.Conn]bool{}}
	s.ConnState = n.watch
	s.RegisterOnShutdown(n.close)
}

// newcomers are the connections of which no whole header of a request was read.
type newcomers struct {
	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

func (n *newcomers) watch(c net.Conn, state http.ConnState) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(n.conns, c)
	case n.closed: // it was accepted while the listener closed
		_ = c.Close() // nothing was said on it
	default:
		n.conns[c] = true
	}
}

func (n *newcomers) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for c := range n.conns {
		_ = c.Close() // as above
	}
}
