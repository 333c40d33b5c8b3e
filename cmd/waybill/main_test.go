package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"io/fs"
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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// The test binary is the command itself when it is asked to be, so that tests can kill it.
const asCommand = "WAYBILL_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// A process is a `waybill run -o json` in a process of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr bytes.Buffer
	up     chan struct{}
	ended  chan struct{}
	err    error

	mu     sync.Mutex
	events []event
	last   string // the last line of stdout
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	return launch(t, exec.Command(os.Args[0], append([]string{"run", "-o", "json"}, args...)...))
}

func launch(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, up: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asCommand+"=1")
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var e event
			json.Unmarshal(lines.Bytes(), &e)
			p.mu.Lock()
			p.events, p.last = append(p.events, e), lines.Text()
			p.mu.Unlock()
			if e.Event == "up" {
				close(p.up)
			}
		}
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
	})
	return p
}

func (p *process) waitUp() *process {
	p.t.Helper()
	select {
	case <-p.up:
	case <-p.ended:
		p.t.Fatalf("ended before it was up: %v\n%s\n%s", p.err, p.last, p.stderr.String())
	case <-time.After(time.Minute):
		p.t.Fatal("not up after a minute")
	}
	return p
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		p.t.Fatalf("still runs a minute after %s", s)
	}
}

func (p *process) exitCode() int { return p.cmd.ProcessState.ExitCode() }

// address returns where a resource is served.
func (p *process) address(kind, name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Event == "ready" && e.Kind == kind && e.Name == name {
			return e.Address
		}
	}
	p.t.Fatalf("no ready line for %s %s", kind, name)
	return ""
}

func write(t *testing.T, manifests string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifests.yaml")
	if err := os.WriteFile(path, []byte(manifests), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// call runs the command within this process.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

const embedded = `
apiVersion: waybill.dev/v1alpha1
kind: Broker
metadata: {name: main}
spec: {type: Embedded}
---
apiVersion: waybill.dev/v1alpha1
kind: Topic
metadata: {name: orders}
spec: {brokerRef: {name: main}}
`

func TestExitCodes(t *testing.T) {
	good := write(t, embedded)
	missing := write(t, strings.ReplaceAll(embedded, "brokerRef: {name: main}", "brokerRef: {name: elsewhere}"))
	misspelt := write(t, strings.ReplaceAll(embedded, "brokerRef", "brokerReff"))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())

	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"valid":                     {[]string{"validate", "-f", good}, 0, "2 resources in 1 file: valid"},
		"a missing reference":       {[]string{"validate", "-f", missing}, 1, "elsewhere"},
		"an unknown field":          {[]string{"validate", "-f", misspelt}, 1, "brokerRef"},
		"a path that is not there":  {[]string{"validate", "-f", "/nowhere.yaml"}, 2, "/nowhere.yaml"},
		"no path":                   {[]string{"validate"}, 2, "name a file or a folder with -f"},
		"an unknown flag":           {[]string{"run", "--prot", "1"}, 2, "--prot"},
		"an unknown command":        {[]string{"walk"}, 2, "walk"},
		"an unknown format":         {[]string{"validate", "-f", good, "-o", "xml"}, 2, "want text or json"},
		"run of what is invalid":    {[]string{"run", "-f", missing, "--ephemeral"}, 1, "nothing was started"},
		"a taken port":              {[]string{"run", "-f", good, "--ephemeral", "--port", port}, 1, "--port"},
		"open to everybody":         {[]string{"run", "-f", good, "--ephemeral", "--port", "0", "--listen", "0.0.0.0"}, 1, "spec.auth"},
		"a name that nobody has":    {[]string{"run", "-f", good, "--ephemeral", "--port", "0", "--listen", "nobody.invalid"}, 1, "no address of this machine"},
		"--data beside --ephemeral": {[]string{"run", "-f", good, "--ephemeral", "--data", "x"}, 2, "ephemeral"},
		"a bad --broker":            {[]string{"run", "-f", good, "--broker", "main"}, 2, "NAME=URL"},
		"a bad --service":           {[]string{"run", "-f", good, "--service", "x=y"}, 2, "--service"},
		"plans":                     {[]string{"compile", "-f", good}, 0, "Topic/default/orders  plan"},
		"plans as JSON":             {[]string{"compile", "-f", good, "-o", "json"}, 0, `"resource":{"kind":"Topic"`},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := call(t, c.args...)
			if code != c.code || !strings.Contains(out+errs, c.says) {
				t.Errorf("waybill %s: exit code %d, want %d and %q in:\n%s%s", strings.Join(c.args, " "), code, c.code, c.says, out, errs)
			}
		})
	}
}

