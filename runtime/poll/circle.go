package poll

import (
	"fmt"
	"hash/fnv"
)

// maxVisited bounds what a round remembers of the pages that it was led to.
const maxVisited = 1 << 16

// circle ends a round that is led to a page where it has been: it would go on for ever. The next round begins anew.
func (p *Poller) circle(next *position) error {
	if next.Link == "" && next.Token == "" || p.plan.HTTP == nil {
		return nil
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(next.Link + "\n" + next.Token))
	if _, been := p.visited[h.Sum64()]; been {
		p.st.At = nil
		return &failure{reason: PageUnreadable, err: fmt.Errorf("pagination: page %d leads to one that this round has read already, so the pages go in a circle; the server has to end them", next.Number-1)}
	}
	if len(p.visited) < maxVisited {
		if p.visited == nil {
			p.visited = map[uint64]struct{}{}
		}
		p.visited[h.Sum64()] = struct{}{}
	}
	return nil
}
