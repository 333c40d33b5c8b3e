package compile

import (
	"fmt"
	"strings"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
	"github.com/waybill-dev/waybill/runtime/spelling"
)

// unfitForHeader is what keeps a value out of a header: of several lines nobody could say which one is meant.
var unfitForHeader = []secret.Flaw{secret.Empty, secret.ControlCharacter, secret.SeveralLines}

func (c *compiler) bearer(s *subject, field string, b *v1alpha1.BearerAuth) *plan.Auth {
	if b == nil {
		return nil
	}
	ref := c.secretKey(s, field+".bearer.secretRef", b.SecretRef, v1alpha1.SecretKeyToken, unfitForHeader...)
	return &plan.Auth{Bearer: &ref}
}

func (c *compiler) gatewayAuth(s *subject, field string, a *v1alpha1.GatewayAuth) *plan.Auth {
	if a == nil {
		return nil
	}
	if a.Bearer == nil {
		s.refuse(field+".bearer", v1alpha1.ReasonInvalid, "is required")
		return nil
	}
	return c.bearer(s, field, a.Bearer)
}

// clientAuth is what Waybill shows to a server.
func (c *compiler) clientAuth(s *subject, field string, a *v1alpha1.ClientAuth) *plan.Auth {
	if a == nil {
		return nil
	}
	if !exactlyOne(s, field, []string{"bearer", "basic", "header"}, a.Bearer != nil, a.Basic != nil, a.Header != nil) {
		return nil
	}
	switch {
	case a.Bearer != nil:
		return c.bearer(s, field, a.Bearer)
	case a.Basic != nil:
		name := a.Basic.SecretRef.Name
		keys := []string{v1alpha1.SecretKeyUsername, v1alpha1.SecretKeyPassword}
		c.secretKeys(s, field+".basic.secretRef", name, keys, unfitForHeader...)
		return &plan.Auth{Basic: &plan.BasicAuth{
			Username: plan.SecretRef{Name: name, Key: v1alpha1.SecretKeyUsername},
			Password: plan.SecretRef{Name: name, Key: v1alpha1.SecretKeyPassword},
		}}
	default:
		s.refuseValue(field+".header.name", headerFault(a.Header.Name))
		return &plan.Auth{Header: &plan.HeaderAuth{
			Name:  a.Header.Name,
			Value: c.secretKey(s, field+".header.secretRef", a.Header.SecretRef, v1alpha1.SecretKeyToken, unfitForHeader...),
		}}
	}
}

// headerFault says why a manifest cannot set a header: HTTP writes it, and would leave out what the manifest says or fail at it.
func headerFault(name string) string {
	switch strings.ToLower(name) {
	case "host":
		return "Host is always the server that the address names: remove the header, and name that server in the address"
	case "content-length", "trailer", "transfer-encoding", "upgrade":
		return name + " is set by HTTP itself, and nothing else can be sent as it: remove it, or use another header"
	}
	return ""
}

// headerValueFault says why no header can carry a value.
func headerValueFault(value string) string {
	switch {
	case strings.ContainsAny(value, "\r\n"):
		return "must be one line: remove the line break"
	case strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
		return "holds a control character, which no header can carry: remove it"
	}
	return ""
}

// exactlyOne checks a union, in the words of the definitions' own rule.
func exactlyOne(s *subject, field string, names []string, present ...bool) bool {
	var set []string
	for i, p := range present {
		if p {
			set = append(set, names[i])
		}
	}
	beside := "" // of what else is there
	if names[0] == "filter" {
		beside = " beside name"
	}
	switch {
	case len(set) == 0:
		s.refuse(field, v1alpha1.ReasonInvalid, "exactly one of %s must be set%s; none is", list(names, "and"), beside)
	case len(set) > 1:
		s.refuse(field, v1alpha1.ReasonInvalid, "exactly one of %s must be set%s; here are %s", list(names, "and"), beside, list(set, "and"))
	}
	return len(set) == 1
}

// choiceFault says that a value is none of those that there are, as the definitions' schema does.
func choiceFault(value string, values ...string) string {
	choice := list(values, "or")
	if value == "" {
		return "is required: " + choice
	}
	if near := spelling.Nearest(value, values); near != "" {
		return fmt.Sprintf("%q is not known: did you mean %s? It must be %s", value, near, choice)
	}
	return fmt.Sprintf("%q is not known: it must be %s", value, choice)
}

// list joins two words or more: "a, b and c".
func list(words []string, last string) string {
	n := len(words) - 1
	return strings.Join(words[:n], ", ") + " " + last + " " + words[n]
}
