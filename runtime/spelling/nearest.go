// Package spelling finds what a misspelt name was meant to be, for errors that say "did you mean".
package spelling

import (
	"slices"
	"strings"
)

// Nearest is the word among those given that a misspelt one most likely stands for, "" when none is near: fewer than half of its letters may
// differ, and four at the most. Of equally near ones it is the first in the alphabet. A word cut short, of four letters or more, stands for
// the only one that begins so.
func Nearest(word string, among []string) string {
	best, least := "", min(4, (len(word)-1)/2)+1
	for _, candidate := range slices.Sorted(slices.Values(among)) {
		if d := distance(strings.ToLower(word), strings.ToLower(candidate)); d < least {
			best, least = candidate, d
		}
	}
	if best != "" || len(word) < 4 {
		return best
	}
	for _, candidate := range among {
		if len(candidate) > len(word) && strings.EqualFold(candidate[:len(word)], word) {
			if best != "" {
				return ""
			}
			best = candidate
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
