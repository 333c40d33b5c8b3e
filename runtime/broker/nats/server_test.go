package nats_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/runtime/broker/brokertest"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
)

// roleVariable makes this test binary a server or a reader in a process of its own, which can be killed.
const roleVariable = "WAYBILL_NATS_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "server":
		exit(serve())
	case "reader":
		exit(brokertest.Child(nats.Open, os.Stdin))
	default:
		// A server that is stopped in the middle of an atomic batch forgets to stop the store in which it had staged it (nats-server 2.15.3).
		const pkg = "github.com/nats-io/nats-server/v2/server"
		goleak.VerifyTestMain(m, goleak.IgnoreTopFunction(pkg+".(*msgBlock).flushLoop"),
			goleak.IgnoreTopFunction(pkg+".(*fileStore).flushStreamStateLoop"), goleak.IgnoreTopFunction(pkg+"/ats.Register.func1"))
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serverConfig is what a server process reads from its input: a plain nats-server, not the embedded one.
type serverConfig struct {
	Dir         string
	Port        int
	Username    string
	Password    string
	Token       string
	Domain      string
	Cert, Key   string // files
	MaxPayload  int32
	SyncOnTimer bool // as a server is by default
}

func serve() error {
	var cfg serverConfig
	if err := json.NewDecoder(os.Stdin).Decode(&cfg); err != nil {
		return err
	}
	opts := &server.Options{
		ServerName: "test", Host: "127.0.0.1", Port: cfg.Port, JetStream: true, StoreDir: cfg.Dir, NoSigs: true, NoLog: true,
		Username: cfg.Username, Password: cfg.Password, Authorization: cfg.Token, JetStreamDomain: cfg.Domain, MaxPayload: cfg.MaxPayload,
		SyncAlways: !cfg.SyncOnTimer,
	}
	if cfg.Cert != "" {
		tc, err := server.GenTLSConfig(&server.TLSConfigOpts{CertFile: cfg.Cert, KeyFile: cfg.Key})
		if err != nil {
			return err
		}
		opts.TLS, opts.TLSConfig, opts.TLSTimeout = true, tc, 5
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return fmt.Errorf("the server is not ready")
	}
	fmt.Println(s.Addr().String())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	s.Shutdown()
	return nil
}

// child starts this test binary in a role and gives the first line that it prints.
func child(t testing.TB, role string, input any) (cmd *exec.Cmd, lines *bufio.Reader) {
	t.Helper()
	data, ok := input.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(input); err != nil {
			t.Fatal(err)
		}
	}
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stdin = bytes.NewReader(data)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

// process is a nats-server in a process of its own.
type process struct {
	config serverConfig
	addr   string
	cmd    *exec.Cmd
}

func startProcess(t testing.TB, cfg serverConfig) *process {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.Port = server.RANDOM_PORT
	p := &process{config: cfg}
	p.start(t)
	t.Cleanup(func() { p.stop(t) })
	return p
}

func (p *process) start(t testing.TB) {
	t.Helper()
	cmd, out := child(t, "server", p.config)
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatalf("the server did not start: %v", err)
	}
	p.cmd, p.addr = cmd, strings.TrimSpace(line)
	if _, err := fmt.Sscanf(p.addr[strings.LastIndexByte(p.addr, ':')+1:], "%d", &p.config.Port); err != nil {
		t.Fatal(err)
	}
}

// stop is kill -9.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if p.cmd == nil {
		return
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = p.cmd.Wait() // says that it was killed
	p.cmd = nil
}

// reader is Harness.Reader.
func reader(t *testing.T, spec []byte) (<-chan string, func()) {
	t.Helper()
	cmd, out := child(t, "reader", spec)
	lines := brokertest.Lines(out)
	return lines, func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		for range lines {
		}
		_ = cmd.Wait() // says that it was killed
	}
}
