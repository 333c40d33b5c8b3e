package workload

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// pod stands for the kubelet: it runs the one container of a Set, with the volumes that its template says, as a process on this machine.
type pod struct {
	t       *testing.T
	set     *Set
	dirs    map[string]string // by mount path
	mounts  int
	process *exec.Cmd
	log     logged
	listen  string
	health  string
	ended   chan error
}

type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func startPod(t *testing.T, binary string, set *Set, secrets []*corev1.Secret, more ...string) *pod {
	t.Helper()
	p := &pod{t: t, set: set, dirs: map[string]string{}, listen: freeAddress(t), health: freeAddress(t), ended: make(chan error, 1)}
	template := templateOf(t, set)
	c := template.Spec.Containers[0]
	for _, m := range c.VolumeMounts {
		p.dirs[m.MountPath] = t.TempDir()
	}
	for _, v := range template.Spec.Volumes {
		if v.ConfigMap == nil {
			continue
		}
		for _, u := range set.Owned {
			if u.GetKind() == "ConfigMap" && u.GetName() == v.ConfigMap.Name {
				for name, text := range typed(t, u).(*corev1.ConfigMap).Data {
					write(t, filepath.Join(p.dirs[p.path(v.Name)], name), []byte(text))
				}
			}
		}
	}
	p.mount(secrets)
	p.process = exec.Command(binary, append(p.here(c.Args), append(more, "--listen="+p.listen, "--health="+p.health)...)...)
	for _, e := range c.Env {
		p.process.Env = append(p.process.Env, e.Name+"="+e.Value)
	}
	p.process.Stderr = &p.log
	if err := p.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.process.Wait() }()
	t.Cleanup(func() {
		_ = p.process.Process.Kill() // it has ended by itself where the test passed
		if t.Failed() {
			t.Logf("%s:\n%s", set.Workload, p.log.String())
		}
	})
	p.wait("/readyz", http.StatusOK)
	return p
}

// path is where a volume is mounted.
func (p *pod) path(volume string) string {
	for _, m := range templateOf(p.t, p.set).Spec.Containers[0].VolumeMounts {
		if m.Name == volume {
			return m.MountPath
		}
	}
	p.t.Fatalf("volume %s is not mounted", volume)
	return ""
}

// here puts this machine's folders in the place of the mount paths.
func (p *pod) here(args []string) []string {
	var out []string
	for _, a := range args {
		flag, value, found := strings.Cut(a, "=")
		if dir, ok := p.dirs[value]; found && ok {
			a = flag + "=" + dir
		}
		out = append(out, a)
	}
	return out
}

// mount writes the projected volume as the kubelet does: all files of a generation in one folder, and one link that is moved to it at once.
func (p *pod) mount(secrets []*corev1.Secret) {
	p.t.Helper()
	p.mounts++
	for _, v := range templateOf(p.t, p.set).Spec.Volumes {
		if v.Projected == nil || v.Name != "secrets" {
			continue
		}
		root := p.dirs[p.path(v.Name)]
		generation := fmt.Sprintf("..%d", p.mounts)
		for _, source := range v.Projected.Sources {
			s := source.Secret
			for _, item := range s.Items {
				value, ok := keyOf(secrets, s.Name, item.Key)
				if !ok {
					if s.Optional == nil || !*s.Optional {
						p.t.Fatalf("the Pod would not start: no key %s in Secret %s", item.Key, s.Name)
					}
					continue
				}
				write(p.t, filepath.Join(root, generation, item.Path), value)
			}
			if err := os.Symlink(filepath.Join("..data", s.Name), filepath.Join(root, s.Name)); err != nil && !os.IsExist(err) {
				p.t.Fatal(err)
			}
		}
		if err := os.Symlink(generation, filepath.Join(root, "..new")); err != nil {
			p.t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(root, "..new"), filepath.Join(root, "..data")); err != nil {
			p.t.Fatal(err)
		}
	}
}

