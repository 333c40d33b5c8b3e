package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/waybill-dev/waybill/runtime/flow"
)

// SQLSTATEs that matter one by one; the others are told by their class, the first two digits.
const (
	UniqueViolation = "23505"
	NotNull         = "23502"
	foreignKey      = "23503"
	checkViolation  = "23514"
	Denied          = "42501"
	NoTable         = "42P01"
	TwiceAffected   = "21000" // ON CONFLICT met one row twice
	readOnly        = "25006"
	canceled        = "57014"
	noDatabase      = "3D000"
)

// code is the SQLSTATE of an error, "" where it has none.
func code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// Code is the SQLSTATE behind a fault, "" where there is none.
func Code(err error) string {
	if e, ok := errors.AsType[*serverError](err); ok {
		return e.pg.Code
	}
	return code(err)
}

// Column is the column that the server blames, where it says so.
func Column(err error) string {
	if e, ok := errors.AsType[*serverError](err); ok {
		return e.pg.ColumnName
	}
	return ""
}

// OneRow reports whether an error may be that of one row among others, so that the others are worth a try of their own.
func OneRow(err error) bool {
	c := Code(err)
	if len(c) != 5 {
		return false
	}
	switch c[:2] {
	case "21", "22", "23", "2F", "38", "39", "44", "54", "P0":
		return true
	}
	return c == Denied // a policy of row-level security refuses rows with the same code
}

// serverError is what the server said, in words that hold nothing of a row. Of the server's own words only those are repeated that speak of
// names, never those that may repeat a value.
type serverError struct {
	pg   *pgconn.PgError
	text string
}

func (e *serverError) Error() string { return e.text }

// classify says whose fault an error is.
func classify(err error) *flow.Fault {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return &flow.Fault{Blame: blame(pg.Code), Err: &serverError{pg, describe(pg)}}
	}
	if errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err) {
		if _, dial := errors.AsType[*pgconn.ConnectError](err); !dial {
			return &flow.Fault{Blame: flow.Destination, Err: errors.New("no answer came in time")}
		}
	}
	if connect, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return &flow.Fault{Blame: flow.Unreachable, Err: fmt.Errorf("it cannot be reached: %s", cause(connect))}
	}
	return &flow.Fault{Blame: flow.Unreachable, Err: fmt.Errorf("the connection was lost: %w", err)}
}

// cause is what a failure to connect says behind the user and the database, which need no repetition.
func cause(err *pgconn.ConnectError) string {
	text := err.Unwrap().Error()
	if i := strings.LastIndex(text, "\n"); i >= 0 {
		text = strings.TrimSpace(text[i:]) // several addresses were tried: the last
	}
	return text
}

func blame(code string) flow.Blame {
	switch code {
	case foreignKey: // the row that it refers to may be on its way
		return flow.Destination
	case canceled:
		return flow.Destination
	case readOnly:
		return flow.Unreachable
	case TwiceAffected:
		return flow.Message
	case noDatabase:
		return flow.Address
	}
	switch code[:2] {
	case "22", "23", "44", "54":
		return flow.Message
	case "08", "53", "57", "58", "25":
		return flow.Unreachable
	case "28", "3F", "42", "0A", "26", "34":
		return flow.Address
	}
	return flow.Destination // 40: serialization failures and deadlocks; P0: what a trigger raised; all else
}

// reasons are what errors of a row mean, in words that hold no value of it.
var reasons = map[string]string{
	"22P02":         "the value is none of the column's type",
	"22007":         "the value is no date or time",
	"22008":         "the date or time is out of range",
	"22001":         "the value is longer than the column takes",
	"22003":         "the number is out of the column's range",
	"22021":         "the text holds a character that PostgreSQL cannot keep",
	"22P05":         "the text holds a character that PostgreSQL cannot keep",
	"22P03":         "the value is none of the column's type",
	"22030":         "the object has a member twice",
	"22032":         "the value is no JSON that PostgreSQL takes",
	"22015":         "the interval is out of range",
	"22023":         "the value is none that the column's type takes",
	TwiceAffected:   "the message has two rows with the same values of conflict.columns",
	NotNull:         "the column must not be null",
	UniqueViolation: "a row with the same values exists, and the Pipeline's conflict does not say what to do then",
	foreignKey:      "the row that it refers to does not exist (yet)",
	checkViolation:  "a check of the table refuses it",
	"23P01":         "it is excluded by another row",
	"54000":         "it is larger than PostgreSQL takes",
	canceled:        "the statement was ended before it was done (a statement_timeout, or an administrator)",
	readOnly:        "the server takes no writes: it is a standby, or was made read-only",
	"40001":         "it collided with another transaction, and is tried again",
	"40P01":         "it collided with another transaction, and is tried again",
	"53300":         "the server has no connection left",
	"P0001":         "a trigger or a function of the database raised an exception",
}

func describe(e *pgconn.PgError) string {
	text, known := reasons[e.Code]
	switch {
	case known:
	case len(e.Code) == 5 && (e.Code[:2] == "22" || e.Code[:2] == "23" || e.Code[:2] == "44" || e.Code[0] == 'P' || e.Code[0] == 'X'):
		text = "the server refuses it" // its words may repeat a value
	default:
		text = e.Message
	}
	if e.ColumnName != "" {
		text = "column " + e.ColumnName + ": " + text
	}
	if e.ConstraintName != "" {
		text += ", constraint " + e.ConstraintName
	}
	return fmt.Sprintf("%s (SQLSTATE %s)", text, e.Code)
}
