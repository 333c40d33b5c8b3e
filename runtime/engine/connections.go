package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// connections keeps one broker.Broker for each distinct connection: plans that say the same share a session.
type connections struct {
	drivers  map[string]driver.Open // by protocol
	secrets  secret.Store
	log      *slog.Logger
	rotation rotation

	mu   sync.Mutex
	open map[string]connection
}

type connection struct {
	*broker.Broker
	name string // as plans call it
}

func newConnections(host Host) *connections {
	return &connections{drivers: host.Drivers, secrets: host.Secrets, log: host.Log, open: map[string]connection{}}
}

// get returns the connection that a plan of namespace calls spec, dialling it in the background when it is new.
func (c *connections) get(namespace string, spec plan.Broker) (*broker.Broker, error) {
	open, ok := c.drivers[spec.Protocol]
	if !ok {
		return nil, fmt.Errorf("broker %s: this worker has no driver for %s", spec.Name, spec.Protocol)
	}
	id, err := json.Marshal(struct {
		Namespace string // of the secrets
		Spec      plan.Broker
	}{namespace, spec})
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", spec.Name, err)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if b, ok := c.open[string(id)]; ok {
		return b.Broker, nil
	}
	watched := lookAt(namespace, spec, c.secrets)
	b := broker.Connect(broker.Config{
		Name:    spec.Name,
		Open:    open,
		Resolve: func(context.Context) (driver.Config, error) { return Resolve(c.secrets, namespace, spec) },
		Log:     c.log,
	})
	c.rotation.watch(watched, b)
	c.open[string(id)] = connection{b, spec.Name}
	return b, nil
}

// stored counts the messages that all parts of this engine together have stored on an object.
func (c *connections) stored(r plan.Ref) (total uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.open {
		if b.name == r.Broker {
			total += b.Stored(ref(r))
		}
	}
	return total
}

// Resolve reads the secrets that spec names, which are of namespace. It is asked at each dial, so that a rotated secret is used by the next
// session.
func Resolve(secrets secret.Store, namespace string, spec plan.Broker) (driver.Config, error) {
	cfg := driver.Config{
		ClientName:      "waybill/" + namespace,
		Addresses:       spec.Addresses,
		JetStreamDomain: spec.JetStreamDomain,
	}
	if err := credentials(secrets, namespace, spec, &cfg); err != nil {
		return cfg, fmt.Errorf("broker %s: %w", spec.Name, err)
	}
	if spec.TLS != nil {
		t, err := tlsConfig(secrets, namespace, spec.TLS)
		if err != nil {
			return cfg, fmt.Errorf("broker %s: tls: %w", spec.Name, err)
		}
		cfg.TLS = t
	}
	return cfg, nil
}

// credentials reads what the Secret has of a user name and password and, where the protocol knows such, a token and a NATS credentials file.
func credentials(secrets secret.Store, namespace string, spec plan.Broker, cfg *driver.Config) error {
	if spec.Secret == "" {
		return nil
	}
	into := map[string]*string{"username": &cfg.Username, "password": &cfg.Password, "token": &cfg.Token}
	for _, key := range plan.CredentialKeys(spec.Protocol) {
		var err error
		if text := into[key]; text != nil {
			*text, err = secret.Text(secrets, namespace, spec.Secret, key)
		} else if key == "nats.creds" {
			cfg.Credentials, err = secrets.Value(namespace, spec.Secret, key)
		}
		if err != nil && !errors.Is(err, secret.ErrNoKey) {
			return err
		}
	}
	return nil
}

func tlsConfig(secrets secret.Store, namespace string, spec *plan.TLS) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: spec.ServerName}
	if ca := spec.CA; ca != nil {
		pem, err := secrets.Value(namespace, ca.Name, ca.Key)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("secret %s, key %s: no PEM certificate in it", ca.Name, ca.Key)
		}
	}
	if spec.ClientCert != nil && spec.ClientKey != nil {
		cert, err := secrets.Value(namespace, spec.ClientCert.Name, spec.ClientCert.Key)
		if err != nil {
			return nil, err
		}
		key, err := secrets.Value(namespace, spec.ClientKey.Name, spec.ClientKey.Key)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("secret %s: certificate and key do not go together", spec.ClientCert.Name)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

func (c *connections) close(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, b := range c.open {
		errs = append(errs, b.Close(ctx))
	}
	clear(c.open)
	return errors.Join(errs...)
}
