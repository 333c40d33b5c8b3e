package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// subscriber records the ids that it has answered with 204.
type subscriber struct {
	*httptest.Server
	mu   sync.Mutex
	seen map[string]int
}

func newSubscriber(t *testing.T) *subscriber {
	s := &subscriber{seen: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		s.mu.Lock()
		s.seen[r.Header.Get("Ce-Id")]++
		s.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *subscriber) missing(ids []string) (missing []string, duplicates int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if s.seen[id] == 0 {
			missing = append(missing, id)
		}
	}
	for _, n := range s.seen {
		duplicates += n - 1
	}
	return missing, duplicates
}

// publish sends numbered events until stop is closed, and returns the ids that were answered Stored.
func publish(url, prefix string, stop <-chan struct{}) (stored []string) {
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return stored
		default:
		}
		id := fmt.Sprintf("%s-%d", prefix, i)
		req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(`{"n":1}`))
		if err != nil {
			panic(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", id)
		resp, err := client.Do(req)
		if err != nil {
			continue // killed; the next one goes to whoever is started next
		}
		var answer struct{ State string }
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		if err == nil && answer.State == "Stored" {
			stored = append(stored, id)
		}
	}
}

// TestWhatWasAnsweredStoredIsDelivered kills and stops the process under load, again and again, and counts.
func TestWhatWasAnsweredStoredIsDelivered(t *testing.T) {
	sub := newSubscriber(t)
	manifests := write(t, embedded+fmt.Sprintf(`---
apiVersion: waybill.dev/v1alpha1
kind: Subscription
metadata: {name: audit}
spec:
  topicRef: {name: orders}
  startFrom: {position: Earliest}
  ackWait: 2s
  deliverTo: {uri: %s}
`, sub.URL))
	data := t.TempDir()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	args := []string{"-f", manifests, "--data", data, "--port", port, "--drain", "10s"}

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	var mu sync.Mutex
	var stored []string
	p := start(t, args...).waitUp()
	url := p.address("Topic", "orders")
	stop := make(chan struct{})
	var publishers sync.WaitGroup
	for i := range 4 {
		publishers.Go(func() {
			ids := publish(url, fmt.Sprintf("p%d", i), stop)
			mu.Lock()
			stored = append(stored, ids...)
			mu.Unlock()
		})
	}
	for round := range 6 {
		under := time.NewTimer(time.Duration(200+random.IntN(600)) * time.Millisecond)
		<-under.C
		if round%2 == 0 {
			p.signal(syscall.SIGKILL)
		} else {
			p.signal(syscall.SIGINT)
			if p.exitCode() != exitDone {
				t.Errorf("a drain ended with exit code %d: %s\n%s", p.exitCode(), p.last, p.stderr.String())
			}
		}
		p = start(t, args...).waitUp()
	}
	close(stop)
	publishers.Wait()

	if len(stored) == 0 {
		t.Fatal("nothing was stored: the test has tested nothing")
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		missing, duplicates := sub.missing(stored)
		if len(missing) == 0 {
			t.Logf("%d stored, 0 lost, %d delivered more than once, over 3 kills and 3 drains", len(stored), duplicates)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d stored events were never delivered: %v …", len(missing), len(stored), missing[:min(5, len(missing))])
		}
		select {
		case <-p.ended:
			t.Fatalf("ended: %v\n%s", p.err, p.stderr.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
