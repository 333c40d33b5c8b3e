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

// rivals are members of which a mapping takes one: the other is put beside each.
var rivals = func() map[string]map[string]any {
	ref := map[string]any{"name": "x"}
	of := map[string]any{"secretRef": ref}
	all := map[string]map[string]any{}
	for _, group := range []map[string]any{
		{"every": "30s", "cron": "61 * * * *"},
		{"http": map[string]any{"url": "http://a.example/"}, "sql": map[string]any{"driver": "Postgres", "dsnSecretRef": ref, "query": "select 1"}},
		{"url": "http://a.example/", "serviceRef": ref}, {"uri": "http://a.example/", "serviceRef": ref},
		{"topicRef": ref, "mailboxRef": ref, "reply": map[string]any{}, "uri": "http://a.example/"},
		{"bearer": of, "basic": of, "header": map[string]any{"name": "X", "secretRef": ref}},
		{"filter": map[string]any{"cel": "true"}, "split": map[string]any{"cel": "[1]"}},
	} {
		for name := range group {
			if all[name] == nil {
				all[name] = map[string]any{}
			}
			maps.Copy(all[name], group)
		}
	}
	return all
}()

// The compiler also looks at what the schema has refused, to tell all faults in one go: each field of each sample is left out or given
// something that it does not take, or is there with another that shuts it out.
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
			value[name] = was
			for other, rival := range rivals[name] {
				if _, there := value[other]; !there {
					value[other] = rival
					try(at + " with " + other)
					delete(value, other)
				}
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
