package nats

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A server that could not write, for its disk was full or failed, stores nothing any more, whatever room there is later: only a start makes
// it read its files anew. A healer starts it again once a file can be written beside its data.
type healer struct {
	embedded *Embedded
	failed   chan struct{} // holds one when the server has said so
	closed   chan struct{}
	once     sync.Once
	ended    sync.WaitGroup
}

const (
	healPause = 500 * time.Millisecond
	// healRoom must be free: a server that starts with less could not write its first block.
	healRoom = 1 << 20
)

// writeFailed reports whether an error of the server's log is one after which it stores nothing any more.
func writeFailed(text string) bool {
	return strings.Contains(strings.ToLower(text), "critical write error") || strings.Contains(text, "resources, will be DISABLED")
}

func startHealer(e *Embedded) *healer {
	h := &healer{embedded: e, failed: make(chan struct{}, 1), closed: make(chan struct{})}
	h.ended.Go(h.run)
	return h
}

// told is called by the server's log; it does not wait.
func (h *healer) told() {
	select {
	case h.failed <- struct{}{}:
	default:
	}
}

func (h *healer) run() {
	tick := time.NewTicker(healPause)
	defer tick.Stop()
	for sick := false; ; {
		select {
		case <-h.failed:
			sick = true
			continue
		case <-h.closed:
			return
		case <-tick.C:
		}
		if sick && h.writable() {
			sick = h.heal() != nil
		}
	}
}

// writable tries whether there is room on the disk.
func (h *healer) writable() bool {
	path := filepath.Join(h.embedded.config.Dir, "room")
	f, err := os.Create(path)
	if err != nil {
		return false
	}
	_, err = f.Write(make([]byte, healRoom))
	err = errors.Join(err, f.Sync(), f.Close(), os.Remove(path))
	return err == nil
}

func (h *healer) heal() error {
	log := h.embedded.config.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	// What it said until now was about the life that ends.
	select {
	case <-h.failed:
	default:
	}
	if err := h.embedded.restart(); err != nil {
		log.Error("Embedded NATS server could not write, and does not start again; trying further", "error", err)
		return err
	}
	log.Warn("Embedded NATS server could not write to its disk; there is room again, and it was started anew")
	return nil
}

// close ends the healer, before the server is shut down.
func (h *healer) close() {
	h.once.Do(func() { close(h.closed) })
	h.ended.Wait()
}
