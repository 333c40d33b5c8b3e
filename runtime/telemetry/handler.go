// Package telemetry shows what an engine does: health and readiness for those who start it, metrics and a status page for those who watch.
package telemetry

import (
	"encoding/json"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/waybill-dev/waybill/runtime/engine"
)

// Handler serves /healthz (the process answers), /readyz (200 once every plan runs, 503 with the reason before and while draining), /metrics
// (Prometheus) and /status (JSON: what each resource does and has counted, and which content of their Secrets the connections use);
// everything else goes to next, which may be nil.
func Handler(e *engine.Engine, next http.Handler) http.Handler {
	metrics := promhttp.HandlerFor(registered(e), promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; path {
		case "/healthz", "/readyz", "/metrics", "/status":
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				w.Header().Set("Allow", "GET, HEAD")
				plain(w, http.StatusMethodNotAllowed, path+" serves GET and HEAD")
				return
			}
		}
		switch r.URL.Path {
		case "/healthz":
			plain(w, http.StatusOK, "ok")
		case "/readyz":
			if err := e.Ready(); err != nil {
				plain(w, http.StatusServiceUnavailable, err.Error())
				return
			}
			plain(w, http.StatusOK, "ok")
		case "/metrics":
			metrics.ServeHTTP(w, r)
		case "/status":
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(struct {
				Resources   []engine.Status     `json:"resources"`
				Credentials []engine.Credential `json:"credentials,omitempty"`
			}{e.Status(), e.Credentials()})
		default:
			if next == nil {
				http.NotFound(w, r)
				return
			}
			next.ServeHTTP(w, r)
		}
	})
}

// registered are all the metrics of a process that runs e.
func registered(e *engine.Engine) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector(), &collector{e})
	return r
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	w.Write([]byte(text + "\n"))
}
