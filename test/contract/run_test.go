package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const inboxMailbox = "kind: Mailbox\nmetadata: {name: inbox}\nspec: {brokerRef: {name: main}}"

func TestAddressesAndHealth(t *testing.T) {
	t.Parallel()
	says(t, "A1", "A2", "A5", "C3", "C7", "C8", "C9", "C12", "C16")
	p := serve(t, inboxMailbox,
		"kind: Topic\nmetadata: {name: orders, namespace: shop}\nspec: {brokerRef: {name: own}}",
		"kind: Broker\nmetadata: {name: own, namespace: shop}\nspec: {type: Embedded}",
		"kind: Endpoint\nmetadata: {name: intake, namespace: shop}\nspec: {pattern: RequestAck, path: /in/orders, to: {topicRef: {name: orders}}}",
		"kind: Subscription\nmetadata: {name: audit, namespace: shop}\nspec: {topicRef: {name: orders}, ordering: Key, startFrom: {position: Latest}, deliverTo: {mailboxRef: {name: audit}}}",
		"kind: Mailbox\nmetadata: {name: audit, namespace: shop}\nspec: {brokerRef: {name: own}}",
		secretFor("unused", "token"))
	origin := strings.TrimSuffix(p.at("Mailbox", "inbox", ""), "/default/mailboxes/inbox")
	if !strings.HasPrefix(origin, "http://127.0.0.1:") {
		t.Errorf("the address of a Mailbox is %s", p.at("Mailbox", "inbox", ""))
	}
	for _, c := range []struct{ kind, name, address, guarantee, ordering string }{
		{"Broker", "main", "", "", ""},
		{"Mailbox", "inbox", "/default/mailboxes/inbox", "AtLeastOnce", "None"},
		{"Topic", "shop/orders", "/shop/topics/orders", "AtLeastOnce", "Strict"},
		{"Endpoint", "shop/intake", "/shop/endpoints/intake/in/orders", "AtLeastOnce", "None"},
		{"Subscription", "shop/audit", "", "AtLeastOnce", "Key"},
	} {
		e := p.ready(c.kind, c.name)
		address := c.address
		if address != "" {
			address = origin + address
		}
		if e.Address != address || e.Guarantee != c.guarantee || e.Ordering != c.ordering || strings.Contains(e.raw, `"address"`) != (c.address != "") {
			t.Errorf("%s %s: %s", c.kind, c.name, e.raw)
		}
	}
	for i, e := range p.seen() {
		if e.Event == "up" && i != 7 || e.Kind == "Secret" {
			t.Errorf("seven resources, then up:\n%s", p.lines())
		}
	}

	// Up means that the position of the Subscription exists: what is published the moment after is its first message.
	post(t, p.at("Endpoint", "shop/intake", ""), "hello").want(http.StatusAccepted)
	if got := receive(t, p.at("Mailbox", "shop/audit", ""), "wait=20s"); len(got) != 1 {
		t.Errorf("startFrom Latest received %d of what was published after up", len(got))
	}

	for path, part := range map[string]string{
		"/healthz": "ok", "/readyz": "ok",
		"/metrics": `waybill_gateway_stored_total{kind="Endpoint",name="intake",namespace="shop"} 1`,
		"/status":  `"name":"intake"`,
	} {
		if a := send(t, http.MethodGet, origin+path, "").want(http.StatusOK); !strings.Contains(a.body, part) {
			t.Errorf("GET %s does not say %q:\n%s", path, part, a.body)
		}
	}
	send(t, http.MethodPost, origin+"/healthz", "").want(http.StatusMethodNotAllowed)
	var status struct {
		Resources []struct {
			Kind, Name string
			Counts     struct{ In, Out int }
		}
	}
	eventually(t, "all to be counted", func() bool {
		send(t, http.MethodGet, origin+"/status", "").read(&status)
		counted := 0
		for _, r := range status.Resources {
			in, out := r.Counts.In, r.Counts.Out
			if r.Name == "intake" && in == 1 && out == 1 || r.Kind == "Topic" && in == 1 || r.Kind == "Subscription" && out == 1 || r.Kind == "Mailbox" && r.Name == "audit" && in == 1 {
				counted++
			}
		}
		return counted == 4
	})

	if code := p.signal(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.stderr.String())
	}
	all := p.seen()
	last := all[len(all)-1]
	var drained struct {
		Event              string
		Finished, Released *int
		Lost               *int
		Complete           *bool
	}
	if json.Unmarshal([]byte(last.raw), &drained) != nil || drained.Event != "drained" || drained.Finished == nil || drained.Released == nil || drained.Lost == nil || drained.Complete == nil || !*drained.Complete {
		t.Errorf("the last line is %s", last.raw)
	}
}

