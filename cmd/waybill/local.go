package main

import (
	"net/http"
	"net/netip"

	"github.com/waybill-dev/waybill/runtime/gateway"
)

// watchedLocally keeps /status and /metrics for callers on this machine: they name every resource and the addresses that it delivers to, and
// ask nobody for a token. /healthz and /readyz tell nothing that a stranger must not know.
func watchedLocally(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if (r.URL.Path == "/status" || r.URL.Path == "/metrics") && !fromHere(r) {
			gateway.LocalOnly(w, r.URL.Path)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// fromHere reports whether a request comes from this machine, which calls its own addresses from the same ones.
func fromHere(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	if from.Addr().Unmap().IsLoopback() {
		return true
	}
	to, ok := r.Context().Value(http.LocalAddrContextKey).(interface{ AddrPort() netip.AddrPort })
	return ok && to.AddrPort().Addr().Unmap() == from.Addr().Unmap()
}