func keyOf(secrets []*corev1.Secret, name, key string) ([]byte, bool) {
	for _, s := range secrets {
		if s.Name == name {
			v, ok := s.Data[key]
			return v, ok
		}
	}
	return nil, false
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
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

var client = &http.Client{Timeout: 10 * time.Second}

// get returns what a path of the health port answers; 0 while nobody does.
func (p *pod) get(path string) (int, string) {
	resp, err := client.Get("http://" + p.health + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

func (p *pod) wait(path string, status int) {
	p.t.Helper()
	p.until(fmt.Sprintf("%s answers %d", path, status), func() (bool, string) {
		code, body := p.get(path)
		return code == status, fmt.Sprint(code, " ", body)
	})
}

func (p *pod) until(what string, is func() (bool, string)) {
	p.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		ok, last := is()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: not that %s, but %s", p.set.Workload, what, last)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// inUse is the generation of a Secret that the worker says it uses.
func (p *pod) inUse(name string) string {
	var status struct{ Credentials []engine.Credential }
	_, body := p.get("/status")
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		return err.Error()
	}
	for _, c := range status.Credentials {
		if c.Secret == name {
			return c.Generation
		}
	}
	return body
}

func (p *pod) terminate() {
	p.t.Helper()
	if err := p.process.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pod) exits() {
	p.t.Helper()
	select {
	case err := <-p.ended:
		if err != nil {
			p.t.Errorf("%s ends with %v", p.set.Workload, err)
		}
	case <-time.After(30 * time.Second):
		p.t.Fatalf("%s does not end", p.set.Workload)
	}
}

// What the builders make is run as a kubelet would: a broker, a gateway and a subscription, each a process of the worker's binary. A message
// goes through; credentials are exchanged while messages flow; and each ends without losing anything.
func TestTheBuiltPodsWork(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "worker")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/worker").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sub := newSubscriber(t)

	// The broker.
	embedded := &v1alpha1.Broker{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "main", UID: "uid"}, Spec: v1alpha1.BrokerSpec{Type: v1alpha1.BrokerEmbedded}}
	set, err := BuildBroker(embedded, settings)
	if err != nil {
		t.Fatal(err)
	}
	credentials := BrokerCredentials(embedded, "one")
	server := startPod(t, binary, set, []*corev1.Secret{credentials})

	// What uses it. Here no name leads to it, so it is declared by its address.
	manifests := filepath.Join(t.TempDir(), "all.yaml")
	write(t, manifests, fmt.Appendf(nil, `
apiVersion: waybill.dev/v1alpha1
kind: Broker
metadata: {name: wired, namespace: shop}
spec: {type: NATS, nats: {servers: ["%s"]}, secretRef: {name: main-broker}}
---
apiVersion: waybill.dev/v1alpha1
kind: Topic
metadata: {name: orders, namespace: shop}
spec: {brokerRef: {name: wired}, auth: {bearer: {secretRef: {name: publishers}}}}
---
apiVersion: waybill.dev/v1alpha1
kind: Subscription
metadata: {name: billing, namespace: shop}
spec: {topicRef: {name: orders}, deliverTo: {uri: "%s"}}
`, server.listen, sub.URL))
	s := settings
	s.AllowPrivateDial = true
	secrets := []*corev1.Secret{credentials, {ObjectMeta: metav1.ObjectMeta{Name: "publishers"}, Data: map[string][]byte{"token": []byte("t0ken")}}}
	pods := map[string]*pod{}
	for _, b := range build(t, s, manifests) {
		if b.set == nil {
			continue
		}
		ensure(t, server.listen, "one", b.outcome.Plan.Objects)
		pods[b.owner.Kind] = startPod(t, binary, b.set, secrets, "--secrets-every=50ms", "--linger=2s")
	}
	gateway, billing := pods["Topic"], pods["Subscription"]

	publish := func(id string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, "http://"+gateway.listen+"/", strings.NewReader(`{"n":1}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer t0ken")
		req.Header.Set("Idempotency-Key", id)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusAccepted {
			t.Fatalf("publishing %s: %d %s", id, resp.StatusCode, body)
		}
	}
	publish("first")
	sub.await("first")

	// A new password: the server knows it, the workers see it later, and all the while messages are published.
	// The server is told of it first; then whoever sees the change before or after another is let in.
	rotated := RotateBrokerCredentials(credentials, 1, "two")
	server.mount([]*corev1.Secret{rotated})
	publish("told")
	sub.await("told")
	rotated = RotateBrokerCredentials(rotated, 2, "")
	secrets[0] = rotated
	for _, p := range []*pod{gateway, billing} {
		p.mount(secrets)
	}
	want := secret.Generation("shop", "main-broker", map[string][]byte{"username": rotated.Data["username"], "password": rotated.Data["password"]})
	n := 0
	for _, p := range []*pod{gateway, billing} {
		p.until("the new credentials are in use", func() (bool, string) {
			n++
			publish(fmt.Sprint("meanwhile-", n))
			got := p.inUse("main-broker")
			return got == want, got
		})
	}
	for i := range n {
		sub.await(fmt.Sprint("meanwhile-", i+1))
	}
	// The old one is forgotten, and nobody needs it.
	server.mount([]*corev1.Secret{rotated})
	server.mount([]*corev1.Secret{RotateBrokerCredentials(rotated, 3, "")})
	if conn, err := open(server.listen, "one"); err == nil {
		conn.Close(t.Context())
		t.Error("the old password is still taken")
	}
	publish("after")
	sub.await("after")

	// A push that is under way is finished, and handed back to nobody.
	release := sub.hold("held")
	publish("held")
	sub.await("held")
	billing.terminate()
	billing.wait("/readyz", http.StatusServiceUnavailable)
	close(release)
	billing.exits()
	if !strings.Contains(billing.log.String(), `"lost":0`) || sub.count("held") != 1 {
		t.Errorf("%d pushes of what was held", sub.count("held"))
	}

	// A gateway that was told to end is no longer ready, and for a while serves those who do not know it yet.
	gateway.terminate()
	gateway.wait("/readyz", http.StatusServiceUnavailable)
	publish("late")
	gateway.exits()

	server.terminate()
	server.exits()
	for _, p := range []*pod{gateway, billing, server} {
		for _, word := range []string{"t0ken", `"one"`, `"two"`} {
			if strings.Contains(p.log.String(), word) {
				t.Errorf("%s logs %s", p.set.Workload, word)
			}
		}
	}
}

func open(address, password string) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return nats.Open(ctx, driver.Config{Addresses: []string{address}, Username: "waybill", Password: password})
}

// ensure is what the operator does before Pods run.
func ensure(t *testing.T, address, password string, objects []plan.Object) {
	t.Helper()
	conn, err := open(address, password)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, o := range objects {
		if _, err := conn.Admin().Ensure(t.Context(), engine.Object(o)); err != nil {
			t.Fatal(err)
		}
	}
}

// subscriber counts pushes by id.
type subscriber struct {
	*httptest.Server
	t       *testing.T
	mu      sync.Mutex
	pushes  map[string]int
	holding map[string]chan struct{}
	changed chan struct{}
}

func newSubscriber(t *testing.T) *subscriber {
	s := &subscriber{t: t, pushes: map[string]int{}, holding: map[string]chan struct{}{}, changed: make(chan struct{})}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *subscriber) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("Ce-Id")
	s.mu.Lock()
	s.pushes[id]++
	held := s.holding[id]
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	if held != nil {
		<-held
	}
}

func (s *subscriber) hold(id string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding[id] = make(chan struct{})
	return s.holding[id]
}

func (s *subscriber) count(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pushes[id]
}

func (s *subscriber) await(id string) {
	s.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		n, changed := s.pushes[id], s.changed
		s.mu.Unlock()
		if n > 0 {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			s.t.Fatalf("%s was never pushed", id)
		}
	}
}
