package nats_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/message"
)

// A server that comes back taking less than before refuses what is too large for it now, and only that.
func TestOnlyTheMessageOverALoweredLimitIsTooLarge(t *testing.T) {
	for _, n := range []int{6, 60} { // one by one, and in a batch
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			server := startProcess(t, serverConfig{MaxPayload: 64 << 10})
			c, err := nats.Open(within(t), driver.Config{Addresses: []string{server.addr}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(within(t))
			topic := driver.Ref{Kind: driver.Topic, Name: "t"}
			if _, err := c.Admin().Ensure(within(t), driver.Object{Ref: topic}); err != nil {
				t.Fatal(err)
			}
			p, err := c.Publisher(within(t), driver.PublisherSpec{Object: topic})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close(within(t))
			server.stop(t)
			server.config.MaxPayload = 8 << 10
			server.start(t)
			for ctx := within(t); ; { // until the client is back
				err := p.Publish(ctx, []message.Message{{ID: "first", Source: "s", Type: "t"}})[0]
				if err == nil {
					break
				}
				if ctx.Err() != nil {
					t.Fatal(err)
				}
			}
			ms := make([]message.Message, n)
			for i := range ms {
				ms[i] = message.Message{ID: fmt.Sprint(i), Source: "s", Type: "t", Key: fmt.Sprint(i)}
			}
			ms[2].Data = make([]byte, 16<<10)
			ms[4].Key = ms[2].Key
			for i, err := range p.Publish(within(t), ms) {
				switch {
				case i == 2 && errors.Is(err, driver.ErrTooLarge):
				case i == 4 && errors.Is(err, driver.ErrHeldBack):
				case i != 2 && i != 4 && err == nil:
				default:
					t.Errorf("message %d: %v", i, err)
				}
			}
		})
	}
}
