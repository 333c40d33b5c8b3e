package compile

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// broker is a declared Broker and what it can do.
type broker struct {
	*subject
	api      *v1alpha1.Broker
	protocol Protocol // Name is "" where the type is not known
	features v1alpha1.BrokerFeatures
	// waiting: nobody knows yet what the broker can do.
	waiting bool
	// addresses of the server, and the identity by which two Brokers are told to be one.
	addresses []string
	identity  string
	tls       *v1alpha1.TLS
}

func (c *compiler) broker(it *item[v1alpha1.Broker]) *broker {
	spec := &it.api.Spec
	b := &broker{subject: it.subject, api: it.api}
	var ok bool
	if b.protocol, ok = protocolOf(spec.Type); !ok {
		b.refuse("spec.type", v1alpha1.ReasonInvalid, "%s", choiceFault(string(spec.Type), "Embedded", "NATS", "Kafka", "Redpanda", "RabbitMQ", "SQS"))
	}
	b.connect()
	if b.identity == "" {
		b.identity = "broker " + key(b.resource).String()
	}
	if !ok {
		return b
	}
	// Every broker takes these in names.
	if p := spec.Prefix; p != "" && (!isAlphanumeric(p[0]) || strings.ContainsFunc(p, func(r rune) bool { return r > 127 || !isNATSName(byte(r)) })) {
		b.refuse("spec.prefix", v1alpha1.ReasonInvalid, "must be letters, digits, '-' and '_', and begin with a letter or a digit, such as staging")
	}
	c.brokerSecrets(b)
	if e := spec.Embedded; e != nil {
		c.workload(b.subject, "spec.embedded.workload", e.Workload)
	}
	c.probed(b)
	return b
}

// connect reads the member that belongs to the type.
func (b *broker) connect() {
	spec := &b.api.Spec
	member := func(name string, present bool) bool {
		if !present {
			types := "type " + string(spec.Type)
			if name == "kafka" {
				types = "types Kafka and Redpanda"
			}
			b.refuse("spec."+name, v1alpha1.ReasonInvalid, "%s is required with %s and refused with any other", name, types)
		}
		return present
	}
	var field string
	var addresses []v1alpha1.BrokerAddress
	schemes := []string{}
	switch spec.Type {
	case v1alpha1.BrokerEmbedded:
		if e := spec.Embedded; e != nil && e.Storage != nil && e.Storage.Sign() <= 0 {
			b.refuse("spec.embedded.storage", v1alpha1.ReasonInvalid, "storage must be more than nothing, such as 1Gi")
		}
		return
	case v1alpha1.BrokerNATS:
		if member("nats", spec.NATS != nil) {
			field, addresses, b.tls = "spec.nats.servers", spec.NATS.Servers, spec.NATS.TLS
			schemes = []string{"nats", "tls", "ws", "wss"}
		}
	case v1alpha1.BrokerKafka, v1alpha1.BrokerRedpanda:
		if member("kafka", spec.Kafka != nil) {
			field, addresses, b.tls = "spec.kafka.bootstrapServers", spec.Kafka.BootstrapServers, spec.Kafka.TLS
			if spec.Kafka.SASL != nil && spec.SecretRef == nil {
				b.refuse("spec.kafka.sasl", v1alpha1.ReasonInvalid, "sasl needs a user name and a password: name their Secret in spec.secretRef")
			}
		}
	case v1alpha1.BrokerRabbitMQ:
		if member("rabbitmq", spec.RabbitMQ != nil) {
			field, addresses, b.tls = "spec.rabbitmq.addresses", spec.RabbitMQ.Addresses, spec.RabbitMQ.TLS
			schemes = []string{"amqp", "amqps"}
		}
	case v1alpha1.BrokerSQS:
		if member("sqs", spec.SQS != nil) {
			if u := spec.SQS.Endpoint; u != "" {
				b.refuseValue("spec.sqs.endpoint", urlFault(u, "http://elasticmq:9324"))
			}
			b.identity = "SQS " + spec.SQS.Region + " " + spec.SQS.Endpoint
		}
		return
	default:
		return
	}
	for i, a := range addresses {
		b.refuseValue(index(field, i), addressFault(string(a), schemes))
		b.addresses = append(b.addresses, string(a))
	}
	if len(addresses) == 0 && field != "" {
		b.refuse(field, v1alpha1.ReasonInvalid, "must not be empty: write at least one item")
	}
	ids := make([]string, len(b.addresses))
	for i, a := range b.addresses {
		_, rest, found := strings.Cut(a, "://")
		if !found {
			rest = a
		}
		if _, _, err := net.SplitHostPort(rest); err != nil {
			rest = net.JoinHostPort(strings.Trim(rest, "[]"), strconv.Itoa(defaultPorts[b.protocol.Name]))
		}
		ids[i] = strings.ToLower(rest)
	}
	slices.Sort(ids)
	b.identity = b.protocol.Name + " " + strings.Join(slices.Compact(ids), ",")
	if spec.RabbitMQ != nil {
		b.identity += " " + spec.RabbitMQ.VHost
	}
	if spec.NATS != nil {
		b.identity += " " + spec.NATS.JetStreamDomain
	}
}

