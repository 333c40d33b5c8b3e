package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A round is one contender's work, seen from the process that drives and checks it.
type round struct {
	url      string // of the broker
	messages int
	outputs  int // how many come out at the end, where that is not all
	process  *process

	nc *nats.Conn
	js jetstream.JetStream

	listener net.Listener
	// handle is what this process's own server does: the subscriber of a push, the source of a poller.
	handle http.HandlerFunc

	started    time.Time
	took       time.Duration // where it is not the time from the start to the return of drive
	once       sync.Once
	first      time.Time
	disordered bool
}

func connect(url string) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096))
	return nc, js, err
}

func (r *round) connect() (err error) {
	if r.nc, r.js, err = connect(r.url); err != nil {
		return err
	}
	if r.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	go http.Serve(r.listener, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { r.handle(w, q) })) //nolint:gosec,errcheck // on loopback, until the round ends
	return nil
}

func (r *round) server() string { return "http://" + r.listener.Addr().String() }

func (r *round) close() {
	r.listener.Close()
	r.nc.Close()
}

// done waits until the contender says that all is done.
func (r *round) done(ctx context.Context) error { return r.process.await(ctx) }

// see notes the moment of the first message.
func (r *round) see() { r.once.Do(func() { r.first = time.Now() }) }

// stored waits until a stream holds n messages.
func (r *round) stored(ctx context.Context, stream string, n int) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := r.js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		switch has := s.CachedInfo().State.Msgs; {
		case has == uint64(n):
			return nil
		case has > uint64(n):
			return fmt.Errorf("%s holds %d messages, of %d", stream, has, n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s holds %d messages, of %d", stream, s.CachedInfo().State.Msgs, n)
		}
	}
}

// fill stores orders in the stream in, under the subject that has its name.
func (r *round) fill(ctx context.Context, stream string) error {
	for i := range r.messages {
		o := makeOrder(i)
		if o.passes() {
			r.outputs++
		}
		if _, err := r.js.PublishMsgAsync(event(stream, strconv.Itoa(i), o.Customer, encode(o)), jetstream.WithStallWait(time.Minute)); err != nil {
			return err
		}
	}
	select {
	case <-r.js.PublishAsyncComplete():
		return r.stored(ctx, stream, r.messages)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// event is a CloudEvent in the NATS binding's binary mode.
func event(subject, id, key string, data []byte) *nats.Msg {
	return &nats.Msg{Subject: subject, Data: data, Header: nats.Header{
		"ce-specversion": {"1.0"}, "ce-id": {id}, "ce-source": {"/bench"}, "ce-type": {"bench"}, "ce-partitionkey": {key}, "content-type": {"application/json"}}}
}

// callers are how many requests are under way at one time.
const callers = 32

// client keeps a connection for each caller.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers, MaxConnsPerHost: callers}, Timeout: time.Minute}

// callAll runs call for 0 to n-1, callers at a time, and stops at the first error.
func callAll(ctx context.Context, n int, call func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := call(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// post sends body and reads the answer, which must have the status wanted.
func post(ctx context.Context, url string, body []byte, header http.Header, want int) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if header != nil {
		q.Header = header
	}
	a, err := client.Do(q)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	answer, err := io.ReadAll(a.Body)
	if err != nil {
		return nil, err
	}
	if a.StatusCode != want {
		return nil, fmt.Errorf("%s answered %s: %s", url, a.Status, answer)
	}
	return answer, nil
}

// serve is a raw contender's HTTP server.
func serve(ctx context.Context, w *worker, handler http.Handler) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	w.ready("http://" + l.Addr().String())
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// order is the input, as an expert would declare it.
type order struct {
	ID       int    `json:"id"`
	Type     string `json:"type"`
	Customer string `json:"customer"`
	Total    int    `json:"total"`
	Lines    []line `json:"lines"`
	Note     string `json:"note"`
}

type line struct {
	SKU   string `json:"sku"`
	Qty   int    `json:"qty"`
	Price int    `json:"price"`
}

func (o *order) passes() bool { return o.Type == "order.created" && o.Total > 100 }

const keys = 500

// makeOrder makes the order of number i: some 300 bytes, of which two in five pass.
func makeOrder(i int) order {
	o := order{ID: i, Type: "order.created", Customer: fmt.Sprintf("customer-%d", i%keys), Total: 101 + i%900,
		Note: "please leave it at the back door, and ring the bell twice when nobody comes at once"}
	switch {
	case i%5 < 2:
		o.Type = "order.cancelled"
	case i%5 == 2:
		o.Total = i % 100
	}
	for l := range 3 {
		o.Lines = append(o.Lines, line{fmt.Sprintf("sku-%d", (i+l)%5000), 1 + l, 3 + i%40})
	}
	return o
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		fatal(err)
	}
	return b
}
