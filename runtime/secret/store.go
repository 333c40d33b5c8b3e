// Package secret gives the bytes of Secrets to whoever shows them to a broker or a server. A plan names secrets and never holds one; the
// worker reads them from mounted directories, the laptop from the manifests it was given. Values are read again at each use, so that a
// rotated secret takes effect without a restart. No error and no log line ever holds a value.
package secret

import (
	"bytes"
	"errors"
	"fmt"
)

// What can be missing. Both are wrapped with the names of Secret and key.
var (
	ErrNoSecret = errors.New("there is no such Secret")
	ErrNoKey    = errors.New("the Secret has no such key")
)

// Store gives the value of one key of a Secret.
type Store interface {
	// Value returns the bytes as they are in the Secret; the caller must not change them. The error names Secret and key, and wraps
	// ErrNoSecret or ErrNoKey when there is none. Safe for concurrent use, and cheap enough to be called for each request.
	Value(namespace, name, key string) ([]byte, error)
}

// Line returns the first line of a value that is not blank, without surrounding space: what a user name or a password of a broker is.
// Files often end with a newline.
func Line(value []byte) []byte {
	for line := range bytes.Lines(value) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line
		}
	}
	return nil
}

// Text reads the first line of a key's value as Line does. It is an error when there is none.
func Text(s Store, namespace, name, key string) (string, error) {
	v, err := s.Value(namespace, name, key)
	if err != nil {
		return "", err
	}
	line := Line(v)
	if line == nil {
		return "", fmt.Errorf("secret %s/%s: the value of key %q is empty", namespace, name, key)
	}
	return string(line), nil
}
