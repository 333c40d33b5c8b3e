package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/waybill-dev/waybill/runtime/plan"
)

// nameRules say what a broker's objects may be called.
type nameRules struct {
	// separator stands between the parts of a name; no Kubernetes name can hold it, so that no two resources' objects can meet.
	separator string
	maxLength int
	allowed   func(c byte) bool
	alphabet  string // allowed, in words
}

// object is the name of r's own object: NAMESPACE/NAME of a Topic, and with the kind behind it for every other one. suffix tells a second
// object of the same resource apart. The Broker's prefix comes first.
func (n nameRules) object(prefix string, r plan.Resource, suffix ...string) string {
	parts := []string{r.Namespace, r.Name}
	if r.Kind != "Topic" {
		parts = append(parts, strings.ToLower(r.Kind))
	}
	name := prefix + strings.Join(append(parts, suffix...), n.separator)
	if len(name) <= n.maxLength {
		return name
	}
	// Cut, and made unlike any other by a hash of the whole: the hash takes ten digits and the separator before it.
	sum := sha256.Sum256([]byte(name))
	return name[:n.maxLength-10-len(n.separator)] + n.separator + hex.EncodeToString(sum[:])[:10]
}

// refuses returns the first byte of a name that the broker would not take.
func (n nameRules) refuses(name string) (c byte, bad bool) {
	for i := range len(name) {
		if !n.allowed(name[i]) {
			return name[i], true
		}
	}
	return 0, false
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
func isNATSName(c byte) bool   { return isAlphanumeric(c) || c == '-' || c == '_' }
func isKafkaName(c byte) bool  { return isNATSName(c) || c == '.' }
func isRabbitName(c byte) bool { return isKafkaName(c) || c == ':' || c == '/' }

// mirrorName is what a Secret is called where it is copied for workers in another namespace than the Broker's: no Secret that a person
// named so by chance is meant, for namespaces hold no dot.
func mirrorName(namespace, secret string) string {
	name := "waybill." + namespace + "." + secret
	if len(name) <= 253 {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:253-11] + "." + hex.EncodeToString(sum[:])[:10]
}
