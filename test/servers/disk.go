package servers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A Disk is a small file system of its own, which can be full.
type Disk struct {
	t   testing.TB
	dir string
}

// MountDisk mounts one of so many MiB. nil: this process may not mount, and the test has said so.
func MountDisk(t testing.TB, mebibytes int) *Disk {
	t.Helper()
	d := &Disk{t: t, dir: t.TempDir()}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm,mode=0700", mebibytes), "waybill-test", d.dir).CombinedOutput(); err != nil {
		t.Attr("not-exercised", "a full disk under the state folder: a small file system cannot be mounted here: "+strings.TrimSpace(string(out)))
		return nil
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(d.dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", d.dir, err)
		}
	})
	return d
}

// Dir is a folder on it.
func (d *Disk) Dir() string { return filepath.Join(d.dir, "data") }

// Fill takes all that is free on it.
func (d *Disk) Fill() {
	d.t.Helper()
	f, err := os.Create(d.ballast())
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for {
		n, err := f.Write(block)
		if err == nil {
			continue
		}
		if !errors.Is(err, syscall.ENOSPC) {
			d.t.Fatal(err)
		}
		if len(block) == 1 {
			return
		}
		if n == 0 {
			block = block[:len(block)/2]
		}
	}
}

// Free gives it back.
func (d *Disk) Free() {
	d.t.Helper()
	if err := os.Remove(d.ballast()); err != nil {
		d.t.Fatal(err)
	}
}

func (d *Disk) ballast() string { return filepath.Join(d.dir, "ballast") }
