package gateway_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/reply"
)

// faults are put between a rig's broker and its server.
type faults struct {
	settles atomic.Int64 // calls of Settle
	// settle, where set, is asked before each Settle: an error is what each entry gets, and the server hears nothing.
	settle atomic.Pointer[func(ctx context.Context, ss []driver.Settlement) error]
}

func (f *faults) onSettle(do func(ctx context.Context, ss []driver.Settlement) error) {
	f.settle.Store(&do)
}

// newFaultyRig is a rig whose settlements of leases go through faults.
func newFaultyRig(t testing.TB) (*rig, *faults) {
	t.Helper()
	r, f := newRig(t), &faults{}
	direct := r.broker
	r.broker = broker.Connect(broker.Config{Name: brokerName,
		Open: func(ctx context.Context, cfg driver.Config) (driver.Conn, error) {
			c, err := nats.Open(ctx, cfg)
			if err != nil {
				return nil, err
			}
			return faultyConn{c, f}, nil
		},
		Resolve: func(context.Context) (driver.Config, error) {
			return driver.Config{ClientName: "faulty", Addresses: []string{r.addr}}, nil
		}})
	if err := r.broker.WaitReady(within(t)); err != nil {
		t.Fatal(err)
	}
	faulty := r.broker
	t.Cleanup(func() {
		if err := faulty.Close(within(t)); err != nil {
			t.Error(err)
		}
		r.broker = direct // which newRig closes
	})
	r.sender = reply.NewSender("default", r.broker.Reply)
	r.desk.Close()
	r.desk = reply.NewDesk(func(ctx context.Context) (driver.Inbox, error) { return direct.Inbox(ctx, "default") }, slog.New(slog.DiscardHandler))
	if err := r.desk.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	return r, f
}

type faultyConn struct {
	driver.Conn
	faults *faults
}

func (c faultyConn) Away() error { return c.Conn.(driver.Monitor).Away() }

func (c faultyConn) Settler() driver.Settler { return faultySettler{c.Conn.Settler(), c.faults} }

type faultySettler struct {
	driver.Settler
	faults *faults
}

func (s faultySettler) Settle(ctx context.Context, ss []driver.Settlement) []error {
	s.faults.settles.Add(1)
	if do := s.faults.settle.Load(); do != nil {
		if err := (*do)(ctx, ss); err != nil {
			errs := make([]error, len(ss))
			for i := range errs {
				errs[i] = err
			}
			return errs
		}
	}
	return s.Settler.Settle(ctx, ss)
}

func (s faultySettler) Load(ctx context.Context, d *driver.Delivery) (message.Message, error) {
	return s.Settler.(driver.Loader).Load(ctx, d)
}
