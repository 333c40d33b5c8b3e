package compile

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// pollSQL makes a source of a database.
func (c *compiler) pollSQL(s *subject, spec *v1alpha1.PollerSpec) *plan.PollSQL {
	in := spec.SQL
	out := &plan.PollSQL{
		DSN:     c.secretKey(s, "spec.sql.dsnSecretRef", in.DSNSecretRef, v1alpha1.SecretKeyDSN, secret.Empty),
		Timeout: plan.Duration(defaultTimeout), MaxResultBytes: maxResponseBytes, MaxPages: defaultMaxPages,
	}
	columns := 0
	if in.Cursor != nil {
		columns = len(in.Cursor.Columns)
		out.Cursor = &plan.SQLCursor{Columns: in.Cursor.Columns, Start: in.Cursor.Start}
		if len(in.Cursor.Start) != columns {
			s.refuse("spec.sql.cursor.start", v1alpha1.ReasonInvalid, "start must have as many values as columns has names, one for each")
		}
	}
	parsed, fault := queryFault(in.Query, columns)
	if fault != "" {
		s.refuse("spec.sql.query", v1alpha1.ReasonInvalid, "%s", fault)
	}
	out.Query, out.Params, out.Limited = parsed.text, parsed.params, parsed.limited
	if spec.Overlap != nil {
		out.Overlap = plan.Duration(spec.Overlap.Duration)
	}
	switch {
	case in.Cursor == nil && spec.Detect == v1alpha1.DetectCursor:
		s.refuse("spec.detect", v1alpha1.ReasonInvalid, "Cursor needs http.cursor or sql.cursor: set it, or use Changed")
	case in.Cursor == nil && spec.Detect == v1alpha1.DetectETag:
		s.refuse("spec.detect", v1alpha1.ReasonInvalid, "ETag is a matter of HTTP: use Cursor, Changed or Always with sql")
	case in.Cursor == nil && out.Overlap > 0:
		s.refuse("spec.overlap", v1alpha1.ReasonInvalid, "overlap reaches back behind a cursor: set http.cursor or sql.cursor, or remove it")
	case in.Cursor != nil && or(spec.Detect, v1alpha1.DetectCursor) != v1alpha1.DetectCursor:
		s.refuse("spec.detect", v1alpha1.ReasonInvalid, "with sql.cursor the query gives what lies beyond it, which is detect: Cursor: use that, or remove the cursor")
	case in.Cursor != nil && spec.Items != nil:
		s.refuse("spec.items", v1alpha1.ReasonInvalid, "with sql.cursor each row is an item: shape and select rows in the query, and remove items")
	case out.Overlap > 0 && columns > 0 && len(in.Cursor.Start) == columns:
		if _, err := time.Parse(time.RFC3339, strings.Replace(in.Cursor.Start[0], " ", "T", 1)); err != nil {
			s.refuse("spec.sql.cursor.start[0]", v1alpha1.ReasonInvalid, "overlap needs a cursor whose first column is a time: start with one, such as 2026-01-31T12:00:00Z, or remove overlap")
		}
	}
	return out
}

// A parsedQuery has $1, $2 and so on in the place of the cursor.
type parsedQuery struct {
	text    string
	params  []int // which column of the cursor each is
	limited bool
}