// /status and /metrics ask for no token, so they are not for everybody.
func TestWhoeverIsElsewhereSeesNoStatus(t *testing.T) {
	t.Parallel()
	says(t, "A7")
	here := addressOfThisMachine(t)
	if here == nil {
		t.Attr("not-exercised", "callers from elsewhere: this machine has no address but loopback")
		return
	}
	p := start(t, "-f", manifest(t, broker, secretFor("s", "token"), "kind: Mailbox\nmetadata: {name: inbox}\nspec: {brokerRef: {name: main}, auth: {bearer: {secretRef: {name: s}}}}"),
		"--ephemeral", "--listen", "0.0.0.0").awaitUp()
	_, port, _ := net.SplitHostPort(strings.Split(p.at("Mailbox", "inbox", ""), "/")[2])
	elsewhere := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: here}}).DialContext}}
	defer elsewhere.CloseIdleConnections()
	for path, want := range map[string]int{"/status": http.StatusForbidden, "/metrics": http.StatusForbidden, "/healthz": http.StatusOK, "/readyz": http.StatusOK} {
		// Whoever calls loopback from another address is, for the process, somebody else.
		resp, err := elsewhere.Get("http://127.0.0.1:" + port + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want {
			t.Errorf("GET %s from elsewhere: %d %s, %v; want %d", path, resp.StatusCode, body, err, want)
		}
		if want == http.StatusForbidden && (resp.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(string(body), `"reason":"LocalOnly"`)) {
			t.Errorf("GET %s: %v %s", path, resp.Header, body)
		}
		for _, host := range []string{"127.0.0.1", here.String()} {
			send(t, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, "").want(http.StatusOK)
		}
	}
}

// addressOfThisMachine is one that is not loopback; nil: there is none.
func addressOfThisMachine(t *testing.T) net.IP {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP
		}
	}
	return nil
}

func TestWhatIsTakenOrOpenIsRefused(t *testing.T) {
	t.Parallel()
	says(t, "C13")
	data, file := t.TempDir(), manifest(t, broker, inboxMailbox)
	p := start(t, "-f", file, "--data", data).awaitUp()
	_, port, _ := net.SplitHostPort(strings.Split(p.at("Mailbox", "inbox", ""), "/")[2])
	guarded := manifest(t, broker, secretFor("s", "token"), "kind: Mailbox\nmetadata: {name: inbox}\nspec: {brokerRef: {name: main}, auth: {bearer: {secretRef: {name: s}}}}")

	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "format"), []byte("waybill-state-99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plainFile := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plainFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args  []string
		parts []string
	}{
		"a folder in use":        {[]string{"-f", file, "--data", data, "--port", "0"}, []string{data, fmt.Sprintf("process %d", p.cmd.Process.Pid), "--data"}},
		"a taken port":           {[]string{"-f", file, "--ephemeral", "--port", port}, []string{"127.0.0.1:" + port, "another process", "--port"}},
		"a folder of another":    {[]string{"-f", file, "--data", other, "--port", "0"}, []string{other, "waybill-state-99", "another version"}},
		"no folder":              {[]string{"-f", file, "--data", plainFile, "--port", "0"}, []string{plainFile, "not a directory"}},
		"a folder below nothing": {[]string{"-f", file, "--data", "/proc/nothing/here", "--port", "0"}, []string{"/proc/nothing/here", "--ephemeral"}},
		"open to everybody":      {[]string{"-f", file, "--ephemeral", "--port", "0", "--listen", "0.0.0.0"}, []string{"Mailbox/default/inbox", "spec.auth"}},
		"no address of ours":     {[]string{"-f", guarded, "--ephemeral", "--port", "0", "--listen", "192.0.2.1"}, []string{"192.0.2.1", "no address of this machine"}},
	} {
		code, _, errs := waybill(t, append([]string{"run"}, c.args...)...)
		if code != 1 {
			t.Errorf("%s: exit code %d", name, code)
		}
		for _, part := range c.parts {
			if !strings.Contains(errs, part) {
				t.Errorf("%s: does not say %q: %s", name, part, errs)
			}
		}
	}
	// With auth it may be open; its printed address is one that can be called.
	wide := start(t, "-f", guarded, "--ephemeral", "--listen", "0.0.0.0").awaitUp()
	post(t, wide.at("Mailbox", "inbox", "/messages"), "x").want(http.StatusUnauthorized)
	post(t, wide.at("Mailbox", "inbox", "/messages"), "x", "Authorization", "Bearer x").want(http.StatusAccepted)
}

