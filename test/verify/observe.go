package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A Mood decides how a subscriber treats one push. It must answer by itself if it does not take the message.
type Mood func(w http.ResponseWriter, r *http.Request, m Mark) (takes bool)

// Subscriber is the handler of a server that messages are pushed to. What mood does not refuse is recorded and answered with 204. mood may
// be nil.
func Subscriber(name string, r *Record, mood Mood) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // the sender is gone
		}
		m, err := Read(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if mood != nil && !mood(w, req, m) {
			return
		}
		r.Saw(name, m)
		w.WriteHeader(http.StatusNoContent)
	})
}

// Receive takes messages from a Mailbox by leases until ctx ends. base gives its address. What is received is recorded and acknowledged; an
// acknowledgement without an answer is let be, the message comes again.
func Receive(ctx context.Context, name string, r *Record, base func() string) {
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		if err := receiveOnce(ctx, client, name, r, base()); err != nil {
			wait(ctx, 100*time.Millisecond)
		}
	}
}

func receiveOnce(ctx context.Context, client *http.Client, name string, r *Record, base string) error {
	var got struct {
		Messages []struct {
			Lease string
			Event struct{ Data json.RawMessage }
		}
	}
	if err := call(ctx, client, base+"/messages/receive?max=50&wait=2s", &got); err != nil {
		return err
	}
	for _, one := range got.Messages {
		m, err := Read(one.Event.Data)
		if err != nil {
			return err
		}
		r.Saw(name, m)
		if err := call(ctx, client, base+"/leases/"+one.Lease+"/ack", nil); err != nil {
			return err
		}
	}
	return nil
}

// call POSTs and decodes the answer.
func call(ctx context.Context, client *http.Client, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// Await waits until an observer has seen all that is stored. What is missing when ctx ends is in the error.
func Await(ctx context.Context, r *Record, observer string) error {
	for {
		n, changed := r.Missing(observer)
		if n == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s has not seen %d stored messages: %w", observer, n, ctx.Err())
		}
	}
}