// A shell without job control, that of a script, starts what is to run in the background with SIGINT ignored.
func TestASecondInterruptEndsAtOnceWhereInterruptsAreIgnored(t *testing.T) {
	called, hang := make(chan struct{}), make(chan struct{})
	subscriber := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called <- struct{}{}; <-hang }))
	t.Cleanup(subscriber.Close)
	t.Cleanup(func() { close(hang) })
	path := write(t, embedded+`---
apiVersion: waybill.dev/v1alpha1
kind: Subscription
metadata: {name: slow}
spec: {topicRef: {name: orders}, deliverTo: {uri: '`+subscriber.URL+`'}}
`)
	p := launch(t, exec.Command("sh", "-c", `trap "" INT; exec "$0" run -o json --ephemeral --port 0 --drain 10m -f "$1"`, os.Args[0], path)).waitUp()
	address := p.address("Topic", "orders")
	resp, err := http.Post(address, "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	<-called
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	ready := strings.Replace(address, "/default/topics/orders", "/readyz", 1)
	for until := time.Now().Add(time.Minute); ; {
		resp, err := http.Get(ready)
		if err != nil {
			break // it serves no more
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			break
		}
		if time.Now().After(until) {
			t.Fatal("it does not drain")
		}
	}
	p.signal(os.Interrupt)
	if want := 128 + int(syscall.SIGINT); p.exitCode() != want {
		t.Errorf("exit code %d, want %d", p.exitCode(), want)
	}
}

// Ctrl-C ends both sides of `waybill run | tee log`, and tee is the quicker one.
func TestADrainGoesOnWhenNobodyReadsTheOutput(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		temp := t.TempDir()
		out, output, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "run", "-o", format, "-f", write(t, embedded), "--ephemeral", "--port", "0")
		cmd.Env, cmd.Stdout = append(os.Environ(), asCommand+"=1", "TMPDIR="+temp), output
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		output.Close()
		for lines := bufio.NewScanner(out); lines.Scan() && !strings.HasPrefix(lines.Text(), "Up after") && lines.Text() != `{"event":"up"}`; {
		}
		out.Close()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("-o %s: %v", format, err)
		}
		if left, err := filepath.Glob(filepath.Join(temp, "waybill-*")); err != nil || len(left) > 0 {
			t.Errorf("-o %s: the temporary folder is left: %v %v", format, left, err)
		}
	}
}

// full is a file on a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) {
	return 0, &fs.PathError{Op: "write", Path: "out", Err: syscall.ENOSPC}
}

// A full disk must not look like a plan.
func TestAResultThatCannotBeWrittenIsNotDone(t *testing.T) {
	good, bad := write(t, embedded), write(t, strings.ReplaceAll(embedded, "brokerRef", "brokerReff"))
	for _, args := range []string{"validate -f GOOD", "validate -f BAD -o json", "compile -f GOOD", "compile -f GOOD -o json", "compile -f GOOD -o yaml", "version", "--version", "--help"} {
		var errs bytes.Buffer
		code := Main(t.Context(), strings.Fields(strings.NewReplacer("GOOD", good, "BAD", bad).Replace(args)), full{}, &errs)
		if want := "waybill: cannot write to the standard output: no space left on device\n"; code != exitInvalid || !strings.HasPrefix(errs.String(), want) {
			t.Errorf("waybill %s: exit code %d, %s", args, code, errs.String())
		}
	}
}

