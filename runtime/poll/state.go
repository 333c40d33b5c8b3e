package poll

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill/runtime/checkpoint"
)

const stateVersion = 1

// state is what the checkpoint holds: all that decides what the next poll asks and which ids its items get.
type state struct {
	Version int `json:"version"`
	// Source tells whether At and Validators still belong to what is asked.
	Source     string     `json:"source"`
	Validators validators `json:"validators,omitzero"`
	// Round counts the rounds of Always and ETag that published, and of Changed those that forgot something.
	Round uint64 `json:"round,omitempty"`
	// CursorOf tells whether Cursor still belongs to the expression and parameter that it is for.
	CursorOf string `json:"cursorOf,omitempty"`
	// Cursor is the largest seen in complete rounds, and Ties are hashes of the items that had it, or one that is text and may be above it.
	Cursor string   `json:"cursor,omitempty"`
	Ties   []uint64 `json:"ties,omitempty"`
	Recent recent   `json:"recent,omitzero"` // with overlap
	Seen   *seen    `json:"seen,omitempty"`
	// At is the page to ask next within a round that is under way; nil: the round is complete.
	At *position `json:"at,omitempty"`
	// timed: rounds begin at their times only, so that one that was only begun must be known after a restart.
	timed bool
}

// validators make a request conditional.
type validators struct {
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"lastModified,omitempty"`
}

// match reports whether two answers are the same by what they say of themselves: by the ETag, weak or not, where either has one, as RFC 9110
// has it for If-None-Match, and else by Last-Modified.
func (v validators) match(w validators) bool {
	if v.ETag != "" || w.ETag != "" {
		return strings.TrimPrefix(v.ETag, "W/") == strings.TrimPrefix(w.ETag, "W/")
	}
	return v.LastModified != "" && v.LastModified == w.LastModified
}

// position is a page within a round. What the round began with stays the same for all of its pages.
type position struct {
	Number int    `json:"number"`          // of pages before this one
	Link   string `json:"link,omitempty"`  // pagination by Link: the page's address, relative to the first page's where it can be
	Token  string `json:"token,omitempty"` // pagination by Cursor; of a database the cursor of the row behind which it begins
	// Cursor is the largest of this round so far, and Ties the items that are not surely below it.
	Cursor string   `json:"cursor,omitempty"`
	Ties   []uint64 `json:"ties,omitempty"`
	Recent recent   `json:"recent,omitzero"`
	// Validators of the first page.
	Validators validators `json:"validators,omitzero"`
	// Faulty: an item of this round could not be published, so the round must not be taken for done.
	Faulty bool `json:"faulty,omitempty"`
}

// after is the position behind this page: what the round has found stays.
func (at *position) after() *position {
	next := *at
	next.Number++
	next.Link, next.Token = "", ""
	next.Ties, next.Recent = slices.Clone(at.Ties), at.Recent.clone()
	return &next
}

// A keeper writes the state to the checkpoint when it has changed.
type keeper struct {
	store checkpoint.Store
	saved []byte
}

func (k *keeper) load(ctx context.Context, source, cursorOf string) (*state, error) {
	doc, err := k.store.Load(ctx)
	if err != nil {
		return nil, err
	}
	st := &state{Version: stateVersion, Source: source, CursorOf: cursorOf}
	if doc == nil {
		return st, nil
	}
	if err := json.Unmarshal(doc, st); err != nil {
		return nil, fmt.Errorf("checkpoint: it cannot be read (%w); remove it to begin anew", err)
	}
	if st.Version != stateVersion {
		return nil, fmt.Errorf("checkpoint: it has version %d; this program knows version %d", st.Version, stateVersion)
	}
	k.saved = doc
	if st.Source != source {
		// Another address or another way through the pages: where the old one stood means nothing. What was seen still does.
		st.Source, st.At, st.Validators = source, nil, validators{}
	}
	if st.CursorOf != cursorOf {
		st.CursorOf, st.Cursor, st.Ties, st.Recent, st.At = cursorOf, "", nil, recent{}, nil
	}
	return st, nil
}

func encode(st *state) ([]byte, error) {
	kept := *st
	if kept.At != nil && kept.At.Number == 0 && !st.timed {
		kept.At = nil // a round that is only begun begins again
	}
	doc, err := json.Marshal(kept)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return doc, nil
}

func (k *keeper) save(ctx context.Context, st *state) error {
	doc, err := encode(st)
	if err != nil {
		return err
	}
	if bytes.Equal(doc, k.saved) {
		return nil
	}
	k.saved = nil
	if err := k.store.Save(ctx, doc); err != nil {
		return err
	}
	k.saved = doc
	return nil
}
