package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
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
		return nil, unusable(dir, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, unusable(dir, err)
	}
	// The kernel gives the lock up with the process, however it ends.
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("--data %s: another waybill run%s uses this folder; stop it, or name another folder with --data", dir, holder(lock))
		}
		return nil, unusable(dir, fmt.Errorf("it cannot be locked: %w", err))
	}
	s := &state{dir: dir, lock: lock}
	if err := errors.Join(s.sign(), s.checkFormat()); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// unusable says why a folder cannot keep state; the path of what failed in it says nothing more.
func unusable(dir string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return fmt.Errorf("--data %s: cannot keep state there: %w; name another folder, or say --ephemeral to keep nothing", dir, err)
}

// sign writes who holds the folder, for the one who is refused.
func (s *state) sign() error {
	if err := s.lock.Truncate(0); err != nil {
		return unusable(s.dir, err)
	}
	if _, err := s.lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0); err != nil {
		return unusable(s.dir, err)
	}
	return nil
}

// holder names the process that holds the lock, as far as it has signed.
func holder(lock *os.File) string {
	pid := make([]byte, 20)
	n, err := lock.ReadAt(pid, 0)
	if err != nil && !errors.Is(err, io.EOF) || n == 0 {
		return ""
	}
	return fmt.Sprintf(" (process %s)", bytes.TrimSpace(pid[:n]))
}

func (s *state) checkFormat() error {
	path := filepath.Join(s.dir, "format")
	found, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.write(path, []byte(stateFormat))
	case err != nil:
		return unusable(s.dir, err)
	case string(found) != stateFormat:
		return fmt.Errorf("--data %s: the folder was made by another version of waybill (its format is %q, this one's %q): use that version, or name another folder", s.dir,
			strings.TrimSpace(string(found)), strings.TrimSpace(stateFormat))
	}
	return nil
}

// write makes a file whole or not at all, so that a full disk leaves no half of one behind.
func (s *state) write(path string, content []byte) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		return unusable(s.dir, errors.Join(err, os.Remove(temp)))
	}
	if err := os.Rename(temp, path); err != nil {
		return unusable(s.dir, err)
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
	return key, s.write(path, key)
}

func (s *state) close() error {
	if s.temp {
		return os.RemoveAll(s.dir)
	}
	return s.lock.Close()
}
