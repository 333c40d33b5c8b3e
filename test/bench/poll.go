package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	items      = 1000 // of a page
	pollerYAML = `
kind: Poller
metadata: {name: source, namespace: default}
spec:
  schedule: {every: 500ms, jitterPercent: 0}
  http: {url: SERVER/items}
  items: {cel: body.items}
  to: {topicRef: {name: in}}
`
)

// poller asks a page of 1,000 items, all new each time, and publishes them. What is timed is a poll, from the request to the last item stored.
func poller() job {
	return job{
		name: "poll", title: fmt.Sprintf("HTTP → NATS, pages of %d items (Poller)", items), unit: "items", messages: 10 * items,
		contenders: []contender{{name: "raw", work: rawPoll}, runs(topics+"---"+pollerYAML, "")},
		prepare: func(ctx context.Context, r *round) (traffic, error) {
			if err := ensure(ctx, r.url, topics); err != nil {
				return traffic{}, err
			}
			s := &source{round: r, asked: make([]time.Time, r.messages/items), all: make(chan struct{})}
			r.handle = s.serve
			if _, err := r.nc.Subscribe(in, s.arrived); err != nil {
				return traffic{}, err
			}
			return traffic{drive: s.polled, check: func(ctx context.Context) error { return r.stored(ctx, in, r.messages) }}, r.nc.Flush()
		},
	}
}

// source has a page of new items for each of so many requests, and notes how long each takes to be stored.
type source struct {
	round *round
	mu    sync.Mutex
	asked []time.Time // of the pages that it has
	page  int
	got   int
	took  []time.Duration
	all   chan struct{} // closed when all items are stored
}

func (s *source) serve(w http.ResponseWriter, _ *http.Request) {
	page := struct {
		Items []order `json:"items"`
	}{[]order{}}
	s.mu.Lock()
	if s.page < len(s.asked) {
		for i := range items {
			page.Items = append(page.Items, makeOrder(s.page*items+i))
		}
	}
	body := encode(page)
	if s.page < len(s.asked) {
		s.asked[s.page] = time.Now()
		s.page++
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the asker is gone
}

func (s *source) arrived(*nats.Msg) {
	s.round.see()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.got++; s.got%items == 0 && s.got <= s.round.messages {
		s.took = append(s.took, time.Since(s.asked[s.got/items-1]))
	}
	if s.got == s.round.messages {
		close(s.all)
	}
}

// polled waits for all items; a round lasts as many times its median poll as there were polls.
func (s *source) polled(ctx context.Context) error {
	select {
	case <-s.all:
	case <-ctx.Done():
		return fmt.Errorf("items are missing: %w", ctx.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.took)
	s.round.took = s.took[len(s.took)/2] * time.Duration(len(s.asked))
	return nil
}

// rawPoll is an expert's loop; an item's id is the hash of its content.
func rawPoll(ctx context.Context, w *worker) error {
	nc, js, err := connect(w.URL)
	if err != nil {
		return err
	}
	defer nc.Close()
	w.ready("")
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	seen := map[string]bool{}
	for {
		if seen, err = pollOnce(ctx, js, w.Server+"/items", seen); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// pollOnce publishes what was not in the page before.
func pollOnce(ctx context.Context, js jetstream.JetStream, url string, before map[string]bool) (map[string]bool, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	a, err := client.Do(q)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		return nil, err
	}
	var page struct{ Items []json.RawMessage }
	if err := json.Unmarshal(body, &page); err != nil {
		return nil, err
	}
	now := make(map[string]bool, len(page.Items))
	var futures []jetstream.PubAckFuture
	for _, item := range page.Items {
		sum := sha256.Sum256(item)
		id := hex.EncodeToString(sum[:16])
		if now[id] = true; before[id] {
			continue
		}
		m := event(in, id, "", item)
		m.Header.Set(jetstream.MsgIDHeader, id)
		future, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute))
		if err != nil {
			return nil, err
		}
		futures = append(futures, future)
	}
	for _, f := range futures {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			return nil, err
		}
	}
	return now, nil
}
