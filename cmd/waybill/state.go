package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// stateFormat is written into the state folder; another release's folder is refused rather than misread.
const stateFormat = "waybill-state-1\n"

// A state is the folder in which a laptop's broker, checkpoints and keys live between runs. One process at a time holds it.
type state struct {
	dir  string
	lock *os.File // nil when ephemeral
	temp bool
}

// openState makes or takes over the folder dir; "" makes a temporary one that close removes.
func openState(dir string) (*state, error) {
	if dir == "" {
		temp, err := os.MkdirTemp("", "waybill-")
		if err != nil {
			return nil, fmt.Errorf("--ephemeral: %w", err)
		}
		return &state{dir: temp, temp: true}, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("--data %s: %w", dir, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--data %s: %w", dir, err)
	}
	// The kernel gives the lock up with the process, however it ends.
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("--data %s: another waybill run uses this folder; stop it, or name another folder with --data", dir)
		}
		return nil, fmt.Errorf("--data %s: lock: %w", dir, err)
	}
	s := &state{dir: dir, lock: lock}
	if err := s.checkFormat(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *state) checkFormat() error {
	path := filepath.Join(s.dir, "format")
	found, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return os.WriteFile(path, []byte(stateFormat), 0o600)
	case err != nil:
		return fmt.Errorf("--data %s: %w", s.dir, err)
	case string(found) != stateFormat:
		return fmt.Errorf("--data %s: the folder holds %q; this waybill reads %q: name another folder", s.dir,
			strings.TrimSpace(string(found)), strings.TrimSpace(stateFormat))
	}
	return nil
}

// path names a place in the folder.
func (s *state) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// key returns the 32 bytes that lease tokens are sealed with, made on first use and kept, so that a lease survives a restart.
func (s *state) key() ([]byte, error) {
	path := s.path("lease.key")
	key, err := os.ReadFile(path)
	if err == nil && len(key) == 32 {
		return key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key = make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	return key, os.WriteFile(path, key, 0o600)
}

func (s *state) close() error {
	if s.temp {
		return os.RemoveAll(s.dir)
	}
	return s.lock.Close()
}
