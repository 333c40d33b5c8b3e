package plan

import "strings"

// Ports of a gateway's Service in a cluster.
const (
	ServicePort = 80   // the gateway itself
	HealthPort  = 8081 // /healthz, /readyz, /metrics, /status
)

// Child is the name of what a resource becomes in a cluster: NAME-KIND, the kind last so that no two resources' children can meet.
func (r Resource) Child() string { return r.Name + "-" + strings.ToLower(r.Kind) }

// Plural is the resource's name in the Kubernetes API and in a laptop's addresses.
func (r Resource) Plural() string {
	if r.Kind == "Mailbox" {
		return "mailboxes"
	}
	return strings.ToLower(r.Kind) + "s"
}

// Served is the path below its gateway's base that the plan's users call: "" for a Topic and a Mailbox, an Endpoint's own path. ok is false
// where nothing is served.
func (p *Plan) Served() (path string, ok bool) {
	if p.Endpoint != nil {
		return p.Endpoint.Path, true
	}
	return "", p.Topic != nil || p.Mailbox != nil
}

// Path is where a laptop serves the resource and what its events bear as their default source: /NAMESPACE/PLURAL/NAME.
func (r Resource) Path() string { return "/" + r.Namespace + "/" + r.Plural() + "/" + r.Name }