// A start that is told to end has not failed, however far it has come.
func TestARunThatIsToldToEndBeforeItIsUp(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // a broker that never says who it is
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	skipped := embedded + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n"
	for stage, c := range map[string]struct {
		manifests string
		args      []string
		when      func(end func()) io.Writer // the standard error: what is told there tells how far it has come
	}{
		"before it reads":          {embedded, nil, func(end func()) io.Writer { end(); return io.Discard }},
		"before the server starts": {skipped, nil, func(end func()) io.Writer { return writer(func() { end() }) }},
		"while it dials its brokers": {embedded, []string{"--broker", "main=nats://" + silent.Addr().String()}, func(end func()) io.Writer {
			go func() {
				if c, err := silent.Accept(); err == nil {
					defer c.Close()
					end()
					_, _ = io.Copy(io.Discard, c) // until the run hangs up
				}
			}()
			return io.Discard
		}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		code := Main(ctx, append([]string{"run", "-o", "json", "-f", write(t, c.manifests), "--ephemeral", "--port", "0"}, c.args...), &out, c.when(cancel))
		if want := `{"event":"drained","finished":0,"released":0,"lost":0,"complete":true}` + "\n"; code != exitDone || out.String() != want {
			t.Errorf("%s: exit code %d, %s", stage, code, out.String())
		}
	}
}

// A writer is called for each write.
type writer func()

func (w writer) Write(p []byte) (int, error) { w(); return len(p), nil }

func TestLoopbackHasSeveralSpellings(t *testing.T) {
	path := write(t, embedded)
	for _, host := range []string{"localhost", "[::1]"} {
		if strings.Contains(host, ":") {
			l, err := net.Listen("tcp", "[::1]:0")
			if err != nil {
				continue // this machine has no IPv6
			}
			l.Close()
		}
		p := start(t, "-f", path, "--ephemeral", "--port", "0", "--listen", host).waitUp()
		resp, err := http.Get(p.address("Topic", "orders") + "/nothing")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		p.signal(syscall.SIGTERM)
		if p.exitCode() != exitDone {
			t.Errorf("--listen %s: exit code %d\n%s", host, p.exitCode(), p.stderr.String())
		}
	}
}

func TestDiagnosticsAsJSONNameFileLineAndField(t *testing.T) {
	path := write(t, strings.ReplaceAll(embedded, "name: main}}", "name: elsewhere}}"))
	for _, command := range [][]string{{"validate"}, {"run", "--ephemeral"}} {
		_, out, _ := call(t, append(command, "-f", path, "-o", "json")...)
		var d struct {
			File, Kind, Namespace, Name, Field, Reason, Message string
			Line                                                int
		}
		if err := json.Unmarshal([]byte(out), &d); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if d.File != path || d.Line != 10 || d.Kind != "Topic" || d.Namespace != "default" || d.Name != "orders" ||
			d.Field != "spec.brokerRef" || d.Reason != "ReferenceNotFound" || d.Message == "" {
			t.Errorf("%v: got %+v", command, d)
		}
	}
}

// An expression that no worker could start with is a fault of the files.
func TestValidateRefusesWhatRunCouldNotStart(t *testing.T) {
	path := write(t, embedded+`---
apiVersion: waybill.dev/v1alpha1
kind: Subscription
metadata: {name: filtered}
spec: {topicRef: {name: orders}, filter: {cel: 'matches(type, "[")'}, deliverTo: {uri: 'http://127.0.0.1:9'}}
---
apiVersion: waybill.dev/v1alpha1
kind: Poller
metadata: {name: identified}
spec: {schedule: {every: 60s}, http: {url: 'http://127.0.0.1:9'}, items: {cel: body}, detect: Changed, id: {cel: 'int("a")'}, to: {topicRef: {name: orders}}}
---
apiVersion: waybill.dev/v1alpha1
kind: Endpoint
metadata: {name: keyed}
spec: {path: /in, pattern: RequestAck, key: {cel: 'string(b"\xff")'}, to: {topicRef: {name: orders}}}
---
apiVersion: waybill.dev/v1alpha1
kind: Pipeline
metadata: {name: changed}
spec: {from: {topicRef: {name: orders}}, steps: [{name: change, transform: {cel: '{"a": bool("x")}'}}], to: {topicRef: {name: others}}}
---
apiVersion: waybill.dev/v1alpha1
kind: Topic
metadata: {name: others}
spec: {brokerRef: {name: main}}
`)
	for _, command := range []string{"validate", "compile"} {
		code, out, errs := call(t, command, "-f", path)
		for _, part := range []string{"Subscription default/filtered: spec.filter.cel: ", "Poller default/identified: spec.id.cel: ",
			"Endpoint default/keyed: spec.key.cel: ", "Pipeline default/changed: spec.steps[0].transform.cel: ", "4 faults found"} {
			if code != exitInvalid || !strings.Contains(errs, part) {
				t.Errorf("%s: exit code %d, want %q in:\n%s%s", command, code, part, out, errs)
			}
		}
	}
}

func TestASecondProcessOnTheSameFolderIsRefused(t *testing.T) {
	data, path := t.TempDir(), write(t, embedded)
	start(t, "-f", path, "--data", data, "--port", "0").waitUp()
	code, _, errs := call(t, "run", "-f", path, "--data", data, "--port", "0")
	if code != exitInvalid || !strings.Contains(errs, "another waybill run (process ") || !strings.Contains(errs, data) {
		t.Errorf("exit code %d, %s", code, errs)
	}
}

func TestAnUnmappedServiceKeepsOnlyItsResourceFromStarting(t *testing.T) {
	path := write(t, embedded+`---
apiVersion: waybill.dev/v1alpha1
kind: Subscription
metadata: {name: billing}
spec:
  topicRef: {name: orders}
  deliverTo: {serviceRef: {name: billing, port: 80, path: /events}}
`)
	p := start(t, "-f", path, "--ephemeral", "--port", "0").waitUp()
	p.address("Topic", "orders")
	p.signal(syscall.SIGTERM)
	if p.exitCode() != exitPartly {
		t.Errorf("exit code %d, want %d", p.exitCode(), exitPartly)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Event == "ready" && e.Name == "billing" {
			t.Error("the subscription was called ready")
		}
	}
}

func TestABrokerOnTheCommandLineTakesTheDeclaredOnesPlace(t *testing.T) {
	kafka := strings.ReplaceAll(embedded, "{type: Embedded}", "{type: Kafka, kafka: {bootstrapServers: ['kafka:9092']}}")
	path := write(t, kafka)
	if code, _, errs := call(t, "run", "-f", path, "--ephemeral", "--port", "0"); code != exitPartly || !strings.Contains(errs, "Kafka") {
		t.Errorf("without --broker: exit code %d, %s", code, errs)
	}
	p := start(t, "-f", path, "--ephemeral", "--port", "0", "--broker", "main=embedded:").waitUp()
	p.signal(syscall.SIGTERM)
	if p.exitCode() != exitDone {
		t.Errorf("with --broker: exit code %d\n%s", p.exitCode(), p.stderr.String())
	}
}

func TestABrokerThatTheFilesLackIsDefinedOnTheCommandLine(t *testing.T) {
	_, rest, _ := strings.Cut(embedded, "---\n") // the Topic alone
	path := write(t, rest+`---
apiVersion: waybill.dev/v1alpha1
kind: Mailbox
metadata: {name: ledger}
spec: {brokerRef: {name: main}}
---
apiVersion: waybill.dev/v1alpha1
kind: Subscription
metadata: {name: ledger}
spec: {topicRef: {name: orders}, deliverTo: {mailboxRef: {name: ledger}}}
`)
	if code, _, errs := call(t, "run", "-f", path, "--ephemeral", "--port", "0", "--broker", "mian=embedded:"); code != exitUsage || !strings.Contains(errs, "did you mean default/main?") {
		t.Errorf("another Broker's name: exit code %d, %s", code, errs)
	}
	p := start(t, "-f", path, "--ephemeral", "--port", "0", "--broker", "main=embedded:").waitUp()
	p.signal(syscall.SIGTERM)
	if p.exitCode() != exitDone {
		t.Errorf("exit code %d\n%s", p.exitCode(), p.stderr.String())
	}
}

func TestABrokerURLReplacesTheWholeConnection(t *testing.T) {
	ca := &v1alpha1.TLS{CASecretRef: &v1alpha1.SecretKeyReference{Name: "ca"}}
	in := compile.Input{Brokers: []*v1alpha1.Broker{{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "main"}, Spec: v1alpha1.BrokerSpec{
		Type: v1alpha1.BrokerNATS, NATS: &v1alpha1.NATSBroker{Servers: []v1alpha1.BrokerAddress{"nats:4222"}, TLS: ca, JetStreamDomain: "hub"}}}}}
	for flag, want := range map[string]*v1alpha1.TLS{"main=nats://127.0.0.1:4222": nil, "main=tls://127.0.0.1:4222": ca} {
		u, err := parseBroker(flag)
		if err != nil {
			t.Fatal(err)
		}
		declared, here, err := override(in, []brokerURL{u}, new(secret.Memory))
		if err != nil {
			t.Fatal(err)
		}
		got := here.Brokers[0].Spec.NATS
		if got.TLS != want || got.JetStreamDomain != "" || len(got.Servers) != 1 || string(got.Servers[0]) != strings.TrimPrefix(flag, "main=") {
			t.Errorf("%s: %+v", flag, got)
		}
		if declared.Brokers[0].Spec.NATS.JetStreamDomain != "hub" {
			t.Errorf("%s: the declared Broker was changed", flag)
		}
	}
}

