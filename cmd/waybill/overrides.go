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

func parseBroker(flag string) (brokerURL, error) {
	name, raw, ok := strings.Cut(flag, "=")
	if !ok || name == "" || raw == "" {
		return brokerURL{}, fmt.Errorf("--broker %s: want NAME=URL, for example main=nats://127.0.0.1:4222", redacted(flag))
	}
	scheme, rest, ok := strings.Cut(raw, ":")
	if !ok {
		return brokerURL{}, fmt.Errorf("--broker %s: %q has no scheme; want embedded:, nats://, tls://, kafka://, amqp://, amqps:// or sqs://", name, redacted(raw))
	}
	b := brokerURL{name: name}
	if scheme == "embedded" {
		if rest != "" {
			return b, fmt.Errorf("--broker %s: embedded: takes no address", name)
		}
		b.protocol = "Embedded"
		return b, nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		// url.Parse cannot read a list of hosts with ports; the part before the list is enough to say what is wrong.
		if u, err = parseHosts(raw); err != nil {
			return b, fmt.Errorf("--broker %s: %q is no address; want SCHEME://HOST:PORT", name, redacted(raw))
		}
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
		return b, fmt.Errorf("--broker %s: unknown scheme %q; want embedded:, nats://, tls://, kafka://, amqp://, amqps:// or sqs://", name, scheme)
	}
	for host := range strings.SplitSeq(u.Host, ",") {
		if scheme == "nats" || scheme == "tls" {
			host = scheme + "://" + host
		}
		b.addresses = append(b.addresses, host)
	}
	if u.User != nil {
		b.username = u.User.Username()
		b.password, _ = u.User.Password()
	}
	return b, nil
}

// parseHosts reads SCHEME://[USER[:PASSWORD]@]HOST:PORT,HOST:PORT.
func parseHosts(raw string) (*url.URL, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return nil, fmt.Errorf("no ://")
	}
	authority, _, _ := strings.Cut(rest, "/")
	u := &url.URL{Scheme: scheme, Host: authority}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		login, err := url.Parse(scheme + "://" + authority[:at] + "@host")
		if err != nil {
			return nil, fmt.Errorf("user")
		}
		u.User, u.Host = login.User, authority[at+1:]
	}
	for host := range strings.SplitSeq(u.Host, ",") {
		if _, _, err := net.SplitHostPort(host); err != nil {
			return nil, fmt.Errorf("host")
		}
	}
	return u, nil
}

// redacted cuts what could hold a password out of a URL for an error message.
func redacted(raw string) string {
	at := strings.LastIndexByte(raw, '@')
	start := strings.Index(raw, "://")
	if at < 0 {
		return raw
	}
	if start < 0 {
		return "…" + raw[at:]
	}
	return raw[:start+3] + "…" + raw[at:]
}

// services maps Services to URLs on this machine: --service NAME[.NS][:PORT]=URL.
type services map[string]string

func parseServices(flags []string) (services, error) {
	s := services{}
	for _, f := range flags {
		name, raw, ok := strings.Cut(f, "=")
		u, err := url.Parse(raw)
		if !ok || name == "" || err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, fmt.Errorf("--service %s: want NAME[.NAMESPACE][:PORT]=URL, for example billing:80=http://127.0.0.1:9000", f)
		}
		host, port, hasPort := strings.Cut(name, ":")
		if _, err := strconv.ParseUint(port, 10, 16); hasPort && err != nil {
			return nil, fmt.Errorf("--service %s: %q is no port", f, port)
		}
		svc, ns, hasNS := strings.Cut(host, ".")
		if !hasNS {
			ns = "default"
		}
		s[serviceKey(svc, ns, port)] = strings.TrimSuffix(raw, "/")
	}
	return s, nil
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
