package broker_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/message"
)

// A server that was killed may have given out messages that it had not written. What comes next has their numbers, may be more than they
// were, and be there before anybody looks: none of it is skipped.
func TestAPositionThatOthersHaveOvertakenGoesBackToWhereTheyBegin(t *testing.T) {
	in, out := driver.Ref{Kind: driver.Topic, Name: "in"}, driver.Ref{Kind: driver.Topic, Name: "out"}
	for name, into := range map[string]driver.Ref{"a cursor": {}, "a place": out} {
		t.Run(name, func(t *testing.T) {
			dir, saved := t.TempDir(), filepath.Join(t.TempDir(), in.Name)
			stream := filepath.Join(dir, "jetstream", "$G", "streams", in.Name)
			spec := driver.SourceSpec{Object: in, Group: "g", Ordering: driver.Key, Into: into, Window: driver.Window{Messages: 8, Bytes: 1 << 20}}
			publish := func(b *broker.Broker, from, to int) {
				t.Helper()
				if err := errors.Join(b.Publisher(in).Publish(within(t), orders(from, to, 1))...); err != nil {
					t.Fatal(err)
				}
			}
			source := func(b *broker.Broker) driver.Source {
				t.Helper()
				s, err := b.Source(within(t), spec)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			serve(t, dir, func(b *broker.Broker) {
				admin, err := b.Admin(within(t))
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range []driver.Object{{Ref: in}, {Ref: out}, {Ref: driver.Ref{Kind: driver.Group, Name: "g", Of: in.Name}, Ordering: driver.Key,
					Start: driver.Start{Position: driver.Earliest}}} {
					if _, err := admin.Ensure(within(t), o); err != nil {
						t.Fatal(err)
					}
				}
				publish(b, 1, 2)
			})
			if err := os.CopyFS(saved, os.DirFS(stream)); err != nil {
				t.Fatal(err)
			}
			serve(t, dir, func(b *broker.Broker) {
				publish(b, 2, 6)
				s := source(b)
				for _, d := range get(t, s, 5) {
					settlement := driver.Settlement{D: &d, Verb: driver.Done}
					if into.Name != "" {
						settlement.Out = []message.Message{d.Message}
					}
					if err := errors.Join(s.Settle(within(t), []driver.Settlement{settlement})...); err != nil {
						t.Fatal(err)
					}
				}
				if err := s.Close(within(t)); err != nil {
					t.Fatal(err)
				}
			})
			// The disk has nothing of 2 to 5.
			if err := errors.Join(os.RemoveAll(stream), os.CopyFS(stream, os.DirFS(saved))); err != nil {
				t.Fatal(err)
			}
			serve(t, dir, func(b *broker.Broker) {
				publish(b, 6, 12)
				s := source(b)
				for i, d := range get(t, s, 6) {
					if want := orders(6, 12, 1)[i].ID; d.Message.ID != want {
						t.Errorf("received %s, want %s", d.Message.ID, want)
					}
				}
				if err := s.Close(within(t)); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// serve runs f with a broker over an embedded server of the folder.
func serve(t *testing.T, dir string, f func(*broker.Broker)) {
	t.Helper()
	server, err := nats.StartEmbedded(within(t), nats.EmbeddedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	b := broker.Connect(broker.Config{Name: "default/main", Open: server.Open,
		Resolve: func(context.Context) (driver.Config, error) { return driver.Config{ClientName: "test"}, nil }})
	defer func() {
		if err := errors.Join(b.Close(within(t)), server.Shutdown(within(t))); err != nil {
			t.Error(err)
		}
	}()
	if err := b.WaitReady(within(t)); err != nil {
		t.Fatal(err)
	}
	f(b)
}