// Whoever waits for "up" publishes then: it must not come before everything runs.
func TestNothingIsReadyWhileItsBrokerIsAway(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	p := start(t, "-f", write(t, embedded), "--ephemeral", "--port", "0", "--broker", "main=nats://"+address)
	select {
	case <-p.up:
		t.Error("up without its broker")
	case <-p.ended:
		t.Fatalf("ended: %v\n%s", p.err, p.stderr.String())
	case <-time.After(2 * time.Second):
	}
	p.signal(syscall.SIGINT)
	if p.exitCode() != exitPartly {
		t.Errorf("exit code %d, want %d", p.exitCode(), exitPartly)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Event == "ready" || e.Event == "up" {
			t.Errorf("told %+v", e)
		}
	}
	if !strings.Contains(p.stderr.String(), address) {
		t.Errorf("does not say which broker is away:\n%s", p.stderr.String())
	}
}

func TestBrokerURLs(t *testing.T) {
	for flag, want := range map[string]brokerURL{
		"main=embedded:":                      {name: "main", protocol: "Embedded"},
		"main=nats://h:4222":                  {name: "main", protocol: "NATS", addresses: []string{"nats://h:4222"}},
		"main=tls://h:4222":                   {name: "main", protocol: "NATS", addresses: []string{"tls://h:4222"}, tls: true},
		"main=nats://me:s3cret@a:4222,b:4222": {name: "main", protocol: "NATS", addresses: []string{"nats://a:4222", "nats://b:4222"}, username: "me", password: "s3cret"},
		"main=kafka://a:1,b:2":                {name: "main", protocol: "Kafka", addresses: []string{"a:1", "b:2"}},
		"main=amqps://h:5671":                 {name: "main", protocol: "RabbitMQ", addresses: []string{"h:5671"}, tls: true},
	} {
		got, err := parseBroker(flag)
		if err != nil || got.name != want.name || got.protocol != want.protocol || strings.Join(got.addresses, " ") != strings.Join(want.addresses, " ") ||
			got.username != want.username || got.password != want.password || got.tls != want.tls {
			t.Errorf("%s: got %+v, %v", flag, got, err)
		}
	}
	for _, flag := range []string{"main", "=nats://h:1", "main=h:4222", "main=http://h", "main=nats://me:s3cret@", "main=embedded://x", "main=nats://me:s3cret@h"} {
		_, err := parseBroker(flag)
		if flag == "main=nats://me:s3cret@h" {
			continue // a host without a port is nats's default port
		}
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

func TestEverySampleRunsAndDrains(t *testing.T) {
	for _, folder := range []string{"../../config/samples", "../../config/samples/quickstart"} {
		p := start(t, "-f", folder, "--ephemeral", "--port", "0").waitUp()
		p.signal(syscall.SIGINT)
		if p.exitCode() != exitDone {
			t.Errorf("%s: exit code %d\n%s", folder, p.exitCode(), p.stderr.String())
		}
	}
}
