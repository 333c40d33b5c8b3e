package main

import (
	"bytes"
	"crypto/tls"
	"net/http"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// metricsOptions: who may read metrics is for the cluster's own roles to say (system:auth-delegator, nonResourceURLs /metrics).
func metricsOptions(c config) metricsserver.Options {
	o := metricsserver.Options{BindAddress: c.metrics}
	if !c.plainMetrics {
		o.SecureServing = true
		o.FilterProvider = authorized
		o.TLSOpts = []func(*tls.Config){func(t *tls.Config) { t.MinVersion = tls.VersionTLS12 }}
	}
	return o
}

// authorized lets those read that the API server knows and allows to. To it a token that is no good is an error, and the filter below would
// answer 500; as the API server itself does, 401 is answered.
func authorized(cfg *rest.Config, client *http.Client) (metricsserver.Filter, error) {
	filter, err := filters.WithAuthenticationAndAuthorization(cfg, client)
	if err != nil {
		return nil, err
	}
	return func(_ logr.Logger, next http.Handler) (http.Handler, error) {
		// It would log an error for whatever a stranger sends.
		guarded, err := filter(logr.Discard(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w.(*answer).ResponseWriter, r)
		}))
		if err != nil {
			return nil, err
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { guarded.ServeHTTP(&answer{ResponseWriter: w}, r) }), nil
	}, nil
}

// An answer is a refusal, whose code is known when its text is.
type answer struct {
	http.ResponseWriter

	code int
}

func (a *answer) WriteHeader(code int) { a.code = code }

func (a *answer) Write(text []byte) (int, error) {
	if a.code == http.StatusInternalServerError && bytes.HasPrefix(text, []byte("Authentication failed")) {
		a.code = http.StatusUnauthorized
	}
	a.ResponseWriter.WriteHeader(a.code)
	return a.ResponseWriter.Write(text)
}
