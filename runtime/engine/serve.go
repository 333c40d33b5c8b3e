package engine

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
)

// router hands a request to the gateway whose base it lies under. Bases are either "" (a Pod: one gateway, at the root) or
// /NAMESPACE/PLURAL/NAME (a laptop: all of them). It is no http.ServeMux because that answers unclean paths with redirects, which a client
// that POSTs an event does not follow.
type router struct {
	mu     sync.RWMutex
	routes map[string]http.Handler
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

// ServeHTTP serves all gateways.
func (r *router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h, base := r.find(req.URL.Path)
	if h == nil {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		json.NewEncoder(w).Encode(map[string]any{"type": "about:blank", "title": "Not Found", "status": http.StatusNotFound, "reason": "NotFound",
			"detail": "nothing is served at this address; /status lists what is"})
		return
	}
	// Not http.StripPrefix: that answers 404 by itself where the path was spelt with needless percent-encoding.
	below := new(http.Request)
	*below = *req
	u := *req.URL
	u.Path, u.RawPath = u.Path[len(base):], rawBelow(u.RawPath, len(base))
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
