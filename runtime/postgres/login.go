package postgres

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// Keys of the DSN's own Secret that are used where they are there.
const (
	keyCA   = "ca.crt"
	keyCert = "tls.crt"
	keyKey  = "tls.key"
)

// A login is what the Secret says of a server and of who we are there.
type login struct {
	name          string // of the Secret's key, for errors
	dsn           string
	ca, cert, key []byte
	sum           [sha256.Size]byte
	where         string
}

// read reads the Secret. It costs no I/O but a stat a key.
func (d *Database) read() (*login, error) {
	ref := d.cfg.DSN
	value := func(key string) ([]byte, error) { return d.cfg.Secrets.Value(d.cfg.Namespace, ref.Name, key) }
	dsn, err := secret.Text(d.cfg.Secrets, d.cfg.Namespace, ref.Name, ref.Key)
	if err != nil {
		return nil, address(err)
	}
	l := &login{name: fmt.Sprintf("secret %s/%s: key %q", d.cfg.Namespace, ref.Name, ref.Key), dsn: dsn}
	h := sha256.New()
	h.Write([]byte(dsn))
	for key, into := range map[string]*[]byte{keyCA: &l.ca, keyCert: &l.cert, keyKey: &l.key} {
		if *into, err = value(key); err != nil && !errors.Is(err, secret.ErrNoKey) {
			return nil, address(err)
		}
	}
	for _, v := range [][]byte{l.ca, l.cert, l.key} {
		one := sha256.Sum256(v)
		h.Write(one[:])
	}
	l.sum = [sha256.Size]byte(h.Sum(nil))
	return l, nil
}

// address is a fault of what was declared: it counts against no message.
func address(err error) error { return &flow.Fault{Blame: flow.Address, Err: err} }

var sslMode = regexp.MustCompile(`(?:^|[\s?&])sslmode\s*=\s*'?([a-z-]+)`)

// config reads the DSN. A CA in the Secret means that the server is verified by it, its name included, unless sslmode says disable or
// verify-ca.
func (l *login) config() (*pgconn.Config, error) {
	dsn, mode := l.dsn, ""
	if m := sslMode.FindStringSubmatch(dsn); m != nil {
		mode = m[1]
	}
	if len(l.ca) > 0 && mode != "disable" && mode != "verify-ca" {
		dsn = withMode(dsn, "verify-full")
	}
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		// The parser's own words repeat the string.
		return nil, address(fmt.Errorf("%s is no connection string that can be used; write postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=verify-full, with special characters of the password percent-encoded", l.name))
	}
	l.where = "PostgreSQL at " + net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))) + "/" + cfg.Database
	for name, value := range map[string]string{"application_name": "waybill", "client_encoding": "UTF8", "timezone": "UTC", "datestyle": "ISO"} {
		if _, given := cfg.RuntimeParams[name]; !given {
			cfg.RuntimeParams[name] = value
		}
	}
	all := []*tls.Config{cfg.TLSConfig}
	for _, f := range cfg.Fallbacks {
		all = append(all, f.TLSConfig)
	}
	for _, t := range all {
		if t == nil {
			continue
		}
		if err := l.secure(t, mode == "verify-ca"); err != nil {
			return nil, address(fmt.Errorf("%s: %w", l.name, err))
		}
	}
	return cfg, nil
}

// secure puts the Secret's certificates into a TLS configuration.
func (l *login) secure(t *tls.Config, anyName bool) error {
	if len(l.ca) > 0 {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(l.ca) {
			return fmt.Errorf("the key %q beside it holds no certificate in PEM form", keyCA)
		}
		t.RootCAs = roots
		if anyName {
			t.VerifyPeerCertificate = nil
			t.VerifyConnection = func(s tls.ConnectionState) error {
				between := x509.NewCertPool()
				for _, c := range s.PeerCertificates[1:] {
					between.AddCert(c)
				}
				_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
				return err
			}
		}
	}
	if len(l.cert) > 0 || len(l.key) > 0 {
		pair, err := tls.X509KeyPair(l.cert, l.key)
		if err != nil {
			return fmt.Errorf("the keys %q and %q beside it are no certificate and its key in PEM form", keyCert, keyKey)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// withMode gives a connection string, which is a URL or a list of words, another sslmode.
func withMode(dsn, mode string) string {
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		u, err := url.Parse(dsn)
		if err != nil {
			return dsn // ParseConfig refuses it, in words
		}
		q := u.Query()
		q.Set("sslmode", mode)
		u.RawQuery = q.Encode()
		return u.String()
	}
	return dsn + " sslmode=" + mode // the last one counts
}
