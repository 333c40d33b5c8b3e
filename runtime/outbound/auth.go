package outbound

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"

	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// authorize adds what a names to h. Secrets are read at each call, so that a rotated one is used by the next.
func (c *Client) authorize(h http.Header, namespace string, a *plan.Auth) error {
	if a == nil {
		return nil
	}
	if c.secrets == nil {
		return errors.New("it needs a secret, and there are none here")
	}
	switch {
	case a.Bearer != nil:
		token, err := headerText(c.secrets, namespace, *a.Bearer)
		if err != nil {
			return err
		}
		h.Set("Authorization", "Bearer "+token)
	case a.Basic != nil:
		user, err := headerText(c.secrets, namespace, a.Basic.Username)
		if err != nil {
			return err
		}
		password, err := headerText(c.secrets, namespace, a.Basic.Password)
		if err != nil {
			return err
		}
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	case a.Header != nil:
		value, err := headerText(c.secrets, namespace, a.Header.Value)
		if err != nil {
			return err
		}
		h.Set(a.Header.Name, value)
	}
	return nil
}

// headerText reads a value without the space around it, such as the newline at its end. One with several lines is refused: which of them is
// meant nobody could say.
func headerText(s secret.Store, namespace string, ref plan.SecretRef) (string, error) {
	v, err := s.Value(namespace, ref.Name, ref.Key)
	if err != nil {
		return "", err
	}
	if f := secret.FlawOf(v); f != 0 {
		return "", fmt.Errorf("secret %s/%s: the value of key %q %s", namespace, ref.Name, ref.Key, f)
	}
	return string(secret.Line(v)), nil
}
