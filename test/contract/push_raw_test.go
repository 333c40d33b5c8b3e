package contract

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// A rawServer speaks HTTP/1.1 by hand, for what net/http's server does not do. /early is answered after its head and before its body, /kept
// as any server does, on connections that are kept.
type rawServer struct {
	listener net.Listener

	mu    sync.Mutex
	conns map[string]map[net.Conn]bool // by path
}

func newRawServer(t *testing.T) *rawServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{listener: l, conns: map[string]map[net.Conn]bool{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		for _, all := range s.conns {
			for c := range all {
				c.Close()
			}
		}
		s.mu.Unlock()
		serving.Wait()
	})
	return s
}

func (s *rawServer) url(path string) string { return "http://" + s.listener.Addr().String() + path }

func (s *rawServer) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.conns[r.URL.Path] == nil {
			s.conns[r.URL.Path] = map[net.Conn]bool{}
		}
		s.conns[r.URL.Path][c] = true
		s.mu.Unlock()
		if strings.HasPrefix(r.URL.Path, "/early") {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
			_, _ = io.Copy(io.Discard, in) // only now, so that the answer is not lost with a reset
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// connections is on how many a path was asked for.
func (s *rawServer) connections(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns[path])
}

// newDrippingServer answers every connection with a head that never ends, a byte at a time, and returns its address.
func newDrippingServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	over := make(chan struct{})
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				head := "HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 10_000)
				for i := range head {
					if _, err := io.WriteString(c, head[i:i+1]); err != nil {
						return
					}
					select {
					case <-over:
						return
					case <-time.After(10 * time.Millisecond):
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		close(over)
		l.Close()
		serving.Wait()
	})
	return "http://" + l.Addr().String()
}
