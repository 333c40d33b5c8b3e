package plan

import "encoding/json"

// Poller asks a source on a schedule and publishes what is new.
type Poller struct {
	Schedule Schedule        `json:"schedule"`
	HTTP     *PollHTTP       `json:"http,omitempty"`
	SQL      *PollSQL        `json:"sql,omitempty"`
	Items    *Expr           `json:"items,omitempty"` // one message an item; nil: the whole response is the item
	ID       *Expr           `json:"id,omitempty"`
	Key      *Expr           `json:"key,omitempty"`
	Detect   string          `json:"detect"` // Always, ETag, Changed, Cursor
	To       Ref             `json:"to"`
	Schema   json.RawMessage `json:"schema,omitempty"` // JSON Schema that a Topic asks data to meet
	// Source is the CloudEvents source of what is published; Type its type.
	Source string `json:"source"`
	Type   string `json:"type"`
	// MaxMessageBytes of one item.
	MaxMessageBytes int   `json:"maxMessageBytes"`
	Retry           Retry `json:"retry"` // of a failed poll; its MaxAttempts is not used: a poller never gives up
}

// Schedule is Every or Cron.
type Schedule struct {
	Every         Duration `json:"every,omitempty"`
	Cron          string   `json:"cron,omitempty"`
	TimeZone      string   `json:"timeZone,omitempty"` // IANA name; UTC when empty
	JitterPercent int      `json:"jitterPercent,omitempty"`
}

// PollHTTP is an HTTP source. A Service is turned into a URL by the host, as for every HTTPTarget.
type PollHTTP struct {
	HTTPTarget
	Headers          []Header    `json:"headers,omitempty"`
	Auth             *Auth       `json:"auth,omitempty"`
	Timeout          Duration    `json:"timeout"`
	MaxResponseBytes int         `json:"maxResponseBytes"` // after decompression
	Pagination       *Pagination `json:"pagination,omitempty"`
	Cursor           *Cursor     `json:"cursor,omitempty"` // with detect Cursor
	// Overlap is how far behind the cursor each round begins again: the cursors are times then.
	Overlap Duration `json:"overlap,omitempty"`
}

// Header is one request header.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Pagination is how the next page is found: Type is Link, Cursor or Page.
type Pagination struct {
	Type   string `json:"type"`
	Cursor *Expr  `json:"cursor,omitempty"`
	Param  string `json:"param,omitempty"`
	Start  int    `json:"start,omitempty"`
	// MaxPages of one poll; the next poll goes on from there.
	MaxPages int `json:"maxPages"`
}

// Cursor is a value of each item that the next poll hands back in a query parameter.
type Cursor struct {
	Expr
	Param string `json:"param"`
	Start string `json:"start,omitempty"`
}
