package checkpoint

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFileSurvivesARestart(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "default", "rates.json")
	s := File(path)
	if doc, err := s.Load(ctx); doc != nil || err != nil {
		t.Fatalf("Load before the first Save = %q, %v; want nothing", doc, err)
	}
	for _, doc := range []string{`{"cursor":"1"}`, `{"cursor":"2","big":9007199254740993}`} {
		if err := s.Save(ctx, []byte(doc)); err != nil {
			t.Fatal(err)
		}
		if got, err := File(path).Load(ctx); err != nil || string(got) != doc {
			t.Fatalf("Load = %s, %v; want %s", got, err, doc)
		}
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 {
		t.Fatalf("the directory holds %v, %v; want the checkpoint alone", files, err)
	}
}

func TestFileIsNotWrittenAgainUnchanged(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "rates.json")
	doc := []byte(`{"cursor":"1"}`)
	if err := File(path).Save(ctx, doc); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	s := File(path)
	if _, err := s.Load(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(ctx, doc); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("an unchanged document replaced the file")
	}
	if err := s.Save(ctx, []byte(`{"cursor":"2"}`)); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(path); os.SameFile(before, after) {
		t.Error("a changed document did not replace the file")
	}
}

func TestFileRefuses(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	for name, content := range map[string]string{"empty": "", "cut": `{"version":1,"docu`, "other version": `{"version":2,"document":{}}`, "nothing": `{"version":1}`} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if doc, err := File(path).Load(ctx); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: Load = %q, %v; want an error that names the file", name, doc, err)
		}
	}
	path := filepath.Join(dir, "large")
	if err := File(path).Save(ctx, []byte(`"`+strings.Repeat("x", MaxBytes)+`"`)); err == nil {
		t.Error("a document over the bound was saved")
	}
	if err := File(path).Save(ctx, []byte(`{"half`)); err == nil {
		t.Error("a document that is not JSON was saved")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a refused document left a file")
	}
}

func TestFileIsWrittenAgainAfterAFailure(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "d")
	s := File(filepath.Join(dir, "rates.json"))
	doc := []byte(`{"cursor":"1"}`)
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	if err := s.Save(ctx, doc); err == nil {
		t.Fatal("Save below a file worked")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(ctx, doc); err != nil {
		t.Fatal(err)
	}
	if got, err := File(filepath.Join(dir, "rates.json")).Load(ctx); err != nil || string(got) != string(doc) {
		t.Fatalf("Load = %s, %v", got, err)
	}
}
