package engine

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"github.com/waybill-dev/waybill/runtime/gateway"
)

// router hands a request to the gateway whose base it lies under. Bases are either "" (a Pod: one gateway, at the root) or
// /NAMESPACE/PLURAL/NAME (a laptop: all of them). It is no http.ServeMux because that answers unclean paths with redirects, which a client
// that POSTs an event does not follow.
type router struct {
	mu     sync.RWMutex
	routes map[string]http.Handler

	counting sync.Mutex
	underWay int
	none     chan struct{} // closed when no request is under way; nil: nobody waits for that
}

func (r *router) add(base string, h http.Handler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.routes[base] = h
}

func (r *router) find(path string) (h http.Handler, base string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if h, ok := r.routes[""]; ok {
		return h, ""
	}
	end := 0
	for range 3 {
		next := strings.IndexByte(path[min(end+1, len(path)):], '/')
		if next < 0 {
			end = len(path)
			break
		}
		end += 1 + next
	}
	return r.routes[path[:end]], path[:end]
}

// count notes that a request came or ended.
func (r *router) count(n int) {
	r.counting.Lock()
	defer r.counting.Unlock()
	if r.underWay += n; r.underWay == 0 && r.none != nil {
		close(r.none)
		r.none = nil
	}
}

// wait returns when no request is under way or ctx ends.
func (r *router) wait(ctx context.Context) {
	r.counting.Lock()
	if r.underWay == 0 {
		r.counting.Unlock()
		return
	}
	if r.none == nil {
		r.none = make(chan struct{})
	}
	none := r.none
	r.counting.Unlock()
	select {
	case <-none:
	case <-ctx.Done():
	}
}

// ServeHTTP serves all gateways.
func (r *router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.count(1)
	defer r.count(-1)
	h, base := r.find(req.URL.Path)
	raw := rawBelow(req.URL.RawPath, len(base))
	if h == nil || gateway.EncodedSlash(strings.TrimSuffix(req.URL.RawPath, raw)) {
		gateway.NotFound(w)
		return
	}
	// Not http.StripPrefix: that answers 404 by itself where the path was spelt with needless percent-encoding.
	below := new(http.Request)
	*below = *req
	u := *req.URL
	u.Path, u.RawPath = u.Path[len(base):], raw
	below.URL = &u
	h.ServeHTTP(w, below)
}

// rawBelow is what follows n bytes of a path in its percent-encoded spelling, "" where that is none of its own.
func rawBelow(raw string, n int) string {
	if raw == "" {
		return ""
	}
	i := 0
	for range n {
		if raw[i] == '%' {
			i += 2
		}
		i++
	}
	return raw[i:]
}
