package poll

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/message"
)

// How a poller tells what is new: plan.Poller.Detect.
const (
	always  = "Always"
	etag    = "ETag"
	changed = "Changed"
	cursor  = "Cursor"
)

// maxItems of a page, however small they are: each becomes a message before the first is published.
const maxItems = 100_000

// found is one item of a page.
type found struct {
	message message.Message
	// publish: it is new.
	publish bool
	// twin: with Changed, the item stood on the page before, and what becomes of it there counts.
	twin bool
	// With Changed: which item it is, and its content.
	item, content uint64
	// With Cursor: its cursor, and what tells it from others that have the same.
	cursor string
	tie    uint64
	// attempt identifies it among what an earlier try of this page has published.
	attempt uint64
}

// items takes a page apart.
func (p *Poller) items(ctx context.Context, view *expr.View, a *answer) ([][]byte, error) {
	if p.plan.SQL != nil {
		raws := make([][]byte, len(a.rows))
		for i := range a.rows {
			raws[i] = a.rows[i].json
		}
		if p.programs.items == nil {
			return raws, nil
		}
		a.page.Body = append(append([]byte{'['}, bytes.Join(raws, []byte{','})...), ']')
	}
	if p.programs.items != nil {
		raws, err := p.programs.items.EvalList(ctx, view)
		if err != nil && p.programs.noItems != nil {
			if none, nullErr := p.programs.noItems.EvalBool(ctx, view); nullErr == nil && none {
				return nil, nil
			}
		}
		// Behind their last page many servers answer with nothing. Of the first page only a 204 says so, and nothing else: an empty 200 may be a
		// fault, and would make Changed forget all.
		if err != nil && ctx.Err() == nil && blank(a.page.Body) && (p.st.At.Number > 0 || a.page.Status == http.StatusNoContent) {
			return nil, nil
		}
		return raws, err
	}
	if blank(a.page.Body) || p.pagination() != nil && nothing(a.page.Body) {
		return nil, nil
	}
	return [][]byte{a.page.Body}, nil
}

// blank reports whether a body has nothing in it.
func blank(body []byte) bool { return len(bytes.TrimSpace(body)) == 0 }

// nothing reports whether a body is an empty list or object, with space in it or not, or null.
func nothing(body []byte) bool {
	body = bytes.TrimSpace(body)
	if n := len(body) - 1; n > 0 && (body[0] == '[' && body[n] == ']' || body[0] == '{' && body[n] == '}') {
		return blank(body[1:n])
	}
	return string(body) == "null"
}

// examine decides of each item of a page what it is called and whether it is new. An item of which that cannot be said is left out and
// reported to refuse.
func (p *Poller) examine(ctx context.Context, view *expr.View, a *answer, raws [][]byte, refuse func(error)) ([]found, error) {
	fs := make([]found, 0, len(raws))
	occurrences := map[string]uint64{}
	for i, raw := range raws {
		f, err := p.examineOne(ctx, view, a, i, raw, occurrences)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			refuse(fmt.Errorf("item %d: %w", i, err))
			continue
		}
		if f.twin {
			continue
		}
		if fs = append(fs, f); len(fs) == maxSeen+1 {
			if err := p.fits(fs); err != nil {
				return nil, err // before all the others are made
			}
		}
	}
	return fs, nil
}

func (p *Poller) examineOne(ctx context.Context, page *expr.View, a *answer, i int, raw []byte, occurrences map[string]uint64) (found, error) {
	f := found{publish: true, message: message.Message{
		Source: p.plan.Source, Type: p.plan.Type, Time: a.read.UTC().Format(time.RFC3339Nano), DataContentType: p.itemType(a), Data: raw,
	}}
	m := &f.message
	view := expr.ForItem(page, raw)
	defer view.Release()
	var err error
	if p.programs.id != nil {
		if m.ID, err = p.programs.id.EvalString(ctx, view); err != nil {
			return f, fmt.Errorf("id: %w", err)
		}
		if m.ID == "" {
			return f, errors.New("id: the expression gave an empty string; every item needs an id")
		}
	}
	if p.programs.key != nil {
		if m.Key, err = p.programs.key.EvalString(ctx, view); err != nil {
			return f, fmt.Errorf("key: %w", err)
		}
	}
	switch {
	case p.plan.Detect == changed:
		if err := p.examineChanged(&f, occurrences); err != nil {
			return f, err
		}
	case p.plan.Detect == cursor && p.plan.SQL != nil:
		f.cursor = a.rows[i].cursor
		p.examineRow(&f, occurrences)
	case p.plan.Detect == cursor:
		if f.cursor, err = scalar(ctx, p.programs.cursor, view); err != nil {
			return f, fmt.Errorf("cursor: %w", err)
		}
		if f.cursor == "" {
			return f, errors.New("cursor: the expression gave nothing; every item needs a cursor")
		}
		if err := p.examineCursor(&f, occurrences); err != nil {
			return f, err
		}
	default:
		if m.ID == "" {
			m.ID = defaultID(occurrences, raw, binary.BigEndian.AppendUint64(nil, p.st.Round))
		}
	}
	f.attempt = hash64([]byte(m.ID), raw)
	if _, done := p.published[f.attempt]; done {
		f.publish = false
	}
	if p.plan.MaxMessageBytes > 0 && len(raw) > p.plan.MaxMessageBytes && f.publish {
		return f, fmt.Errorf("it has %d bytes; %d are the most that its destination takes", len(raw), p.plan.MaxMessageBytes)
	}
	if p.schema != nil && f.publish {
		if v := p.schema.Violations(m); v != nil {
			return f, fmt.Errorf("the schema of its destination refuses %s", v[0])
		}
	}
	return f, m.Check()
}

