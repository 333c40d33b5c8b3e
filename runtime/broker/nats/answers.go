package nats

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	natsgo "github.com/nats-io/nats.go"
)

// answers is where one collector hears what became of its messages. Each wave of messages has a round of its own, so that a late answer to
// an earlier one is not taken for one of this.
type answers struct {
	sub    *natsgo.Subscription
	ch     chan *natsgo.Msg
	prefix string
	round  uint64
	start  string // of this round's subjects
}

func (c *conn) newAnswers() (*answers, error) {
	a := &answers{ch: make(chan *natsgo.Msg, 4*maxBatch), prefix: natsgo.NewInbox() + "."}
	var err error
	a.sub, err = c.nc.ChanSubscribe(a.prefix+"*", a.ch)
	return a, err
}

func (a *answers) close() { _ = a.sub.Unsubscribe() } // fails only when the connection is closed

// begin starts a round.
func (a *answers) begin() {
	a.round++
	a.start = a.prefix + strconv.FormatUint(a.round, 36) + "-"
}

// subject is where the answer to message i of this round goes.
func (a *answers) subject(i int) string { return a.start + strconv.Itoa(i) }

// await calls got with each answer of this round until n have come, ctx or the session ends. It returns why it ended early.
func (a *answers) await(ctx context.Context, s *session, done <-chan struct{}, n int, got func(i int, m *natsgo.Msg)) error {
	for n > 0 {
		select {
		case m := <-a.ch:
			rest, ok := strings.CutPrefix(m.Subject, a.start)
			if !ok {
				continue
			}
			i, err := strconv.Atoi(rest)
			if err != nil {
				continue
			}
			got(i, m)
			n--
		case <-s.ctx.Done():
			return errAway
		case <-done:
			return fmt.Errorf("nats: %w", natsgo.ErrConnectionClosed)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// answered reads one answer of a stream.
func answered(m *natsgo.Msg) error {
	if bytes.HasPrefix(m.Data, []byte(`{"stream":`)) && !bytes.Contains(m.Data, []byte(`"error"`)) {
		return nil // what all good answers look like; a duplicate is good too
	}
	_, err := acked(m)
	return err
}

// acked reads all of an answer.
func acked(m *natsgo.Msg) (pubAck, error) {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return pubAck{}, natsgo.ErrNoResponders
	}
	return replied(m)
}
