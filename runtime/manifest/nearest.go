package manifest

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
)

func contains(list []string, s string) bool { return slices.Contains(list, s) }

// belongsUnder names the field beside an unknown one that has a field of that name: what is written one level too far to the left. "" when
// there is none, or more than one.
func belongsUnder(name, path string, s *schema.Structural) string {
	var under []string
	for sibling, p := range s.Properties {
		if _, ok := p.Properties[name]; ok && sibling != "status" {
			under = append(under, sibling)
		}
	}
	// The schema leaves metadata to the API server.
	if path == "" && contains([]string{"name", "namespace", "labels", "annotations"}, name) {
		under = append(under, "metadata")
	}
	if len(under) != 1 {
		return ""
	}
	return under[0]
}

// unknown says that a field is not known, and which may have been meant.
func unknown(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return fmt.Sprintf("unknown field: did you mean %s?", near)
	}
	switch len(known) {
	case 0:
		return "unknown field: nothing more can be set here"
	case 1:
		return "unknown field: all that can be set here is " + known[0]
	}
	return "unknown field: known here are " + listed(known)
}

// listed is a list as prose has it, cut after two dozen.
func listed(words []string) string {
	words = slices.Clone(words)
	slices.Sort(words)
	switch {
	case len(words) == 1:
		return words[0]
	case len(words) > 24:
		return strings.Join(words[:24], ", ") + " and more"
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// nearest is the word that a misspelt one most likely stands for, or "".
func nearest(word string, among []string) string {
	best, least := "", max(1, min(len(word), 12)/3)+1
	for _, candidate := range slices.Sorted(slices.Values(among)) {
		if d := distance(strings.ToLower(word), strings.ToLower(candidate)); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, exchange or swap with their neighbour to make b of a.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
