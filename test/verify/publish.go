package verify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Traffic is what is published.
type Traffic struct {
	Run    string         // goes into ids, so that runs on one Topic do not meet
	Prefix string         // of the keys; "": k
	Keys   int            // published side by side; within a key one after the other
	PerKey int            // messages of each key; 0: until ctx ends
	Pause  time.Duration  // between two messages of a key
	Size   func(Mark) int // of the data of a message, in bytes, at least; nil: as they are
	To     func() string  // where to POST: the address may change while the run goes on
}

// Publish publishes until all is done or ctx ends. A message without an answer is sent again under the same id until it has one: the next of
// its key waits, or there would be no order to keep.
func Publish(ctx context.Context, r *Record, t Traffic) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: t.Keys}}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	for i := range t.Keys {
		all.Go(func() {
			key := cmp.Or(t.Prefix, "k") + strconv.Itoa(i)
			for seq := 1; (t.PerKey == 0 || seq <= t.PerKey) && ctx.Err() == nil; seq++ {
				m := Mark{key, seq}
				fate, tries := t.deliver(ctx, client, m)
				r.published(Publication{m, fate, time.Now(), tries})
				wait(ctx, t.Pause)
			}
		})
	}
	all.Wait()
}

// deliver sends one message until its fate is known.
func (t *Traffic) deliver(ctx context.Context, client *http.Client, m Mark) (fate Fate, tries int) {
	data, err := json.Marshal(payload{t.Run, m})
	if err != nil {
		panic(err) // two strings and a number
	}
	if t.Size != nil {
		data = append(data, bytes.Repeat([]byte(" "), max(t.Size(m)-len(data), 0))...)
	}
	asked := false // an earlier try may have been taken
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		tries++
		switch status := t.post(ctx, client, m, data); {
		case status/100 == 2:
			return Stored, tries
		case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable, status == http.StatusInsufficientStorage:
			// not taken; later
		case status/100 == 4 && !asked:
			return Refused, tries
		default:
			asked = true
		}
		if !wait(ctx, pause) {
			return Unknown, tries
		}
	}
}

// post is one try; 0: no answer.
func (t *Traffic) post(ctx context.Context, client *http.Client, m Mark, data []byte) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.To(), bytes.NewReader(data))
	if err != nil {
		return 0
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Ce-Specversion": "1.0", "Ce-Type": "waybill.verify", "Ce-Source": "/verify/" + t.Run,
		"Ce-Id": t.Run + "-" + m.Key + "-" + strconv.Itoa(m.Seq), "Ce-Partitionkey": m.Key,
	} {
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return 0
	}
	if resp.StatusCode == http.StatusAccepted && strings.Contains(string(body), `"Accepted"`) {
		return 0 // in memory only: that is no promise
	}
	return resp.StatusCode
}

func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
