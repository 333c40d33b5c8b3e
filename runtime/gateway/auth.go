package gateway

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// authenticated reports whether the caller has shown the token that a asks for; if not, it has answered 401.
func (f *front) authenticated(w http.ResponseWriter, r *http.Request, a *plan.Auth) bool {
	if a == nil {
		return true
	}
	if a.Bearer == nil { // what cannot be checked lets nobody in
		f.log.Error("auth asks for something that a gateway cannot check; nobody is let in")
		f.refuse(w, problem{Status: http.StatusServiceUnavailable, Reason: "SecretUnavailable", Detail: "what callers are checked against is unknown", RetryAfter: 5 * time.Second})
		return false
	}
	want, err := f.deps.Secret(*a.Bearer)
	if flaw := secret.FlawOf(want); err == nil && flaw != 0 {
		err = fmt.Errorf("its value %s", flaw)
	}
	if err != nil {
		f.log.Error("the bearer token cannot be read; nobody is let in", "secret", a.Bearer.Name, "key", a.Bearer.Key, "error", err)
		f.refuse(w, problem{Status: http.StatusServiceUnavailable, Reason: "SecretUnavailable", Detail: "the token that callers are checked against cannot be read", RetryAfter: 5 * time.Second})
		return false
	}
	scheme, token, found := strings.Cut(r.Header.Get("Authorization"), " ")
	given := sha256.Sum256([]byte(strings.TrimSpace(token)))
	expected := sha256.Sum256(bytes.TrimSpace(want)) // digests, so that not even the length can be measured
	if found && strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(given[:], expected[:]) == 1 {
		return true
	}
	challenge := `Bearer realm="waybill"`
	if r.Header.Get("Authorization") != "" {
		challenge += `, error="invalid_token"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	f.refuse(w, problem{Status: http.StatusUnauthorized, Reason: "Unauthorized", Detail: "send Authorization: Bearer with the right token"})
	return false
}
