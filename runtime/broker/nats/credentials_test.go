package nats_test

import (
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

type identity struct {
	pair nkeys.KeyPair
	id   string
}

func newIdentity(t *testing.T, create func() (nkeys.KeyPair, error)) identity {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	id, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return identity{pair, id}
}

func TestCredentialsFile(t *testing.T) {
	operator, account, system := newIdentity(t, nkeys.CreateOperator), newIdentity(t, nkeys.CreateAccount), newIdentity(t, nkeys.CreateAccount)
	oc := jwt.NewOperatorClaims(operator.id)
	oc.SystemAccount = system.id
	resolver := &server.MemAccResolver{}
	for _, a := range []identity{account, system} {
		ac := jwt.NewAccountClaims(a.id)
		if a == account {
			ac.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: -1, MemoryStorage: -1, Streams: -1, Consumer: -1}
		}
		token, err := ac.Encode(operator.pair)
		if err != nil {
			t.Fatal(err)
		}
		if err := resolver.Store(a.id, token); err != nil {
			t.Fatal(err)
		}
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
		TrustedOperators: []*jwt.OperatorClaims{oc}, SystemAccount: system.id, AccountResolver: resolver})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer func() {
		s.Shutdown()
		s.WaitForShutdown()
	}()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	user := newIdentity(t, nkeys.CreateUser)
	token, err := jwt.NewUserClaims(user.id).Encode(account.pair)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	file, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, driver.Config{Addresses: []string{s.ClientURL()}, Credentials: file})
	refused(t, driver.Config{Addresses: []string{s.ClientURL()}}, "")
	refused(t, driver.Config{Addresses: []string{s.ClientURL()}, Credentials: []byte("no credentials file")}, string(seed))
}