// A push that hangs holds the drain up for as long as --drain says, and the exit code tells.
func TestADrainThatIsCutOff(t *testing.T) {
	t.Parallel()
	says(t, "C15", "C16", "S1")
	hang := make(chan struct{})
	sub := subscribe(t, func(w http.ResponseWriter, p pushed) { <-hang })
	t.Cleanup(func() { close(hang) })
	data := t.TempDir()
	file := manifest(t, broker, "kind: Topic\nmetadata: {name: orders}\nspec: {brokerRef: {name: main}}",
		"kind: Subscription\nmetadata: {name: s}\nspec: {topicRef: {name: orders}, deliverTo: {uri: '"+sub.URL+"'}}")
	p := start(t, "-f", file, "--data", data, "--drain", "300ms").awaitUp()
	post(t, p.at("Topic", "orders", ""), "hello", "Idempotency-Key", "one").want(http.StatusAccepted)
	sub.await(1)
	began := time.Now()
	if code := p.signal(syscall.SIGTERM); code != 3 {
		t.Errorf("exit code %d, want 3\n%s", code, p.stderr.String())
	}
	if took := time.Since(began); took < 300*time.Millisecond || took > 15*time.Second {
		t.Errorf("the drain took %s", took)
	}
	if all := p.seen(); !strings.Contains(all[len(all)-1].raw, `"complete":false`) {
		t.Errorf("the last line is %s", all[len(all)-1].raw)
	}
	// What was cut off comes again, and counts no attempt.
	again := start(t, "-f", file, "--data", data, "--drain", "0s").awaitUp()
	if got := sub.await(2)[1]; got.header.Get("Ce-Id") != "one" {
		t.Errorf("another message came: %v", got.header)
	}
	if code := again.signal(syscall.SIGINT); code != 3 {
		t.Errorf("--drain 0s with a push on its way: exit code %d, want 3", code)
	}
}

func TestADrainWithoutTimeOfWhatIsIdle(t *testing.T) {
	t.Parallel()
	says(t, "C12", "C16")
	p := start(t, "-f", manifest(t, broker, inboxMailbox), "--ephemeral", "--drain", "0s").awaitUp()
	if code := p.signal(syscall.SIGINT); code != 0 {
		t.Errorf("exit code %d\n%s\n%s", code, p.lines(), p.stderr.String())
	}
}

// The second signal does not wait; what was stored survives it.
func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	says(t, "C16")
	hang := make(chan struct{})
	sub := subscribe(t, func(w http.ResponseWriter, p pushed) { <-hang })
	t.Cleanup(func() { close(hang) })
	p := start(t, "-f", manifest(t, broker, "kind: Topic\nmetadata: {name: orders}\nspec: {brokerRef: {name: main}}",
		"kind: Subscription\nmetadata: {name: s}\nspec: {topicRef: {name: orders}, deliverTo: {uri: '"+sub.URL+"'}}"), "--data", t.TempDir(), "--drain", "10m").awaitUp()
	post(t, p.at("Topic", "orders", ""), "hello").want(http.StatusAccepted)
	sub.await(1)
	origin, _, _ := strings.Cut(p.at("Topic", "orders", ""), "/default/")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the drain to begin", func() bool {
		r, err := http.Get(origin + "/readyz")
		if err != nil {
			return true // serves no more
		}
		defer r.Body.Close()
		return r.StatusCode != http.StatusOK
	})
	if code := p.signal(syscall.SIGTERM); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d, want 128 and the signal", code)
	}
}

// A terminal or an open pipe gives nothing and no end: the first signal ends the reading.
func TestASignalWhileStandardInputIsRead(t *testing.T) {
	t.Parallel()
	says(t, "C1", "C16")
	for _, command := range []string{"run", "validate", "compile"} {
		for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			cmd := exec.Command(binary, command, "-f", "-")
			cmd.Dir = t.TempDir()
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill() })
			// More than a pipe holds: once it is written, the process reads.
			if _, err := in.Write(bytes.Repeat([]byte("# nothing yet\n"), 64<<10)); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case <-ended:
			case <-time.After(time.Minute):
				t.Fatalf("%s still reads a minute after %s", command, s)
			}
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if command == "run" && status.ExitStatus() != 0 || command != "run" && status.Signal() != s {
				t.Errorf("%s and %s: %v", command, s, cmd.ProcessState)
			}
		}
	}
}