var defaultPorts = map[string]int{"NATS": 4222, "Kafka": 9092, "RabbitMQ": 5672}

// probed finds out what the broker can do.
func (c *compiler) probed(b *broker) {
	b.features = b.protocol.Floor
	found, ok := c.in.Features[key(b.resource)]
	if !ok && b.api.Status.Features != nil {
		found, ok = *b.api.Status.Features, true
	}
	// A NATS server of Waybill's own is what the build says that it is.
	if b.protocol.Name == "Embedded" {
		return
	}
	if !ok {
		b.waiting = c.in.Unprobed == WaitForBroker
		return
	}
	b.features = found
	if b.features.MaxMessageBytes <= 0 {
		b.features.MaxMessageBytes = b.protocol.Floor.MaxMessageBytes
	}
	want := string(b.api.Spec.Type)
	if found.Product != "" && !strings.EqualFold(found.Product, want) {
		b.refuse("spec.type", v1alpha1.ReasonWrongBroker, "the server that answers is %s, and the Broker says %s: correct type, or the address", found.Product, want)
	}
}

// has tells whether the broker has what an ability needs.
func (b *broker) has(a Ability) bool {
	if !a.Can {
		return false
	}
	switch a.Needs {
	case "":
		return true
	case FeatureSNS:
		return b.api.Spec.SQS != nil && b.api.Spec.SQS.SNS == v1alpha1.FeatureEnabled
	}
	return slices.Contains(b.features.Flags, a.Needs)
}

// maxMessageBytes is the largest message that a Topic or Mailbox can be let take.
func (b *broker) maxMessageBytes() int64 {
	p := b.protocol
	return min(b.features.MaxMessageBytes, 1<<40)*p.EncodingDenominator/p.EncodingNumerator - headerRoom
}

// brokerSecrets checks that the Secrets have what the connection reads.
func (c *compiler) brokerSecrets(b *broker) {
	spec := &b.api.Spec
	for _, s := range []struct {
		field string
		ref   *v1alpha1.SecretReference
	}{{"spec.secretRef", spec.SecretRef}, {"spec.adminSecretRef", spec.AdminSecretRef}} {
		if s.ref == nil {
			continue
		}
		keys, known := c.secret(b.subject, s.field, s.ref.Name)
		if !known {
			continue
		}
		has := func(want ...string) bool {
			return !slices.ContainsFunc(want, func(k string) bool { return !slices.Contains(keys, k) })
		}
		user := has(v1alpha1.SecretKeyUsername, v1alpha1.SecretKeyPassword)
		read := []string{v1alpha1.SecretKeyUsername, v1alpha1.SecretKeyPassword}
		switch b.protocol.Name {
		case "NATS":
			// An empty file is as none, and enough where there is something else.
			if read = append(read, v1alpha1.SecretKeyToken); !user && !has(v1alpha1.SecretKeyToken) {
				read = append(read, v1alpha1.SecretKeyCredentials)
			}
			if !user && !has(v1alpha1.SecretKeyToken) && !has(v1alpha1.SecretKeyCredentials) {
				b.refuse(s.field, v1alpha1.ReasonSecretKeyNotFound, "Secret %s/%s has none of what NATS takes: the keys username and password, or token, or %s",
					b.resource.Namespace, s.ref.Name, v1alpha1.SecretKeyCredentials)
			}
		case "SQS":
			read = []string{v1alpha1.SecretKeyAccessKeyID, v1alpha1.SecretKeySecretAccess}
			if !has(v1alpha1.SecretKeyAccessKeyID, v1alpha1.SecretKeySecretAccess) {
				b.refuse(s.field, v1alpha1.ReasonSecretKeyNotFound, "Secret %s/%s needs the keys %s and %s: add them",
					b.resource.Namespace, s.ref.Name, v1alpha1.SecretKeyAccessKeyID, v1alpha1.SecretKeySecretAccess)
			}
		case "Kafka", "RabbitMQ":
			if !user {
				b.refuse(s.field, v1alpha1.ReasonSecretKeyNotFound, "Secret %s/%s needs the keys username and password: add them", b.resource.Namespace, s.ref.Name)
			}
		}
		c.usable(b.subject, s.field, s.ref.Name, read, secret.Empty)
	}
	if b.tls == nil {
		return
	}
	field := "spec.nats.tls"
	switch b.protocol.Name {
	case "Kafka":
		field = "spec.kafka.tls"
	case "RabbitMQ":
		field = "spec.rabbitmq.tls"
	}
	if ca := b.tls.CASecretRef; ca != nil {
		c.secretKey(b.subject, field+".caSecretRef", *ca, v1alpha1.SecretKeyCA, secret.Empty)
	}
	if cert := b.tls.ClientSecretRef; cert != nil {
		c.secretKeys(b.subject, field+".clientSecretRef", cert.Name, []string{v1alpha1.SecretKeyTLSCert, v1alpha1.SecretKeyTLSPrivateKey}, secret.Empty)
	}
}

