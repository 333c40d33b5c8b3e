package configmap

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	callTimeout = 10 * time.Second
	// maxObject is above what the API server lets a ConfigMap be, metadata and managed fields included.
	maxObject = 4 << 20
)

// API is an API server of Kubernetes and who we are there.
type API struct {
	base   string
	client *http.Client
	token  func() ([]byte, error)
}

// NewAPI uses the API server at base. token is asked for each request, for a mounted one is exchanged every hour.
func NewAPI(base string, client *http.Client, token func() ([]byte, error)) *API {
	return &API{base: strings.TrimSuffix(base, "/"), client: client, token: token}
}

// InCluster finds the API server as every Pod does: its address in the environment, token and certificate authority in dir.
func InCluster(dir string) (*API, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("this is no Pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("the API server's certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("the API server's certificate authority: no certificate in %s", filepath.Join(dir, "ca.crt"))
	}
	client := &http.Client{Timeout: callTimeout, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true, IdleConnTimeout: 90 * time.Second,
	}}
	return NewAPI("https://"+net.JoinHostPort(host, port), client, func() ([]byte, error) {
		return os.ReadFile(filepath.Join(dir, "token"))
	}), nil
}

// statusError is an answer that is not 200.
type statusError struct {
	code    int
	message string // of the API server
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the API server answers %d: %s", e.code, e.message)
}

// object is a ConfigMap of which we change the data and hand everything else back as it came.
type object map[string]json.RawMessage

func (a *API) get(ctx context.Context, namespace, name string) (object, error) {
	return a.call(ctx, http.MethodGet, namespace, name, nil)
}

// put replaces the object if it still is the one that was got: it bears that one's resourceVersion.
func (a *API) put(ctx context.Context, namespace, name string, o object) (object, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	return a.call(ctx, http.MethodPut, namespace, name, body)
}

func (a *API) call(ctx context.Context, method, namespace, name string, body []byte) (object, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, a.base+"/api/v1/namespaces/"+namespace+"/configmaps/"+name, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	token, err := a.token()
	if err != nil {
		return nil, fmt.Errorf("the token for the API server: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+string(bytes.TrimSpace(token)))
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "waybill-worker")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxObject))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		var status struct{ Message string }
		_ = json.Unmarshal(answer, &status) // a proxy's answer may be anything
		return nil, &statusError{resp.StatusCode, status.Message}
	}
	var o object
	if err := json.Unmarshal(answer, &o); err != nil {
		return nil, fmt.Errorf("the API server's answer: %w", err)
	}
	return o, nil
}
