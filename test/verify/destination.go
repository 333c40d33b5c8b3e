package verify

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// A Mood decides how a destination treats one push. It must answer by itself if it does not let the destination go on to take the message.
// take records that the message was taken, for a mood that takes it and yet answers by itself.
type Mood func(w http.ResponseWriter, r *http.Request, m Mark, take func()) (goOn bool)

// A Destination is an HTTP server that messages are pushed to. It takes them and answers 204, unless its mood is another; it can be away.
type Destination struct {
	name    string
	record  *Record
	address string

	mu     sync.Mutex
	always Mood
	mood   *Mood // nil: none
	server *http.Server
	served chan struct{}
}

// NewDestination starts one. always, which may be nil, comes before its mood at each message.
func NewDestination(name string, r *Record, always Mood) (*Destination, error) {
	d := &Destination{name: name, record: r, always: always, address: "127.0.0.1:0"}
	if err := d.Back(); err != nil {
		return nil, err
	}
	return d, nil
}

// URL is where it is, for as long as it lives.
func (d *Destination) URL() string { return "http://" + d.address }

// Behave gives it a mood until end is called or another one comes.
func (d *Destination) Behave(m Mood) (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	mine := &m
	d.mood = mine
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.mood == mine {
			d.mood = nil
		}
	}
}

// Away ends all connections, and refuses those that come.
func (d *Destination) Away() {
	d.mu.Lock()
	server, served := d.server, d.served
	d.server = nil
	d.mu.Unlock()
	if server != nil {
		_ = server.Close() // the listener and the connections end, whatever they say
		<-served
	}
}

// Back ends Away.
func (d *Destination) Back() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server != nil {
		return nil
	}
	l, err := net.Listen("tcp", d.address)
	if err != nil {
		return err
	}
	d.address = l.Addr().String()
	server, served := &http.Server{Handler: http.HandlerFunc(d.serve), ReadHeaderTimeout: 10 * time.Second}, make(chan struct{})
	d.server, d.served = server, served
	go func() {
		defer close(served)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.record.Object(d.name, "its server ended: %v", err)
		}
	}()
	return nil
}

func (d *Destination) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender is gone
	}
	m, err := Read(body)
	if err != nil {
		d.record.Object(d.name, "%v", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	take := func() { d.record.Saw(d.name, m) }
	if d.always != nil && !d.always(w, req, m, take) {
		return
	}
	d.mu.Lock()
	mood := d.mood
	d.mu.Unlock()
	if mood != nil && !(*mood)(w, req, m, take) {
		return
	}
	take()
	w.WriteHeader(http.StatusNoContent)
}
