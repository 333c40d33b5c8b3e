package secret

import (
	"bytes"
	"fmt"
	"sync"
)

// Memory holds Secrets that were read from manifests. The zero value is empty and ready for use.
type Memory struct {
	mu      sync.RWMutex
	secrets map[object]map[string][]byte
}

type object struct{ namespace, name string }

// Put adds a Secret, or replaces the one of that name. It copies data.
func (m *Memory) Put(namespace, name string, data map[string][]byte) {
	own := make(map[string][]byte, len(data))
	for k, v := range data {
		own[k] = bytes.Clone(v)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.secrets == nil {
		m.secrets = map[object]map[string][]byte{}
	}
	m.secrets[object{namespace, name}] = own
}

// Copy puts a Secret under another name too. Where there is none it does nothing.
func (m *Memory) Copy(namespace, name, toNamespace, toName string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.secrets[object{namespace, name}]; ok {
		m.secrets[object{toNamespace, toName}] = s // never written to again: Put replaces
	}
}

// Value implements Store.
func (m *Memory) Value(namespace, name, key string) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, ok := m.secrets[object{namespace, name}]
	if !ok {
		return nil, fmt.Errorf("secret %s/%s: key %q: %w", namespace, name, key, ErrNoSecret)
	}
	v, ok := s[key]
	if !ok {
		return nil, fmt.Errorf("secret %s/%s: key %q: %w", namespace, name, key, ErrNoKey)
	}
	return v, nil
}
