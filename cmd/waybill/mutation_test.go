package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// The compiler also looks at what the schema has refused, to tell all faults in one go: each field of each sample is left out or given
// something that it does not take.
func TestNoWrongFieldStopsTheCompiler(t *testing.T) {
	files, err := filepath.Glob("../../config/samples/patterns/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	right, err := filepath.Glob("../../runtime/manifest/testdata/right/*.yaml")
	if err != nil || len(right) == 0 {
		t.Fatal(right, err)
	}
	tried, seen := 0, map[string]bool{}
	for _, file := range append(files, right...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		documents := strings.Split(string(text), "\n---\n")
		for i := range documents {
			var object map[string]any
			if err := yaml.Unmarshal([]byte(documents[i]), &object); err != nil {
				t.Fatal(file, err)
			}
			kind, _ := object["kind"].(string)
			eachMutation(object["spec"], kind, func(what string) {
				if seen[what] {
					return
				}
				seen[what] = true
				mutant, err := yaml.Marshal(object)
				if err != nil {
					t.Fatal(err)
				}
				around := slices.Clone(documents)
				around[i] = string(mutant)
				defer func() {
					if r := recover(); r != nil {
						t.Errorf("%s of %s: %v", what, file, r)
					}
				}()
				l, err := (&sources{paths: []string{"-"}}).read(bytes.NewReader([]byte(strings.Join(around, "\n---\n"))))
				if err != nil {
					return // it cannot be read at all
				}
				tried++
				l.ofFaulty(l.input())
			})
		}
	}
	if tried < 800 {
		t.Errorf("only %d were tried", tried)
	}
}

// eachMutation calls try while one member in value is wrong, for each of them and each way.
func eachMutation(value any, path string, try func(what string)) {
	switch value := value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			was, at := value[name], path+"."+name
			eachMutation(was, at, try)
			for what, wrong := range map[string]any{"text": "x y", "list": []any{map[string]any{}}, "empty list": []any{}} {
				value[name] = wrong
				try(at + " as " + what)
			}
			delete(value, name)
			try("no " + at)
			value[name] = was
		}
	case []any:
		for i := range value {
			eachMutation(value[i], path+"[]", try)
		}
	}
}
