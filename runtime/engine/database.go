package engine

import (
	"context"

	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/postgres"
	"github.com/waybill-dev/waybill/runtime/sink"
)

// A database is the one that a unit writes to or asks.
type database struct {
	*postgres.Database
	rows *sink.Postgres // nil where it is asked
}

func (u *unit) openDatabase(dsn plan.SecretRef) *postgres.Database {
	u.database.Database = postgres.New(postgres.Config{
		Secrets: u.engine.host.Secrets, Namespace: u.plan.Resource.Namespace, DSN: dsn, Dial: u.engine.host.Outbound.Dial, Log: u.log,
	})
	return u.database.Database
}

func (u *unit) buildRows(p *plan.Postgres) ([]flow.Stage, error) {
	rows, err := sink.NewPostgres(*p, u.openDatabase(p.DSN))
	u.database.rows = rows
	return []flow.Stage{rows}, err
}

// ready looks at the table that is written to before any message is taken: what is wrong with it is no message's fault.
func (d *database) ready(ctx context.Context) error {
	if d.rows == nil {
		return nil
	}
	return d.rows.Ready(ctx)
}

// tend does what is to be done beside the flow, until ctx ends.
func (d *database) tend(ctx context.Context) {
	if d.rows != nil {
		d.rows.Run(ctx)
	}
}

func (d *database) close() {
	if d.Database != nil {
		d.Close()
	}
}
