package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/plan"
)

func ref(r plan.Ref) driver.Ref {
	return driver.Ref{Kind: driver.Kind(r.Kind), Name: r.Name, Of: r.Of}
}

// Object is what a plan says of a broker object, as drivers take it.
func Object(o plan.Object) driver.Object {
	d := driver.Object{
		Ref: ref(o.Ref), Owner: o.Owner, External: o.External, Partitions: o.Partitions,
		MaxAge: time.Duration(o.MaxAge), MaxBytes: o.MaxBytes, MaxMessages: o.MaxMessages, MaxMessageBytes: o.MaxMessageBytes,
		Ordering: driver.Ordering(o.Ordering), AckWait: time.Duration(o.AckWait),
	}
	if o.Start != nil {
		d.Start = driver.Start{Position: o.Start.Position, Time: o.Start.Time}
	}
	return d
}

// ensure makes the unit's objects. It is the laptop's stand for what the operator does in a cluster.
func (u *unit) ensure(ctx context.Context) error {
	for _, o := range u.plan.Objects {
		b, err := u.broker(o.Broker)
		if err != nil {
			return err
		}
		if err := ensureOne(ctx, b, o); err != nil {
			return fmt.Errorf("%s %q on broker %s: %w", o.Kind, o.Name, o.Broker, err)
		}
	}
	return nil
}

func ensureOne(ctx context.Context, b *broker.Broker, o plan.Object) error {
	admin, err := b.Admin(ctx)
	if err != nil {
		return err
	}
	_, err = admin.Ensure(ctx, Object(o))
	return err
}
