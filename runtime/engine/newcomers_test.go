package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

func TestAShutdownClosesConnectionsWithoutARequest(t *testing.T) {
	came, answer := make(chan struct{}), make(chan struct{})
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(came)
			<-answer
		}
		_, _ = io.WriteString(w, "done") // the client says what it got
	})}
	CloseNewcomers(server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	var quiet []net.Conn
	for _, said := range []string{"", "POST /default/topics/orders HT", "GET / HTTP/1.1\r\nHost: x\r\n"} {
		c, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, said); err != nil {
			t.Fatal(err)
		}
		quiet = append(quiet, c)
	}
	got := make(chan string, 1)
	go func() { // connections are accepted in their order: with this one the others are known
		resp, err := http.Get("http://" + listener.Addr().String() + "/slow")
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body) // what is missing shows
		got <- string(body)
	}()
	<-came

	ended := make(chan error, 1)
	go func() { ended <- server.Shutdown(context.Background()) }()
	for _, c := range quiet {
		_ = c.SetReadDeadline(time.Now().Add(4 * time.Second)) // before the server would close it by itself
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection without a request stays open: %v", err)
		}
	}
	close(answer)
	if body := <-got; body != "done" {
		t.Errorf("the request under way got %q", body)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
