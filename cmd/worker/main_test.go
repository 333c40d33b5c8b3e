package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
)

// plansFor compiles a Topic and a Subscription and writes their plans as the operator would mount them.
func plansFor(t *testing.T, brokerURL, subscriberURL string) string {
	t.Helper()
	broker, topic, sub := new(v1alpha1.Broker), new(v1alpha1.Topic), new(v1alpha1.Subscription)
	for text, into := range map[string]any{
		"spec: {type: NATS, nats: {servers: ['" + brokerURL + "']}, secretRef: {name: nats-user}}\nmetadata: {name: main, namespace: shop}": broker,
		"spec: {brokerRef: {name: main}, auth: {bearer: {secretRef: {name: token}}}}\nmetadata: {name: orders, namespace: shop}":            topic,
		"spec: {topicRef: {name: orders}, deliverTo: {uri: '" + subscriberURL + "'}}\nmetadata: {name: billing, namespace: shop}":           sub,
	} {
		if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	result := compile.Compile(compile.Input{Brokers: []*v1alpha1.Broker{broker}, Topics: []*v1alpha1.Topic{topic}, Subscriptions: []*v1alpha1.Subscription{sub}})
	if len(result.Diagnostics) > 0 {
		t.Fatal(result.Diagnostics)
	}
	dir := t.TempDir()
	for _, o := range result.Outcomes {
		if o.Plan != nil {
			put(t, filepath.Join(dir, o.Resource.Child()+".json"), string(o.Canonical))
		}
	}
	return dir
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestAWorkerRunsPlansFromAFolderWithMountedSecrets(t *testing.T) {
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, Username: "worker", Password: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer srv.WaitForShutdown()
	defer srv.Shutdown()
	got := make(chan string, 1)
	subscriber := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- r.Header.Get("Traceparent") + " " + string(b)
	}))
	defer subscriber.Close()

	secrets := t.TempDir()
	put(t, filepath.Join(secrets, "nats-user", "username"), "worker\n")
	put(t, filepath.Join(secrets, "nats-user", "password"), "s3cret\n")
	put(t, filepath.Join(secrets, "token", "token"), "t0ken\n")
	c := config{plans: plansFor(t, srv.Addr().String(), subscriber.URL), secrets: secrets, state: t.TempDir(), listen: freeAddress(t), health: freeAddress(t),
		drain: 10 * time.Second, administer: true, privateDial: true}
	var logged strings.Builder
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- work(ctx, c, slog.New(slog.NewJSONHandler(&logged, nil))) }()

	waitFor(t, "http://"+c.health+"/readyz")
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	publish := func(token string) int {
		req, err := http.NewRequest(http.MethodPost, "http://"+c.listen+"/shop/topics/orders", strings.NewReader(`{"n":1}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Traceparent", trace)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if code := publish("wrong"); code != http.StatusUnauthorized {
		t.Errorf("a wrong token: %d", code)
	}
	// The rotated token counts without a restart.
	put(t, filepath.Join(secrets, "token", "token"), "rotated\n")
	if code := publish("rotated"); code != http.StatusAccepted {
		t.Errorf("the rotated token: %d", code)
	}
	if body := <-got; body != trace+` {"n":1}` {
		t.Errorf("the subscriber got %q", body)
	}
	resp, err := http.Get("http://" + c.health + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if want := `waybill_gateway_stored_total{kind="Topic",name="orders",namespace="shop"} 1`; err != nil || !strings.Contains(string(metrics), want) {
		t.Errorf("no %s in /metrics (%v)", want, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, s := range []string{"s3cret", "t0ken", "rotated", `{"n":1}`} {
		if strings.Contains(logged.String(), s) || strings.Contains(string(metrics), s) {
			t.Errorf("%q was logged or shown in metrics", s)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func waitFor(t *testing.T, url string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	last := "never answered"
	for time.Now().Before(deadline) {
		resp, err := http.Get(url)
		if err == nil {
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
			last = fmt.Sprintf("%d %s", resp.StatusCode, b)
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatalf("%s: %s", url, last)
}

func TestAFolderWithoutPlansIsAnError(t *testing.T) {
	err := work(t.Context(), config{plans: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "--plans") {
		t.Errorf("got %v", err)
	}
}
