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
		user, err := secret.Text(c.secrets, namespace, a.Basic.Username.Name, a.Basic.Username.Key)
		if err != nil {
			return err
		}
		password, err := secret.Text(c.secrets, namespace, a.Basic.Password.Name, a.Basic.Password.Key)
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

func headerText(s secret.Store, namespace string, ref plan.SecretRef) (string, error) {
	v, err := secret.Text(s, namespace, ref.Name, ref.Key)
	if err != nil {
		return "", err
	}
	if f := secret.FlawOf([]byte(v)); f != 0 {
		return "", fmt.Errorf("secret %s/%s: the value of key %q %s", namespace, ref.Name, ref.Key, f)
	}
	return v, nil
}
