package plan

// Postgres writes a row for each message.
type Postgres struct {
	DSN SecretRef `json:"dsn"`
	// Table is TABLE or SCHEMA.TABLE.
	Table    string            `json:"table"`
	Columns  []PostgresColumn  `json:"columns"` // sorted by name
	Conflict *PostgresConflict `json:"conflict,omitempty"`
	Timeout  Duration          `json:"timeout"` // of a statement
	// Identity is set with the guarantee ExactlyOnce.
	Identity *PostgresIdentity `json:"identity,omitempty"`
}

// PostgresColumn is a column and what gives its value.
type PostgresColumn struct {
	Name string `json:"name"`
	Expr
}

// PostgresConflict is what to do when there is a row with the same values of Columns: Update or Nothing.
type PostgresConflict struct {
	Columns []string `json:"columns"`
	Do      string   `json:"do"`
}

// PostgresIdentity is under which name the messages that were written are remembered, in the rows' own transaction, and for how long.
type PostgresIdentity struct {
	Flow string   `json:"flow"`
	Keep Duration `json:"keep"`
}

// PollSQL is a database that is asked. Query has $1, $2 and so on where the cursor stands; Params says which column of the cursor each is.
type PollSQL struct {
	DSN    SecretRef  `json:"dsn"`
	Query  string     `json:"query"`
	Params []int      `json:"params,omitempty"`
	Cursor *SQLCursor `json:"cursor,omitempty"` // with detect Cursor
	// Limited: the query bounds its own result, so that there may be more behind it.
	Limited        bool     `json:"limited,omitempty"`
	Overlap        Duration `json:"overlap,omitempty"`
	Timeout        Duration `json:"timeout"`
	MaxResultBytes int      `json:"maxResultBytes"` // of a page
	MaxPages       int      `json:"maxPages"`       // of a poll; the next goes on from there
}

// SQLCursor is the columns that tell how far rows were seen, and their values before the first poll.
type SQLCursor struct {
	Columns []string `json:"columns"`
	Start   []string `json:"start"`
}
