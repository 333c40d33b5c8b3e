package poll

import (
	"slices"
	"strconv"
	"testing"
)

// What is on the page in every round is not forgotten, however much else comes and goes.
func TestACursorsItemThatStaysIsRememberedLongest(t *testing.T) {
	var at position
	const stays = 7
	for n := range uint64(12 * 1000) {
		if n%1000 == 0 {
			at.advance("a", stays)
		}
		at.advance("v"+strconv.FormatUint(n, 10), 100+n)
		if !slices.Contains(at.Ties, stays) {
			t.Fatalf("forgotten after %d others", n)
		}
	}
	if len(at.Ties) > maxSeen {
		t.Errorf("%d are remembered", len(at.Ties))
	}
}