// queryFault finds where the cursor stands in a query: not in strings, quoted names and comments, and not in a cast, which has two colons. Each place
// is a parameter of its own, whose type the database finds out from what stands around it.
func queryFault(query string, columns int) (out parsedQuery, fault string) {
	var b strings.Builder
	l := sqlText(query)
	end := false // a semicolon was met
	for i := 0; i < len(l); {
		if n := l.skip(i); n > 0 {
			b.WriteString(query[i : i+n])
			i += n
			continue
		}
		switch ch := l[i]; {
		case ch == ':' && i+1 < len(l) && l[i+1] == ':':
			b.WriteString("::")
			i += 2
			continue
		case ch == ':' && i+1 < len(l) && wordStart(l[i+1]):
			n := l.word(i + 1)
			which, why := placeholderFault(query[i+1:i+1+n], columns)
			if why != "" {
				return out, why
			}
			out.params = append(out.params, which)
			b.WriteString("$" + strconv.Itoa(len(out.params)))
			i += 1 + n
			continue
		case ch == '$' && i+1 < len(l) && '0' <= l[i+1] && l[i+1] <= '9':
			return out, "the query has a parameter $… of its own: write :cursor where the last value seen is meant, and other values as they are"
		case ch == ';':
			end = true
			i++
			continue
		case end && !strings.ContainsRune(" \t\r\n", rune(ch)):
			return out, "the query is more than one statement: keep the select only"
		case wordStart(ch):
			n := l.word(i)
			switch strings.ToLower(query[i : i+n]) {
			case "limit", "fetch":
				out.limited = true
			}
			b.WriteString(query[i : i+n])
			i += n
			continue
		default:
			b.WriteByte(ch)
			i++
		}
	}
	if columns > 0 && len(out.params) == 0 {
		return out, "the query does not use the cursor, so each poll would read everything again: add a condition such as where id > :cursor, or remove sql.cursor"
	}
	out.text = strings.TrimSpace(b.String())
	return out, ""
}

// placeholderFault tells which column of the cursor a name stands for.
func placeholderFault(name string, columns int) (int, string) {
	number, numbered := strings.CutPrefix(name, "cursor_")
	n, err := strconv.Atoi(number)
	switch {
	case name != "cursor" && !numbered:
		return 0, fmt.Sprintf("the query has :%s, which stands for nothing; only :cursor does, with sql.cursor", name)
	case columns == 0:
		return 0, fmt.Sprintf("the query has :%s, and there is no cursor: set sql.cursor with its columns and start, or remove it", name)
	case !numbered && columns > 1:
		return 0, fmt.Sprintf("the cursor has %d columns: write :cursor_1, :cursor_2 and so on in the query instead of :cursor", columns)
	case !numbered:
		return 0, ""
	case err != nil || n < 1 || n > columns:
		return 0, fmt.Sprintf("the query has :%s, and the cursor has %d columns, counted from 1", name, columns)
	}
	return n - 1, ""
}

// sqlText is a query in PostgreSQL's SQL.
type sqlText string

// skip is the length of a string, a quoted name or a comment that begins at i; 0: none does. What does not end goes to the end.
func (l sqlText) skip(i int) int {
	rest := string(l[i:])
	until := func(from int, end string) int {
		if n := strings.Index(rest[from:], end); n >= 0 {
			return from + n + len(end)
		}
		return len(rest)
	}
	switch {
	case strings.HasPrefix(rest, "--"):
		return until(2, "\n")
	case strings.HasPrefix(rest, "/*"):
		return nested(rest)
	case rest[0] == '"':
		return until(1, `"`)
	case rest[0] == '\'':
		return until(1, `'`) // a doubled quote begins another string at once
	case (rest[0] == 'e' || rest[0] == 'E') && strings.HasPrefix(rest[1:], "'") && !l.inWord(i):
		for n := 2; n < len(rest); n++ {
			switch rest[n] {
			case '\\':
				n++
			case '\'':
				return n + 1
			}
		}
		return len(rest)
	case rest[0] == '$' && !l.inWord(i):
		n := 1
		for n < len(rest) && rest[n] != '$' && (wordStart(rest[n]) || n > 1 && wordPart(rest[n])) {
			n++
		}
		if n < len(rest) && rest[n] == '$' {
			return until(n+1, rest[:n+1])
		}
	}
	return 0
}

// nested is the length of a comment, which may hold comments.
func nested(rest string) int {
	depth := 0
	for n := 0; n < len(rest); n++ {
		switch {
		case strings.HasPrefix(rest[n:], "/*"):
			depth++
			n++
		case strings.HasPrefix(rest[n:], "*/"):
			n++
			if depth--; depth == 0 {
				return n + 1
			}
		}
	}
	return len(rest)
}

func (l sqlText) inWord(i int) bool { return i > 0 && wordPart(l[i-1]) }

// word is the length of the word that begins at i.
func (l sqlText) word(i int) int {
	n := 0
	for i+n < len(l) && wordPart(l[i+n]) {
		n++
	}
	return n
}

func wordStart(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= 0x80
}

func wordPart(c byte) bool { return wordStart(c) || '0' <= c && c <= '9' || c == '$' }
