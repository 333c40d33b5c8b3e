package nats_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/message"
)

// certificate writes a certificate for 127.0.0.1 and gives its files and a pool that trusts it.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	pool = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "EC PRIVATE KEY", kder), pool
}

// roundTrip publishes and receives one message.
func roundTrip(t *testing.T, cfg driver.Config) {
	t.Helper()
	c, err := nats.Open(within(t), cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer c.Close(within(t))
	q := driver.Ref{Kind: driver.Queue, Name: "q"}
	if _, err := c.Admin().Ensure(within(t), driver.Object{Ref: q}); err != nil {
		t.Fatal(err)
	}
	p, err := c.Publisher(within(t), driver.PublisherSpec{Object: q})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(within(t))
	if err := p.Publish(within(t), []message.Message{{ID: "1", Source: "s", Type: "t"}})[0]; err != nil {
		t.Fatal(err)
	}
	s, err := c.Source(within(t), driver.SourceSpec{Object: q})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(within(t))
	var into [1]driver.Delivery
	if n, err := s.Receive(within(t), into[:]); n != 1 || err != nil {
		t.Fatalf("Receive: %d, %v", n, err)
	}
	d, err := c.Settler().Restore(q, into[0].Handle)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Settler().Settle(within(t), []driver.Settlement{{D: &d}})[0]; err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, cfg driver.Config, secret string) {
	t.Helper()
	c, err := nats.Open(within(t), cfg)
	if err == nil {
		c.Close(within(t))
		t.Fatal("Open without the right credentials")
	}
	if secret != "" && strings.Contains(err.Error(), secret) {
		t.Errorf("the error tells the secret: %v", err)
	}
}

func TestPasswordTLSAndDomain(t *testing.T) {
	cert, key, pool := certificate(t)
	p := startProcess(t, serverConfig{Username: "u", Password: "s3cret", Cert: cert, Key: key, Domain: "hub"})
	good := driver.Config{Addresses: []string{p.addr}, Username: "u", Password: "s3cret", TLS: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}, JetStreamDomain: "hub"}
	roundTrip(t, good)
	bad := good
	bad.Password = "wr0ng"
	refused(t, bad, "wr0ng")
	bad = good
	bad.TLS = &tls.Config{ServerName: "127.0.0.1"} // does not trust it
	refused(t, bad, "s3cret")
	bad = good
	bad.JetStreamDomain = "elsewhere"
	refused(t, bad, "s3cret")
}

func TestToken(t *testing.T) {
	p := startProcess(t, serverConfig{Token: "t0ken"})
	roundTrip(t, driver.Config{Addresses: []string{p.addr}, Token: "t0ken"})
	refused(t, driver.Config{Addresses: []string{p.addr}, Token: "0ther"}, "0ther")
	refused(t, driver.Config{Addresses: []string{p.addr}}, "")
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	refused(t, driver.Config{Addresses: []string{l.Addr().String()}}, "")
	refused(t, driver.Config{}, "")
}
