package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// maxBytes is what Kubernetes allows a whole Secret to hold.
const maxBytes = 1 << 20

// Dir reads Secrets that are mounted as a directory each: ROOT/NAME/KEY. All of them are of one namespace, the Pod's own, so the namespace
// of a request only appears in errors. A value is read again when its file was replaced or changed; otherwise a request costs one stat.
func Dir(root string) Store { return &dir{root: root, files: map[string]file{}} }

type dir struct {
	root  string
	mu    sync.Mutex
	files map[string]file // by path below root
}

type file struct {
	info  fs.FileInfo
	value []byte
}

func (d *dir) Value(namespace, name, key string) ([]byte, error) {
	v, err := d.value(name, key)
	if err == nil {
		return v, nil
	}
	// An error of os names the path, which says more about the Pod than about the Secret.
	var pathErr *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err = ErrNoKey; !d.mounted(name) {
			err = ErrNoSecret
		}
	case errors.As(err, &pathErr):
		err = pathErr.Err
	}
	return nil, fmt.Errorf("secret %s/%s: key %q: %w", namespace, name, key, err)
}

func (d *dir) mounted(name string) bool {
	info, err := os.Stat(filepath.Join(d.root, name))
	return err == nil && info.IsDir()
}

func (d *dir) value(name, key string) ([]byte, error) {
	if !plain(name) || !plain(key) {
		return nil, errors.New("not a name that a Secret or its key can have")
	}
	path := filepath.Join(d.root, name, key)
	info, err := os.Stat(path)
	if err != nil {
		d.mu.Lock()
		delete(d.files, path)
		d.mu.Unlock()
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if f, ok := d.files[path]; ok && same(f.info, info) {
		return f.value, nil
	}
	f, err := read(path)
	if err != nil {
		return nil, err
	}
	d.files[path] = f
	return f.value, nil
}

// read takes the file's identity from the open file: between the stat and the open it may have been replaced.
func read(path string) (file, error) {
	f, err := os.Open(path)
	if err != nil {
		return file{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return file{}, err
	}
	value, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return file{}, err
	}
	if len(value) > maxBytes {
		return file{}, errors.New("the value is larger than 1 MiB")
	}
	return file{info, value}, nil
}

func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// plain reports whether s is one path element of the characters that Kubernetes allows in names and keys.
func plain(s string) bool {
	if s == "" || s == "." || strings.HasPrefix(s, "..") {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}
