package contract

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// slow sends bytes, in which %s is the path of address, and leaves the connection open until the test ends.
func slow(t *testing.T, address, request string) net.Conn {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := fmt.Fprintf(c, request, u.Path); err != nil {
		t.Fatal(err)
	}
	return c
}

// raw sends bytes, in which %s is the path of address, and reads one answer. With over it ends its side of the connection first.
func raw(t *testing.T, address, request string, over bool) *http.Response {
	t.Helper()
	c := slow(t, address, request)
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if over {
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	a, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	return a
}
