package expr

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"cel.dev/cel-go/common/types"
)

// What is taken out of a record is gone, the rest keeps its order, and a name that comes back stands where it stood.
func TestRecordCompacts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRecord(0)
		var order []string
		value := map[string]types.Int{}
		for i := range rapid.IntRange(0, 40).Draw(t, "n") {
			name := fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "name"))
			if rapid.Bool().Draw(t, "out") {
				r.unset(name)
				delete(value, name)
				continue
			}
			r.set(name, types.Int(i))
			value[name] = types.Int(i)
			if !slices.Contains(order, name) {
				order = append(order, name)
			}
		}
		r.compact()
		order = slices.DeleteFunc(order, func(n string) bool { _, ok := value[n]; return !ok })
		if !slices.Equal(r.names, order) {
			t.Fatalf("got %v, want %v", r.names, order)
		}
		for i, name := range r.names {
			if r.values[i] != value[name] || r.places[name] != i {
				t.Fatalf("%s is %v at %d", name, r.values[i], r.places[name])
			}
		}
	})
}
