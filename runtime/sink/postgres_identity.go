package sink

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/waybill-dev/waybill/runtime/postgres"
)

// identityTable remembers, beside the table that rows are written to, of which messages they were.
const identityTable = "waybill_identity"

const (
	firstPrune = time.Minute
	pruneEvery = time.Hour
	// pruned rows go in one statement, so that none of them takes long.
	pruned = 10_000
	// behind is how far below the highest position a message has surely been acknowledged: a source stops long before that much lies between
	// the oldest that is not done and the newest.
	behind = 100_000
	// settled is how long a message below that is remembered all the same, for a replica that was replaced and does not know it yet.
	settled = 24 * time.Hour
)

// ensureIdentities makes the table where it is missing.
func (s *Postgres) ensureIdentities(ctx context.Context, c *pgconn.PgConn, schema, at, user string) error {
	found, err := query(ctx, c, "select has_table_privilege(to_regclass($1), 'INSERT') and has_table_privilege(to_regclass($1), 'SELECT') and has_table_privilege(to_regclass($1), 'DELETE') where to_regclass($1) is not null", at)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		create := "create table if not exists " + at + " (flow text not null, message text not null, position bigint not null, at timestamptz not null default now(), primary key (flow, message))"
		if _, err := query(ctx, c, create); err != nil {
			switch postgres.Code(err) {
			case postgres.Denied:
				return wrong("%s: ExactlyOnce keeps the messages' identities in the table %s.%s, and user %s may not create it: run as its owner «%s», and grant insert, select and delete on it to %s", s.db.Where(), schema, identityTable, user, create, user)
			case postgres.UniqueViolation: // another replica made it at the same moment
			default:
				return err
			}
		}
		// For pruning by age; rows come in the order of their time, so the smallest kind of index does.
		_, err := query(ctx, c, "create index if not exists "+postgres.Quote(identityTable+"_at")+" on "+at+" using brin (at)")
		if err != nil && postgres.Code(err) != postgres.UniqueViolation {
			return err
		}
		return nil
	}
	if found[0][0] != "t" {
		return wrong("%s: user %s may not insert into, select from and delete from %s.%s, which holds the identities of ExactlyOnce: grant insert, select, delete on %s.%s to %s", s.db.Where(), user, schema, identityTable, schema, identityTable, user)
	}
	return nil
}

// Run forgets identities that no message comes back with, until ctx ends. Without ExactlyOnce it does nothing.
func (s *Postgres) Run(ctx context.Context) {
	if s.plan.Identity == nil {
		return
	}
	next := time.NewTimer(firstPrune)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
			_ = s.prune(ctx, settled) // what fails now is done an hour later
			next.Reset(pruneEvery)
		}
	}
}

func (s *Postgres) prune(ctx context.Context, settled time.Duration) error {
	t, err := s.look(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	done := s.position - behind
	s.mu.Unlock()
	for ctx.Err() == nil {
		var gone int64
		err := s.do(ctx, func(ctx context.Context, c *pgconn.PgConn) error {
			tag, err := c.ExecParams(ctx, "delete from "+t.identities+" where ctid = any(array(select ctid from "+t.identities+
				" where flow = $1 and (position = 0 and at < now() - $2::interval or position between 1 and $3::bigint and at < now() - $4::interval) limit "+strconv.Itoa(pruned)+"))",
				[][]byte{[]byte(s.plan.Identity.Flow), seconds(time.Duration(s.plan.Identity.Keep)), strconv.AppendInt(nil, done, 10), seconds(settled)}, nil, nil, nil).Close()
			gone = tag.RowsAffected()
			return err
		})
		if err != nil {
			return err
		}
		if gone < pruned {
			return nil
		}
	}
	return ctx.Err()
}

func seconds(d time.Duration) []byte {
	return append(strconv.AppendFloat(nil, d.Seconds(), 'f', -1, 64), 's')
}
