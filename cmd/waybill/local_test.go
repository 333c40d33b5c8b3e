package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestWhoIsHere(t *testing.T) {
	for from, to := range map[string]map[string]bool{
		"127.0.0.1:1":          {"127.0.0.1": true, "192.0.2.1": true},
		"[::1]:1":              {"::1": true},
		"[::ffff:127.0.0.1]:1": {"127.0.0.1": true},
		"192.0.2.1:1":          {"192.0.2.1": true, "::ffff:192.0.2.1": true, "127.0.0.1": false, "192.0.2.2": false},
		"nobody":               {"127.0.0.1": false},
	} {
		for address, want := range to {
			r := httptest.NewRequestWithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(address), Port: 8080}), http.MethodGet, "/status", nil)
			r.RemoteAddr = from
			if fromHere(r) != want {
				t.Errorf("from %s to %s: here is %t, want %t", from, address, !want, want)
			}
		}
	}
}
