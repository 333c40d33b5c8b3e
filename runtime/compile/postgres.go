package compile

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// DatabaseKeys are keys of a DSN's Secret that are used where they are there: whom to trust, and a certificate to show.
func DatabaseKeys() []string {
	return []string{v1alpha1.SecretKeyCA, v1alpha1.SecretKeyTLSCert, v1alpha1.SecretKeyTLSPrivateKey}
}

// DSN is the Secret with a database's address that a plan reads, nil where it reads none.
func DSN(p *plan.Plan) *plan.SecretRef {
	switch {
	case p.Flow != nil && p.Flow.Sink.Postgres != nil:
		return &p.Flow.Sink.Postgres.DSN
	case p.Poller != nil && p.Poller.SQL != nil:
		return &p.Poller.SQL.DSN
	}
	return nil
}

// postgres makes the sink that writes rows.
func (c *compiler) postgres(con *consumer, to *v1alpha1.PostgresTarget, guarantee v1alpha1.Guarantee) *plan.Postgres {
	const field = "spec.to.postgres"
	s := con.subject
	out := &plan.Postgres{
		DSN: c.secretKey(s, field+".dsnSecretRef", to.DSNSecretRef, v1alpha1.SecretKeyDSN, secret.Empty), Table: to.Table, Timeout: plan.Duration(defaultTimeout),
	}
	for _, name := range slices.Sorted(maps.Keys(to.Columns)) {
		at := fmt.Sprintf("%s.columns.%s", field, name)
		if name == "" || len(name) > maxIdentifier {
			s.refuse(field+".columns", v1alpha1.ReasonInvalid, "%q is no name that a column can have: PostgreSQL's have 1 to %d bytes", name, maxIdentifier)
		}
		out.Columns = append(out.Columns, plan.PostgresColumn{Name: name, Expr: *c.cel(s, at+".cel", to.Columns[name].CEL, expr.Message, expr.JSON)})
	}
	if cf := to.Conflict; cf != nil {
		out.Conflict = &plan.PostgresConflict{Columns: cf.Columns, Do: string(cf.Do)}
		for i, name := range cf.Columns {
			if _, given := to.Columns[name]; !given {
				s.refuse(index(field+".conflict.columns", i), v1alpha1.ReasonInvalid, "no value is given for column %s, so no row could be in conflict by it: add it to columns, or name columns of a unique index that are there", name)
			}
			if slices.Index(cf.Columns, name) < i {
				s.refuse(index(field+".conflict.columns", i), v1alpha1.ReasonDuplicate, "another item has the same name, %s: it must be unique", name)
			}
		}
	}
	if guarantee == v1alpha1.GuaranteeExactlyOnce {
		out.Identity = &plan.PostgresIdentity{Flow: s.resource.String(), Keep: plan.Duration(defaultKeepIdentities)}
		if src := con.source; src != nil && src.object.MaxAge > 0 {
			// The broker has deleted the message by then.
			out.Identity.Keep = src.object.MaxAge + plan.Duration(24*time.Hour)
		}
	}
	return out
}

// rowsOnce says by which means rows are written once, and where that ends.
func rowsOnce(p Protocol, e *plan.Effective, rows *plan.Postgres) {
	a := p.ExactlyOncePostgres
	e.Mechanism = a.How + ", so that a message that is delivered again writes nothing; it is acknowledged to its broker after that"
	e.Limits = append([]string{
		"it is the rows that are written once: steps may run, and a dead letter be stored, more than once",
		fmt.Sprintf("identities are kept for %s in waybill_identity; a message that is delivered again after that is written again", rows.Identity.Keep),
	}, a.Limits...)
}