// connection is what a plan of a namespace says of the broker, and the Secrets that have to be mirrored there for it.
func (b *broker) connection(namespace string) (plan.Broker, []Mirror) {
	var mirrors []Mirror
	local := func(secret string, keys ...string) string {
		if namespace == b.resource.Namespace {
			return secret
		}
		m := Mirror{
			Broker: b.resource,
			From:   types.NamespacedName{Namespace: b.resource.Namespace, Name: secret},
			To:     types.NamespacedName{Namespace: namespace, Name: mirrorName(b.resource.Namespace, secret)},
			Keys:   keys,
		}
		mirrors = append(mirrors, m)
		return m.To.Name
	}
	spec := &b.api.Spec
	out := plan.Broker{Name: key(b.resource).String(), Protocol: b.protocol.Name, Addresses: b.addresses}
	if b.protocol.Name == "Embedded" {
		// In a cluster it is a server of its own, with credentials of its own; a laptop runs it in its own process and uses neither.
		out.Addresses, out.Secret = []string{b.resource.EmbeddedAddress()}, local(or(secretName(spec.SecretRef), b.resource.Child()), plan.CredentialKeys(b.protocol.Name)...)
	} else if spec.SecretRef != nil {
		out.Secret = local(spec.SecretRef.Name, plan.CredentialKeys(b.protocol.Name)...)
	}
	if spec.NATS != nil {
		out.JetStreamDomain = spec.NATS.JetStreamDomain
	}
	if t := b.tls; t != nil {
		out.TLS = &plan.TLS{ServerName: t.ServerName}
		if ca := t.CASecretRef; ca != nil {
			key := or(ca.Key, v1alpha1.SecretKeyCA)
			out.TLS.CA = &plan.SecretRef{Name: local(ca.Name, key), Key: key}
		}
		if cert := t.ClientSecretRef; cert != nil {
			name := local(cert.Name, v1alpha1.SecretKeyTLSCert, v1alpha1.SecretKeyTLSPrivateKey)
			out.TLS.ClientCert = &plan.SecretRef{Name: name, Key: v1alpha1.SecretKeyTLSCert}
			out.TLS.ClientKey = &plan.SecretRef{Name: name, Key: v1alpha1.SecretKeyTLSPrivateKey}
		}
	}
	return out, mirrors
}

// administered is how the Broker s is administered; nil for other kinds.
func (c *compiler) administered(s *subject) *plan.Broker {
	if s.resource.Kind != "Broker" {
		return nil
	}
	b := c.brokers[key(s.resource)]
	out, _ := b.connection(b.resource.Namespace)
	if b.api.Spec.AdminSecretRef != nil {
		out.Secret = b.api.Spec.AdminSecretRef.Name
	}
	return &out
}

func secretName(r *v1alpha1.SecretReference) string {
	if r == nil {
		return ""
	}
	return r.Name
}

// ref names an object on the broker.
func (b *broker) ref(kind, name string) plan.Ref {
	return plan.Ref{Broker: key(b.resource).String(), Kind: kind, Name: name}
}

// addressFault says what is wrong with a broker's address; "" when nothing is. It never repeats what may be a password.
func addressFault(a string, schemes []string) string {
	const example = "must be HOST:PORT, such as kafka-0.kafka:9092"
	if strings.Contains(a, "@") {
		return "must not hold credentials: put them into a Secret and name it in secretRef"
	}
	scheme, rest, found := strings.Cut(a, "://")
	if !found {
		rest = a
	} else if !slices.Contains(schemes, scheme) {
		if len(schemes) == 0 {
			return strconv.Quote(a) + " " + example + ", without a scheme"
		}
		return strconv.Quote(a) + " begins with " + scheme + "://: use HOST:PORT, or " + strings.Join(schemes, ":// or ") + "://"
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		// Without a port the protocol's own is used; the rest must be a host then.
		if strings.ContainsAny(rest, ":/ ") || rest == "" {
			return strconv.Quote(a) + " " + example
		}
		return ""
	}
	if n, err := strconv.Atoi(port); host == "" || err != nil || n < 1 || n > 65535 {
		return strconv.Quote(a) + " " + example
	}
	return ""
}

// urlFault says what is wrong with an HTTP address; "" when nothing is. It never repeats what may be a password.
func urlFault(raw, example string) string {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return "is not an address that can be parsed: it must be an http or https address, such as " + example
	case u.User != nil:
		return "must not hold credentials: remove them (a Poller and an http step have auth, which names a Secret)"
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return "must be an http or https address, such as " + example
	case u.Fragment != "":
		return strconv.Quote(raw) + " ends with a fragment (#...), which no server sees: remove it"
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return strconv.Quote(raw) + " has a port that does not exist: use 1 to 65535"
		}
	}
	return ""
}

func index(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }
