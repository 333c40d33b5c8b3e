package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/reply"
)

// silentInbox is an inbox that nobody ever writes to.
type silentInbox struct{}

func (silentInbox) Address() string             { return "inbox" }
func (silentInbox) Close(context.Context) error { return nil }
func (silentInbox) Receive(ctx context.Context, _ []message.Message) (int, error) {
	<-ctx.Done()
	return 0, nil
}

func newTestFront(t *testing.T, p *scripted) (*front, *reply.Desk) {
	t.Helper()
	f := &front{}
	f.init(Deps{Resource: plan.Resource{Kind: "Mailbox", Namespace: "default", Name: "m"}, Log: slog.New(slog.DiscardHandler)}, "mailboxes", plan.Ref{})
	f.store.publish = p.publish
	desk := reply.NewDesk(func(context.Context) (driver.Inbox, error) { return silentInbox{}, nil }, slog.New(slog.DiscardHandler))
	if err := desk.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f, desk
}

// waits asks as ask does, without a connection to a broker. The result is what storing, or else waiting, ended with.
func (f *front) waits(ctx context.Context, desk *reply.Desk, id string) error {
	in := take(&f.budget, id)
	call, err := desk.Expect(reply.Request{Source: "/s", ID: id, Want: reply.Reply}, time.Time{})
	if err != nil {
		return err
	}
	defer call.Close()
	if !call.Joined {
		if err := f.storeRequest(ctx, call, in); err != nil {
			return err
		}
	}
	_, err = call.Wait(ctx)
	return err
}

func TestARepeatedRequestIsStoredAlthoughTheFirstConnectionWasLost(t *testing.T) {
	for name, last := range map[string]error{"stored": nil, "full": driver.ErrFull} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &scripted{block: make(chan struct{}), answer: func(m message.Message) error {
					if m.ID == "order" {
						return last
					}
					return nil
				}}
				f, desk := newTestFront(t, p)
				defer desk.Close()
				if _, err := f.store.put(take(&f.budget, "on its way"), true); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				first, lost := context.WithCancel(t.Context())
				one, two := make(chan error, 1), make(chan error, 1)
				go func() { one <- f.waits(first, desk, "order") }()
				synctest.Wait()
				second, timeout := context.WithTimeoutCause(t.Context(), 9*time.Second, errTimeout)
				defer timeout()
				began := time.Now()
				go func() { two <- f.waits(second, desk, "order") }()
				synctest.Wait()
				lost()
				if err := <-one; !errors.Is(err, driver.ErrUnknown) {
					t.Errorf("the first ended with %v", err)
				}
				close(p.block)
				err := <-two
				took := time.Since(began)
				if err := f.store.drain(t.Context()); err != nil {
					t.Fatal(err)
				}
				switch {
				case last == nil && (!errors.Is(err, errTimeout) || len(p.stored) != 2):
					t.Errorf("stored %q, the second ended with %v", p.stored, err)
				case last != nil && (!errors.Is(err, last) || took != 0):
					t.Errorf("the second ended with %v after %s", err, took)
				}
			})
		})
	}
}

func TestARequestThatNobodyWaitsForAnyMoreIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{block: make(chan struct{})}
		f, desk := newTestFront(t, p)
		defer desk.Close()
		if _, err := f.store.put(take(&f.budget, "on its way"), true); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.waits(ctx, desk, "order"); !errors.Is(err, errNotStored) {
			t.Errorf("got %v", err)
		}
		close(p.block)
		if err := f.store.drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(p.stored) != 1 {
			t.Errorf("stored %q", p.stored)
		}
	})
}

func TestWhoJoinedARequestThatCannotBeStoredIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{block: make(chan struct{}), answer: func(message.Message) error { return driver.ErrFull }}
		f, desk := newTestFront(t, p)
		defer desk.Close()
		results := make(chan error, 2)
		for range 2 {
			go func() { results <- f.waits(t.Context(), desk, "order") }()
			synctest.Wait()
		}
		close(p.block)
		for range 2 {
			if err := <-results; !errors.Is(err, driver.ErrFull) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestRespondSaysWhatBecameOfARequest(t *testing.T) {
	f := &front{}
	for _, c := range []struct {
		answer reply.Answer
		status int
		body   string
	}{
		{reply.Answer{Kind: reply.Failed, Reason: "Rejected"}, http.StatusBadGateway, "Rejected"},
		{reply.Answer{Kind: reply.Processed}, http.StatusOK, "Processed"},
		{reply.Answer{Kind: reply.Reply, Status: 409, Message: message.Message{ID: "r", Source: "/r", Type: "t", Data: []byte("no")}}, http.StatusConflict, "no"},
	} {
		w := httptest.NewRecorder()
		f.respond(w, "1", c.answer)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s: got %d %s", c.answer.Kind, w.Code, w.Body)
		}
	}
}

// An expiry is heeded in all forms that it is taken in.
func TestARequestIsOverdueInAllFormsOfItsTime(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 1, 0, time.UTC)
	for text, want := range map[string]bool{"2026-01-01T00:00:00Z": true, "2026-01-01t00:00:00z": true, "2025-12-31T23:59:60Z": true, "2026-01-01T00:00:02Z": false, "": false} {
		m := message.Message{Attributes: []message.Attribute{{Name: message.ReplyTo, Value: "inbox"}, {Name: message.ExpiryTime, Value: text}}}
		if got := overdue(&m, now); got != want {
			t.Errorf("%q: got %v", text, got)
		}
	}
}
