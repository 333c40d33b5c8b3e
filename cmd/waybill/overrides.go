package main

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/waybill-dev/waybill/runtime/plan"
)

// A brokerURL is the value of --broker NAME=URL: a connection that replaces the declared one.
type brokerURL struct {
	name               string
	protocol           string
	addresses          []string
	username, password string
	tls                bool
}

const brokerForms = "embedded:, nats://, tls://, kafka://, amqp://, amqps:// or sqs://"

func parseBroker(flag string) (brokerURL, error) {
	name, raw, ok := strings.Cut(flag, "=")
	if !ok || name == "" || raw == "" {
		return brokerURL{}, fmt.Errorf("--broker %s: want NAME=URL, for example main=nats://127.0.0.1:4222", redacted(flag))
	}
	b := brokerURL{name: name}
	fault := func(format string, args ...any) error {
		return fmt.Errorf("--broker %s: %s", name, fmt.Sprintf(format, args...))
	}
	scheme, rest, ok := strings.Cut(raw, ":")
	scheme = strings.ToLower(scheme)
	switch {
	case scheme == "embedded":
		if strings.Trim(rest, "/") != "" {
			return b, fault("embedded: takes no address, for the server is in this process")
		}
		b.protocol = "Embedded"
		return b, nil
	case !ok:
		return b, fault("%q has no scheme; want %s", raw, brokerForms)
	}
	switch scheme {
	case "nats", "tls":
		b.protocol, b.tls = "NATS", scheme == "tls"
	case "kafka":
		b.protocol = "Kafka"
	case "amqp", "amqps":
		b.protocol, b.tls = "RabbitMQ", scheme == "amqps"
	case "sqs":
		b.protocol = "SQS"
	default:
		return b, fault("there is no broker scheme %q; want %s", shownScheme(scheme), brokerForms)
	}
	authority, behind, hasPath := strings.Cut(strings.TrimPrefix(rest, "//"), "/")
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		// Only the login may hold characters that need escaping; url knows how.
		login, err := url.Parse("x://" + authority[:at] + "@host")
		if err != nil {
			return b, fault("the user name or the password holds a character that an address cannot: write it as %%XX, or name a Secret in the Broker")
		}
		b.username = login.User.Username()
		b.password, _ = login.User.Password()
		authority = authority[at+1:]
	}
	switch {
	case !strings.HasPrefix(rest, "//") || authority == "":
		return b, fault("want %s://HOST:PORT", scheme)
	case hasPath && behind != "", strings.ContainsAny(authority, "?#"):
		return b, fault("want nothing behind the address, and this has a path or a query: the rest is declared in the Broker")
	}
	for host := range strings.SplitSeq(authority, ",") {
		if !isHost(host) {
			return b, fault("the address is not HOST:PORT, or a list of them with commas between")
		}
		if b.protocol == "NATS" {
			host = scheme + "://" + host
		}
		b.addresses = append(b.addresses, host)
	}
	return b, nil
}

// isHost reports whether s is HOST or HOST:PORT.
func isHost(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, "1"
		if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
			return net.ParseIP(s[1:len(s)-1]) != nil
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && host != "" && (!strings.ContainsAny(host, ":/ []") || net.ParseIP(host) != nil)
}

// shownScheme keeps a password that stands where a scheme should be out of an error.
func shownScheme(s string) string {
	if strings.ContainsAny(s, "@/") || len(s) > 12 {
		return "…"
	}
	return s
}

// redacted cuts what could hold a password out of a value for an error message: whatever stands before an @, and of an address without one
// what stands where the port should.
func redacted(raw string) string {
	start := strings.Index(raw, "://")
	if at := strings.LastIndexByte(raw, '@'); at >= 0 {
		if start < 0 || start > at {
			return "…" + raw[at:]
		}
		return raw[:start+3] + "…" + raw[at:]
	}
	if start < 0 {
		return raw
	}
	if colon := strings.IndexByte(raw[start+3:], ':'); colon >= 0 {
		if port, _, _ := strings.Cut(raw[start+3+colon+1:], "/"); !isHost("h:" + port) {
			return raw[:start+3+colon+1] + "…"
		}
	}
	return raw
}

// services maps Services to URLs on this machine: --service NAME[.NS][:PORT]=URL.
type services map[string]string

func parseServices(flags []string) (services, error) {
	s := services{}
	for _, f := range flags {
		name, raw, ok := strings.Cut(f, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--service %s: want NAME[.NAMESPACE][:PORT]=URL, for example billing:80=http://127.0.0.1:9000", redacted(f))
		}
		base, err := httpBase(raw)
		if err != nil {
			return nil, fmt.Errorf("--service %s: %w", name, err)
		}
		host, port, hasPort := strings.Cut(name, ":")
		if n, err := strconv.ParseUint(port, 10, 16); hasPort && (err != nil || n == 0) {
			return nil, fmt.Errorf("--service %s: %q is no port: want 1 to 65535", name, port)
		}
		svc, ns, hasNS := strings.Cut(host, ".")
		if !hasNS {
			ns = "default"
		}
		// The long names of a cluster's DNS are what people copy.
		ns = strings.TrimSuffix(strings.TrimSuffix(ns, ".svc.cluster.local"), ".svc")
		if svc == "" || ns == "" || strings.ContainsAny(svc+ns, "./ ") {
			return nil, fmt.Errorf("--service %s: want NAME[.NAMESPACE][:PORT] before the =, for example billing.shop:80", name)
		}
		key := serviceKey(svc, ns, port)
		if _, twice := s[key]; twice {
			return nil, fmt.Errorf("--service %s is given twice: keep one", name)
		}
		s[key] = base
	}
	return s, nil
}

// httpBase reads the address of something on this machine; paths are put behind it. An error never repeats what may be a password.
func httpBase(raw string) (string, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "", fmt.Errorf("%q is no address: want one such as http://127.0.0.1:9000", redacted(raw))
	case u.User != nil:
		return "", fmt.Errorf("%q: an address must not hold credentials: name a Secret in the resource's auth instead", redacted(raw))
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%q: the resource's own path is put behind the address, so it cannot end with ? or #", raw)
	}
	return strings.TrimSuffix(raw, "/"), nil
}

func serviceKey(name, namespace, port string) string { return namespace + "/" + name + ":" + port }

// lookup returns the URL that stands for svc, with its path; the mapping that names the port wins.
func (s services) lookup(svc plan.Service) (string, bool) {
	for _, port := range []string{strconv.Itoa(svc.Port), ""} {
		if base, ok := s[serviceKey(svc.Name, svc.Namespace, port)]; ok {
			return base + svc.Path, true
		}
	}
	return "", false
}
