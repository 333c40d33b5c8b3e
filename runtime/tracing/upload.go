package tracing

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// An uploader sends spans by OTLP over HTTP, as protobuf. It is our own because OpenTelemetry's brings gRPC, which makes a worker a quarter
// larger; what is sent is the same.
type uploader struct {
	client  *http.Client
	url     string
	header  http.Header
	timeout time.Duration
	gzip    bool
	log     *slog.Logger
	failing atomic.Bool // it was said in the log
}

const (
	firstPause = 500 * time.Millisecond
	lastPause  = 5 * time.Second
)

// newUploader reads the variables of the OTLP exporter, of which those for traces go before the general ones. It is nil without an endpoint.
func newUploader(env func(string) string, log *slog.Logger) (*uploader, error) {
	of := func(name string) (value, variable string) {
		variable = "OTEL_EXPORTER_OTLP_TRACES_" + name
		if value = env(variable); value == "" {
			variable = "OTEL_EXPORTER_OTLP_" + name
			value = env(variable)
		}
		return strings.TrimSpace(value), variable
	}
	raw, variable := of("ENDPOINT")
	if raw == "" || env("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil
	}
	if e := env("OTEL_TRACES_EXPORTER"); e != "" && e != "otlp" {
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER: %q is not known; it is otlp or none", e)
	}
	if p, variable := of("PROTOCOL"); p != "" && p != "http/protobuf" {
		return nil, fmt.Errorf("%s: %q is not spoken; use http/protobuf, which a collector takes on port 4318", variable, p)
	}
	endpoint, err := url.Parse(raw)
	if err != nil || endpoint.Scheme != "http" && endpoint.Scheme != "https" || endpoint.Host == "" {
		return nil, fmt.Errorf("%s: must be a URL such as http://collector:4318", variable)
	}
	if variable == "OTEL_EXPORTER_OTLP_ENDPOINT" {
		endpoint = endpoint.JoinPath("v1/traces")
	}
	u := &uploader{url: endpoint.String(), header: http.Header{"Content-Type": {"application/x-protobuf"}, "User-Agent": {"waybill"}}, timeout: 10 * time.Second, log: log}
	if v, variable := of("HEADERS"); v != "" {
		for pair := range strings.SplitSeq(v, ",") {
			name, value, ok := strings.Cut(pair, "=")
			if value, err = url.PathUnescape(strings.TrimSpace(value)); !ok || err != nil {
				return nil, fmt.Errorf("%s: must be NAME=VALUE,… with the values percent-encoded", variable) // they may be secrets
			}
			u.header.Set(strings.TrimSpace(name), value)
		}
	}
	if v, variable := of("TIMEOUT"); v != "" {
		ms, err := strconv.Atoi(v)
		if err != nil || ms <= 0 {
			return nil, fmt.Errorf("%s: %q must be a number of milliseconds", variable, v)
		}
		u.timeout = time.Duration(ms) * time.Millisecond
	}
	switch v, variable := of("COMPRESSION"); v {
	case "", "none":
	case "gzip":
		u.gzip = true
		u.header.Set("Content-Encoding", "gzip")
	default:
		return nil, fmt.Errorf("%s: %q is not known; it is gzip or none", variable, v)
	}
	t, err := tlsOf(of)
	if err != nil {
		return nil, err
	}
	u.client = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: t, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute}}
	return u, nil
}

// tlsOf reads the files that the variables name.
func tlsOf(of func(string) (value, variable string)) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if file, variable := of("CERTIFICATE"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", variable, err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s has no PEM certificate", variable, file)
		}
	}
	cert, variable := of("CLIENT_CERTIFICATE")
	key, _ := of("CLIENT_KEY")
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s and …_CLIENT_KEY: %w", variable, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

func (u *uploader) Start(context.Context) error { return nil }

func (u *uploader) Stop(context.Context) error {
	u.client.CloseIdleConnections()
	return nil
}

// UploadTraces sends spans, or says once in the log why they are dropped: a collector that is away is no reason for more.
func (u *uploader) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	if len(spans) == 0 {
		return nil
	}
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans}) // on the wire the same as an ExportTraceServiceRequest
	if err == nil && u.gzip {
		body, err = compressed(body)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	switch err = u.send(ctx, body); {
	case err == nil && u.failing.CompareAndSwap(true, false):
		u.log.Info("traces are sent again")
	case err != nil && u.failing.CompareAndSwap(false, true):
		u.log.Warn("traces cannot be sent and are dropped until they can", "error", err)
	}
	return nil
}

// send tries as long as ctx lets it and the collector says that it may pass.
func (u *uploader) send(ctx context.Context, body []byte) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		again, err := u.post(ctx, body)
		if err == nil || !again {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

func (u *uploader) post(ctx context.Context, body []byte) (again bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	r.Header = u.header.Clone()
	answer, err := u.client.Do(r)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // the address may hold a password
		}
		return true, fmt.Errorf("%s: %w", r.URL.Host, err)
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 64<<10)
	switch answer.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
	}
	if answer.StatusCode/100 != 2 {
		return again, fmt.Errorf("%s answers %s", r.URL.Host, answer.Status)
	}
	return false, nil
}

func compressed(b []byte) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
