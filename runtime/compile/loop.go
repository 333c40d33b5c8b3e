package compile

import (
	"strings"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// hop is one way from a channel to another: by whom.
type hop struct {
	by *subject
	to *channel
}

// loops refuses whoever would send messages back to where they came from. Consumers are added to the graph oldest first, so that it is always
// the youngest of a circle that is refused, and what runs already goes on.
func (c *compiler) loops() {
	graph := map[*channel][]hop{}
	for _, con := range c.consumers {
		if con.source == nil {
			continue
		}
		// A Mailbox that a Pipeline reads hands nothing on by itself.
		if con.source.mailbox != nil && con.source.subject == con.subject && con.source.mode == modePipeline {
			continue
		}
		for _, o := range con.outs {
			if way := path(graph, o.to, con.source, map[*channel]bool{}); way != nil {
				con.refuse(o.field, v1alpha1.ReasonLoop, "messages would go round in a circle: %s: break it at one place, for instance with another Topic or Mailbox", describe(con, o.to, way))
				continue
			}
			graph[con.source] = append(graph[con.source], hop{con.subject, o.to})
		}
	}
}

// path is a way from one channel to another; nil when there is none, empty when they are the same.
func path(graph map[*channel][]hop, from, to *channel, seen map[*channel]bool) []hop {
	if from == to {
		return []hop{}
	}
	seen[from] = true
	for _, h := range graph[from] {
		if seen[h.to] {
			continue
		}
		if rest := path(graph, h.to, to, seen); rest != nil {
			return append([]hop{h}, rest...)
		}
	}
	return nil
}

// describe tells the whole circle: "Topic default/a → Pipeline default/x → Topic default/b → … → Topic default/a".
func describe(con *consumer, first *channel, way []hop) string {
	said := []string{con.source.String()}
	if con.subject != con.source.subject {
		said = append(said, con.String())
	}
	said = append(said, first.String())
	for _, h := range way {
		if h.by != first.subject {
			said = append(said, h.by.String())
		}
		said = append(said, h.to.String())
		first = h.to
	}
	return strings.Join(said, " → ")
}
