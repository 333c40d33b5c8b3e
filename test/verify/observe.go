package verify

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Receive takes messages from a Mailbox by leases until ctx ends. base gives its address, which may change. What is received is recorded and
// acknowledged; an acknowledgement without an answer is repeated until there is one, for a lease outlives the process that gave it.
func Receive(ctx context.Context, name string, r *Record, base func() string) {
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		if err := receiveOnce(ctx, client, name, r, base); err != nil {
			wait(ctx, 100*time.Millisecond)
		}
	}
}

func receiveOnce(ctx context.Context, client *http.Client, name string, r *Record, base func() string) error {
	var got struct {
		Messages []struct {
			Lease string
			Event struct{ Data json.RawMessage }
		}
	}
	status, err := call(ctx, client, base()+"/messages/receive?max=10&wait=2s", &got)
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("receiving: %d %w", status, err)
	}
	for _, one := range got.Messages {
		m, err := Read(one.Event.Data)
		if err != nil {
			r.Object(name, "%v", err)
			continue
		}
		r.Saw(name, m)
		for ctx.Err() == nil {
			status, err := call(ctx, client, base()+"/leases/"+one.Lease+"/ack", nil)
			if err == nil && (status == http.StatusNoContent || status == http.StatusGone) {
				break
			}
			wait(ctx, 50*time.Millisecond)
		}
	}
	return nil
}

// call POSTs and decodes a good answer.
func call(ctx context.Context, client *http.Client, url string, into any) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if into != nil && resp.StatusCode/100 == 2 {
		return resp.StatusCode, json.NewDecoder(resp.Body).Decode(into)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// Live reads the live events of a Topic until ctx ends, and resumes behind the last one that it had. base gives the Topic's address, which may
// change. connected is called when the first connection stands: what is published from then on is meant for it.
func Live(ctx context.Context, name string, r *Record, base func() string, connected func()) {
	client := &http.Client{}
	defer client.CloseIdleConnections()
	for last := ""; ctx.Err() == nil; {
		if err := live(ctx, client, name, r, base(), &last, connected); err == nil {
			connected = func() {}
		}
		wait(ctx, 50*time.Millisecond)
	}
}

// live reads one connection to its end. An error: there was none.
func live(ctx context.Context, client *http.Client, name string, r *Record, url string, last *string, connected func()) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	if *last != "" {
		req.Header.Set("Last-Event-ID", *last)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("live events: %s", resp.Status)
	}
	connected()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 4<<20)
	var id, kind, data string
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case field == "id":
			id = value
		case field == "event":
			kind = value
		case field == "data":
			data += value
		case field == "" && data != "" && kind == "gap":
			r.Object(name, "a gap in the live events: %s", data)
			kind, data = "", ""
		case field == "" && data != "":
			sawLive(name, r, data)
			*last, kind, data = id, "", ""
		}
	}
	return nil
}

func sawLive(name string, r *Record, data string) {
	var event struct{ Data json.RawMessage }
	err := json.Unmarshal([]byte(data), &event)
	var m Mark
	if err == nil {
		m, err = Read(event.Data)
	}
	if err != nil {
		r.Object(name, "%v", err)
		return
	}
	r.Saw(name, m)
}

// Await waits until an observer has seen all that is stored and meant for it. What is missing when ctx ends is in the error.
func Await(ctx context.Context, r *Record, observer string) error {
	for {
		missing, changed := r.Missing(observer)
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s has not seen %d stored messages: %s: %w", observer, len(missing), some(missing), ctx.Err())
		}
	}
}

// AwaitFirst waits until an observer has seen anything.
func AwaitFirst(ctx context.Context, r *Record, observer string) error {
	for {
		n, changed := r.Seen(observer)
		if n > 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s has seen nothing: %w", observer, ctx.Err())
		}
	}
}
