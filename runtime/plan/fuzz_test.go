package plan

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// A plan that is taken says the same when it is written, and again when that is read: its hash is its own.
func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"version":1,"resource":{"kind":"Topic","namespace":"a","name":"b"},"effective":{},"brokers":[]}`))
	f.Add([]byte(`{"version":1,"resource":{"kind":"Poller","namespace":"a","name":"b"},"effective":{},"brokers":[],"poller":{"schedule":{"every":"1m30s"},"to":{"broker":"a/m","kind":"Topic","name":"t"},"schema":{"type": "object"}}}`))
	f.Add([]byte(`{"version":1} {"version":1}`))
	files, err := filepath.Glob("../compile/testdata/*.out.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, name := range files { // plans as people see them, in YAML: words for the fuzzer
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text[:min(len(text), 4096)])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Unmarshal(data)
		if err != nil {
			if p != nil {
				t.Fatal("a plan beside an error")
			}
			return
		}
		first, err := Marshal(p)
		if err != nil {
			return // a number that JSON cannot say
		}
		again, err := Unmarshal(first)
		if err != nil {
			t.Fatalf("does not read what it wrote: %v: %s", err, first)
		}
		second, err := Marshal(again)
		if err != nil || !bytes.Equal(first, second) || Hash(first) != Hash(second) {
			t.Fatalf("%v\n%s\n%s", err, first, second)
		}
	})
}

func TestAPlanWithSomethingBehindItIsRefused(t *testing.T) {
	const ok = `{"version":1,"resource":{"kind":"Topic","namespace":"a","name":"b"},"effective":{},"brokers":[]}`
	if _, err := Unmarshal([]byte(ok + "\n")); err != nil {
		t.Error(err)
	}
	for _, tail := range []string{ok, "}", "x", `""`} {
		if _, err := Unmarshal([]byte(ok + tail)); err == nil {
			t.Errorf("%q behind a plan is passed over", tail)
		}
	}
}
