package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// brokerShutdown bounds the closing of the server's files.
const brokerShutdown = 45 * time.Second

type brokerConfig struct {
	data, listen, health string
	secrets, secret      string
	maxStore             int64
}

func brokerFlags(args []string) brokerConfig {
	var c brokerConfig
	f := flag.NewFlagSet("worker broker", flag.ExitOnError)
	f.StringVar(&c.data, "data", "/var/lib/waybill", "folder of the messages")
	f.StringVar(&c.listen, "listen", fmt.Sprintf(":%d", plan.BrokerPort), "address for workers and the operator")
	f.StringVar(&c.health, "health", ":8081", "address of /healthz, /readyz and /metrics")
	f.StringVar(&c.secrets, "secrets", "/etc/waybill/secrets", "folder of mounted Secrets, a directory each")
	f.StringVar(&c.secret, "secret", "", "Secret with the keys username and password, and previousPassword while it is being changed")
	f.Int64Var(&c.maxStore, "max-store", 0, "bytes that may be kept; 0: a share of the disk")
	_ = f.Parse(args) // it exits by itself
	return c
}

// serveBroker is a NATS JetStream server until ctx ends.
func serveBroker(ctx context.Context, c brokerConfig, log *slog.Logger) error {
	if c.secret == "" {
		return errors.New("--secret: name the Secret that workers have to know; a broker that asks nobody is not for a cluster")
	}
	secrets := secret.Dir(c.secrets)
	server, err := nats.StartEmbedded(ctx, nats.EmbeddedConfig{
		Dir: c.data, MaxStore: c.maxStore, Listen: c.listen, Logger: log,
		Authenticate: func(username, password string) bool { return knows(secrets, c.secret, username, password, log) },
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) }
	mux.HandleFunc("GET /healthz", ok)
	mux.HandleFunc("GET /readyz", ok)
	mux.Handle("GET /metrics", promhttp.Handler())
	health := &http.Server{Addr: c.health, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() {
		if err := health.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
	defer health.Close()
	log.Info("started", "address", server.Addr())
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	closing, cancel := context.WithTimeout(context.Background(), brokerShutdown)
	defer cancel()
	return errors.Join(err, server.Shutdown(closing))
}

// knows reports whether somebody may connect. The files are read at each connection, so that a changed password needs no restart.
func knows(secrets secret.Store, name, username, password string, log *slog.Logger) bool {
	user, err := secret.Text(secrets, "", name, "username")
	if err != nil {
		log.Error("nobody can connect", "error", err)
		return false
	}
	for _, key := range []string{"password", plan.PreviousPasswordKey} {
		want, err := secret.Text(secrets, "", name, key)
		if err == nil && same(username, user) && same(password, want) {
			return true
		}
	}
	return false
}

// same takes the same time whatever differs.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
