package secret

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestMemoryNamesWhatIsMissing(t *testing.T) {
	var m Memory
	data := map[string][]byte{"token": []byte("s3cret")}
	m.Put("shop", "api", data)
	data["token"][0] = 'X' // the store has its own copy

	if v, err := m.Value("shop", "api", "token"); err != nil || string(v) != "s3cret" {
		t.Fatalf("Value = %q, %v", v, err)
	}
	for _, c := range []struct {
		namespace, name, key, want string
		is                         error
	}{
		{"shop", "other", "token", "secret shop/other", ErrNoSecret},
		{"elsewhere", "api", "token", "secret elsewhere/api", ErrNoSecret},
		{"shop", "api", "password", `secret shop/api: key "password"`, ErrNoKey},
	} {
		_, err := m.Value(c.namespace, c.name, c.key)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("Value(%s, %s, %s): %v; want one that names %q", c.namespace, c.name, c.key, err, c.want)
		}
	}
}

func TestText(t *testing.T) {
	var m Memory
	m.Put("shop", "api", map[string][]byte{
		"newline": []byte("tok\n"), "several": []byte("\n  new \nold\n"), "blank": []byte(" \n\n"),
	})
	for key, want := range map[string]string{"newline": "tok", "several": "new"} {
		if v, err := Text(&m, "shop", "api", key); err != nil || v != want {
			t.Errorf("Text(%s) = %q, %v; want %q", key, v, err, want)
		}
	}
	if v, err := Text(&m, "shop", "api", "blank"); err == nil || !strings.Contains(err.Error(), `"blank"`) {
		t.Errorf("Text(blank) = %q, %v; want an error that names the key", v, err)
	}
}

// mount writes a Secret as the kubelet does: the files in a directory of their own, "..data" a link to it, and a link for each key.
func mount(t *testing.T, root, name, generation string, data map[string]string) {
	t.Helper()
	dir := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Join(dir, generation), 0o755); err != nil {
		t.Fatal(err)
	}
	for k, v := range data {
		if err := os.WriteFile(filepath.Join(dir, generation, k), []byte(v), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", k), filepath.Join(dir, k)); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(generation, filepath.Join(dir, "..new")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

func TestDirFollowsRotation(t *testing.T) {
	root := t.TempDir()
	mount(t, root, "api", "..1", map[string]string{"token": "one"})
	s := Dir(root)
	want := func(value string) {
		t.Helper()
		if v, err := s.Value("shop", "api", "token"); err != nil || string(v) != value {
			t.Fatalf("Value = %q, %v; want %q", v, err, value)
		}
	}
	want("one")
	want("one")
	mount(t, root, "api", "..2", map[string]string{"token": "two"}) // same size, maybe the same time: another file
	want("two")

	if err := os.RemoveAll(filepath.Join(root, "api")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Value("shop", "api", "token"); !errors.Is(err, ErrNoSecret) {
		t.Fatalf("after removal: %v", err)
	}
	mount(t, root, "api", "..4", map[string]string{"other": "x"})
	if _, err := s.Value("shop", "api", "token"); !errors.Is(err, ErrNoKey) {
		t.Fatalf("with another key: %v", err)
	}
	mount(t, root, "api", "..3", map[string]string{"token": "three"})
	want("three")
}

func TestDirKeepsTheFileWhileItIsUnchanged(t *testing.T) {
	root := t.TempDir()
	mount(t, root, "api", "..1", map[string]string{"token": "one"})
	s := Dir(root)
	a, err := s.Value("shop", "api", "token")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := s.Value("shop", "api", "token")
	if &a[0] != &b[0] {
		t.Error("an unchanged file was read twice")
	}
}

func TestDirErrors(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "outside"), []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	mount(t, root, "api", "..1", map[string]string{"token": "one", "huge": strings.Repeat("x", maxBytes+1)})
	s := Dir(root)
	for _, c := range [][2]string{{"api", "../outside"}, {"..", "outside"}, {".", "outside"}, {"", "outside"}, {"api", ""}, {"api", "..data"}, {"api", "missing"}, {"api", "huge"}} {
		v, err := s.Value("shop", c[0], c[1])
		if err == nil {
			t.Errorf("Value(%q, %q) = %d bytes; want an error", c[0], c[1], len(v))
		} else if !strings.HasPrefix(err.Error(), "secret shop/"+c[0]+":") || strings.Contains(err.Error(), root) {
			t.Errorf("Value(%q, %q): %v; want the Secret named and the path not", c[0], c[1], err)
		}
	}
}

func TestDirIsSafeForConcurrentUse(t *testing.T) {
	root := t.TempDir()
	mount(t, root, "api", "..0", map[string]string{"token": "v"})
	s := Dir(root)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if v, err := s.Value("shop", "api", "token"); err != nil || string(v) != "v" {
					t.Errorf("Value = %q, %v", v, err)
					return
				}
			}
		})
	}
	for i := range 20 {
		mount(t, root, "api", "..r"+string(rune('a'+i)), map[string]string{"token": "v"})
	}
	wg.Wait()
}
