package verify

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// A Kind is a fault that can be injected. It lasts between Least and Most.
type Kind struct {
	Name        string
	Least, Most time.Duration
}

// A Fault is one fault of a schedule.
type Fault struct {
	Kind  string
	After time.Duration // of the one before, or of the beginning
	For   time.Duration
	Roll  uint64 // what else is left to chance
}

func (f Fault) String() string {
	return fmt.Sprintf("%s after %s for %s (roll %d)", f.Kind, f.After.Round(time.Millisecond), f.For.Round(time.Millisecond), f.Roll)
}

// pause is at most between two faults.
const pause = 1500 * time.Millisecond

// Schedule gives n faults. Every kind comes before any comes again, in an order, after pauses and of a length that the seed alone decides.
func Schedule(seed uint64, n int, kinds []Kind) []Fault {
	random := rand.New(rand.NewPCG(seed, uint64(len(kinds))))
	var order []int
	all := make([]Fault, n)
	for i := range all {
		if len(order) == 0 {
			order = random.Perm(len(kinds))
		}
		k := kinds[order[0]]
		order = order[1:]
		all[i] = Fault{k.Name, rand64(random, 0, pause), rand64(random, k.Least, k.Most), random.Uint64()}
	}
	return all
}

func rand64(random *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(random.Int64N(int64(most-least)+1))
}
