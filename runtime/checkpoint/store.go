// Package checkpoint keeps where a poller stands, across restarts. What is kept is one small JSON document a poller; only the poller knows
// what is in it. The store's promise is that Load gives the last document for which Save returned nil, or a later one, and never a mix.
package checkpoint

import (
	"context"
	"errors"
)

// MaxBytes is the largest document a store takes: a ConfigMap of Kubernetes holds 1 MiB.
const MaxBytes = 512 << 10

// ErrConflict says that somebody else has written the document since it was loaded: two pollers run as one. Whoever gets it stops.
var ErrConflict = errors.New("the checkpoint was written by somebody else since it was read")

// Store keeps the document of one poller. It has one user at a time.
type Store interface {
	// Load returns the document; nil when none was saved yet.
	Load(ctx context.Context) ([]byte, error)
	// Save returns when the document is durable. A document equal to what is stored is not written again.
	Save(ctx context.Context, doc []byte) error
}