// examineChanged compares an item with what was there before under its id. Two contents of one id on a page would both be a change each time.
func (p *Poller) examineChanged(f *found, contents map[string]uint64) error {
	m := &f.message
	f.content = hash64(m.Data)
	twin, again := contents[m.ID]
	if again = again && m.ID != ""; again && twin != f.content {
		return errors.New("id: an item before it on the page has the same id and other content; with detect Changed an id must name one item")
	}
	contents[m.ID] = f.content
	switch {
	case m.ID != "":
		f.item = hash64([]byte("id"), []byte(m.ID))
	case p.programs.items == nil && p.st.At.Number > 0:
		f.item = hash64([]byte("the answer"), binary.BigEndian.AppendUint64(nil, uint64(p.st.At.Number)))
	case p.programs.items == nil:
		f.item = hash64([]byte("the answer")) // one item, whatever is in it
	default:
		f.item = hash64([]byte("content"), m.Data)
	}
	before, known := p.st.Seen.before(f.item)
	f.publish, f.twin = !known || !sameContent(before, f.content), again
	history := []byte("changed")
	if !known {
		// New, or back again: then it must not have the id that it had before.
		history, before = []byte("new"), p.st.Round
	}
	sum := digest([]byte(m.ID), m.Data, history, binary.BigEndian.AppendUint64(nil, before))
	if m.ID == "" {
		m.ID = hex.EncodeToString(sum[:16])
	} else {
		m.ID += "-" + hex.EncodeToString(sum[:8])
	}
	return nil
}

// examineRow tells by the cursor's own row, or with overlap by all rows within it, what was published.
func (p *Poller) examineRow(f *found, occurrences map[string]uint64) {
	m, at := &f.message, p.st.At
	if m.ID == "" {
		m.ID = defaultID(occurrences, m.Data, []byte(f.cursor))
	}
	f.tie = hash64([]byte(m.ID), m.Data)
	switch {
	case p.plan.SQL.Overlap > 0:
		f.publish = !at.Recent.has(f.tie)
	case f.cursor == at.Cursor:
		f.publish = !slices.Contains(at.Ties, f.tie)
	}
}

// examineCursor tells by the cursor, and where that is not enough by what was seen of it, what was published.
func (p *Poller) examineCursor(f *found, occurrences map[string]uint64) error {
	m := &f.message
	if m.ID == "" {
		m.ID = defaultID(occurrences, m.Data, []byte(f.cursor))
	}
	f.tie = hash64([]byte(m.ID), m.Data)
	if overlap := p.overlap(); overlap > 0 {
		at, ok := message.ParseTime(f.cursor)
		if !ok {
			return errors.New("cursor: with overlap it must be a time of RFC 3339, such as 2026-01-31T12:00:00Z: give one, or remove overlap")
		}
		// What was seen before this round is asked apart: pages that begin with the newest make this round forget it.
		reach, _ := p.st.reach(overlap)
		f.publish = at.UnixMicro() >= reach && !p.st.Recent.has(f.tie) && !p.st.At.Recent.has(f.tie) && !slices.Contains(p.st.Ties, f.tie)
		return nil
	}
	if p.st.Cursor == "" {
		return nil
	}
	switch order, known := compare(f.cursor, p.st.Cursor); {
	case order < 0 && known:
		f.publish = false
	case order == 0 || !known:
		f.publish = !slices.Contains(p.st.Ties, f.tie)
	}
	return nil
}

// defaultID is a hash of the content and of what else tells this occurrence from another. Equal items of one page are counted.
func defaultID(occurrences map[string]uint64, content, what []byte) string {
	sum := digest(content, what)
	n := occurrences[string(sum)]
	occurrences[string(sum)] = n + 1
	if n > 0 {
		sum = digest(sum, binary.BigEndian.AppendUint64(nil, n))
	}
	return hex.EncodeToString(sum[:16])
}

// itemType is the content type of an item: JSON, unless the item is a body of another type, or one without a type that is no JSON.
func (p *Poller) itemType(a *answer) string {
	const isJSON = "application/json"
	switch {
	case p.programs.items != nil:
		return isJSON
	case a.page.ContentType == "":
		if !json.Valid(a.page.Body) {
			return "application/octet-stream" // as RFC 9110 reads a body without a type
		}
		return isJSON
	}
	if t, _, err := mime.ParseMediaType(a.page.ContentType); err == nil && (t == isJSON || t == "text/json" || strings.HasSuffix(t, "/json")) {
		return isJSON
	}
	return a.page.ContentType
}
