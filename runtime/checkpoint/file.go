package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// envelope is the file's form. Its version is that of this package; the document's own version is its poller's affair.
type envelope struct {
	Version  int             `json:"version"`
	Document json.RawMessage `json:"document"`
}

const version = 1

// File keeps the document in a file, whose directory is made when it is missing. It is written beside the file, synced, and renamed over
// it: after a crash there is the old document or the new one.
func File(path string) Store { return &file{path: path} }

type file struct {
	path string
	last []byte // what the file is known to hold
}

func (f *file) Load(context.Context) ([]byte, error) {
	r, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, MaxBytes+1024))
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	var e envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, fmt.Errorf("checkpoint %s is damaged (%w); remove it to begin anew", f.path, err)
	}
	if e.Version != version {
		return nil, fmt.Errorf("checkpoint %s has version %d; this program knows version %d", f.path, e.Version, version)
	}
	if len(e.Document) == 0 {
		return nil, fmt.Errorf("checkpoint %s is damaged (it holds no document); remove it to begin anew", f.path)
	}
	f.last = e.Document
	return bytes.Clone(e.Document), nil
}

func (f *file) Save(_ context.Context, doc []byte) error {
	if len(doc) > MaxBytes {
		return fmt.Errorf("checkpoint: %d bytes are more than the %d that a store takes", len(doc), MaxBytes)
	}
	if f.last != nil && bytes.Equal(doc, f.last) {
		return nil
	}
	raw, err := json.Marshal(envelope{version, doc})
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	// Until the rename is known to have worked, nothing is known of what the file holds.
	f.last = nil
	if err := replace(f.path, append(raw, '\n')); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	f.last = bytes.Clone(doc)
	return nil
}

// replace writes data to path so that path always holds the old or the new bytes, also after a power cut.
func replace(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// One name, so that crashes leave one file behind and not one each.
	tmp, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name()) // best effort: the first error is the one that matters
		}
	}()
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
