package engine

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// A changed Secret that the broker does not take leaves the sessions that there are, and is said; once the broker takes it, it is in use.
func TestAChangedSecretIsUsedOnceTheBrokerTakesIt(t *testing.T) {
	var right atomic.Value
	right.Store("first-word")
	server, err := nats.StartEmbedded(t.Context(), nats.EmbeddedConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0",
		Authenticate: func(_, password string) bool { return password == right.Load() }})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown(t.Context())

	secrets := new(secret.Memory)
	login := func(password string) string {
		data := map[string][]byte{"username": []byte("worker"), "password": []byte(password)}
		secrets.Put("shop", "nats", data)
		return secret.Generation("shop", "nats", data)
	}
	first := login("first-word")
	var logged strings.Builder
	e := New(Host{
		Drivers: map[string]driver.Open{"NATS": nats.Open}, Secrets: secrets, Base: plan.Resource.Path, Administer: true,
		Log: slog.New(slog.NewTextHandler(&logged, nil)),
	})
	object := plan.Object{Ref: plan.Ref{Broker: "shop/main", Kind: "Topic", Name: "shop_orders"}, Owner: "Topic/shop/orders"}
	e.Start(t.Context(), []*plan.Plan{{
		Version: plan.Version, Resource: plan.Resource{Kind: "Topic", Namespace: "shop", Name: "orders"},
		Brokers: []plan.Broker{{Name: "shop/main", Protocol: "NATS", Addresses: []string{server.Addr()}, Secret: "nats"}},
		Objects: []plan.Object{object}, Topic: &plan.Topic{Object: object.Ref, MaxMessageBytes: 1 << 20},
	}})
	defer func() {
		ctx, cancel := halfOf(t.Context())
		defer cancel()
		e.Drain(ctx, func(context.Context) {})
		if strings.Contains(logged.String(), "word") {
			t.Errorf("a password was logged: %s", logged.String())
		}
	}()
	if err := e.Ready(); err != nil {
		t.Fatal(err)
	}

	shows := func(generation string, refused bool) {
		t.Helper()
		c := e.Credentials()
		if len(c) != 1 || c[0].Broker != "shop/main" || c[0].Secret != "nats" || strings.Join(c[0].Keys, " ") != "password username" ||
			c[0].Generation != generation || (c[0].Message != "") != refused || strings.Contains(c[0].Message, "word") {
			t.Errorf("credentials are shown as %+v; want generation %s, refused: %v", c, generation, refused)
		}
		if err := e.Ready(); err != nil {
			t.Error(err)
		}
	}
	shows(first, false)
	e.RefreshSecrets(t.Context())
	shows(first, false)

	second := login("second-word")
	e.RefreshSecrets(t.Context())
	shows(first, true) // the server knows nothing of it yet
	e.RefreshSecrets(t.Context())
	if n := strings.Count(logged.String(), "cannot be used"); n != 1 {
		t.Errorf("it was told %d times: %s", n, logged.String())
	}
	right.Store("second-word")
	e.RefreshSecrets(t.Context())
	shows(second, false)

	secrets.Put("shop", "nats", map[string][]byte{}) // emptied: nobody can log in with that
	e.RefreshSecrets(t.Context())
	shows(second, true)
}

// A Secret may have keys of which a protocol knows nothing. They are neither read nor shown: the operator compares what is shown.
func TestOnlyWhatTheProtocolKnowsIsReadOfASecret(t *testing.T) {
	secrets := new(secret.Memory)
	secrets.Put("shop", "user", map[string][]byte{"username": []byte("u"), "password": []byte("p"), "token": []byte("t"), "nats.creds": []byte("c")})
	for protocol, want := range map[string]string{"Embedded": "password username", "NATS": "nats.creds password token username"} {
		spec := plan.Broker{Name: "shop/main", Protocol: protocol, Secret: "user"}
		shown := lookAt("shop", spec, secrets).shown
		if len(shown) != 1 || strings.Join(shown[0].Keys, " ") != want {
			t.Errorf("%s: %+v", protocol, shown)
		}
		cfg, err := Resolve(secrets, "shop", spec)
		if all := protocol == "NATS"; err != nil || cfg.Username != "u" || cfg.Password != "p" || (cfg.Token == "t") != all || (string(cfg.Credentials) == "c") != all {
			t.Errorf("%s: %+v, %v", protocol, cfg, err)
		}
	}
}
