// Package servers starts real servers for tests: each in a process, a directory and on a port of its own, by programs that a script under
// hack/ finds or fetches. None of the system's own services is started, stopped or looked at.
package servers

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody is who runs PostgreSQL where the test is root: it refuses to run as root.
const nobody = 65534

// Postgres is a PostgreSQL server. Its one user is "waybill", superuser, without a password on loopback.
type Postgres struct {
	t    testing.TB
	bin  string
	dir  string
	port int
	log  bytes.Buffer
	cmd  *exec.Cmd
	done chan struct{}
}

// StartPostgres starts a server with an empty database "waybill". nil: there is none to be had here, and the test has said so; it should
// return. config is added to postgresql.conf.
func StartPostgres(t testing.TB, config ...string) *Postgres {
	t.Helper()
	p := &Postgres{t: t}
	script := exec.Command(script("postgres.sh"))
	var errs bytes.Buffer
	script.Stderr = &errs
	out, err := script.Output()
	if err != nil {
		t.Attr("not-exercised", "PostgreSQL: "+strings.TrimSpace(errs.String()))
		return nil
	}
	p.bin = strings.TrimSpace(string(out))
	if p.dir, err = os.MkdirTemp("", "waybill-pg"); err != nil { //nolint:usetesting // whoever runs the server must reach it
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(p.dir) })
	if os.Geteuid() == 0 {
		if err := os.Chown(p.dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		if root, fetched := strings.CutSuffix(p.bin, "/bin"); fetched && !strings.HasPrefix(p.bin, "/usr/") {
			p.bin = p.own(root)
		}
	}
	if out, err := p.command("initdb", "-D", p.data(), "-U", "waybill", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	config = append(config, "listen_addresses = '127.0.0.1'", "unix_socket_directories = ''")
	if err := appendTo(filepath.Join(p.data(), "postgresql.conf"), strings.Join(config, "\n")+"\n"); err != nil {
		t.Fatal(err)
	}
	p.port = freePort(t)
	t.Cleanup(p.Kill)
	p.Start()
	create := p.command("psql", "-h", "127.0.0.1", "-p", strconv.Itoa(p.port), "-U", "waybill", "-d", "postgres", "-qc", "create database waybill")
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("creating the database: %v\n%s", err, out)
	}
	return p
}

// own copies what was fetched into root's own folders, where nobody else may go.
func (p *Postgres) own(version string) string {
	p.t.Helper()
	top := filepath.Join(version, "..", "..", "..") // of a tree usr/lib/postgresql/VERSION
	if out, err := exec.Command("cp", "-a", filepath.Clean(top), filepath.Join(p.dir, "usr")).CombinedOutput(); err != nil {
		p.t.Fatalf("copying PostgreSQL: %v\n%s", err, out)
	}
	rel, err := filepath.Rel(filepath.Clean(top), version)
	if err != nil {
		p.t.Fatal(err)
	}
	return filepath.Join(p.dir, "usr", rel, "bin")
}

// DSN is where it is.
func (p *Postgres) DSN() string {
	return fmt.Sprintf("postgres://waybill@127.0.0.1:%d/waybill?sslmode=disable", p.port)
}

// Dir is its data directory, where certificates for TLS may be put before it is started again. They must be its own: see Own.
func (p *Postgres) Dir() string { return p.data() }

// Own gives a file to who runs the server.
func (p *Postgres) Own(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, nobody, nobody)
}

// Start starts it on the port that it had, and waits until it takes connections. After Kill that may take more than one try: PostgreSQL
// refuses to start while a process of its former life still ends.
func (p *Postgres) Start() {
	p.t.Helper()
	for range 50 {
		if p.tryStart() {
			return
		}
	}
	p.t.Fatalf("PostgreSQL does not start:\n%s", p.log.String())
}

func (p *Postgres) tryStart() bool {
	p.t.Helper()
	p.cmd = p.command("postgres", "-D", p.data(), "-p", strconv.Itoa(p.port))
	p.log.Reset()
	p.cmd.Stderr, p.cmd.Stdout = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done, cmd := make(chan struct{}), p.cmd
	p.done = done
	go func() {
		_ = cmd.Wait() // a killed one ends with an error
		close(done)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		ready := p.command("psql", "-h", "127.0.0.1", "-p", strconv.Itoa(p.port), "-U", "waybill", "-d", "postgres", "-qtc", "select 1")
		if ready.Run() == nil {
			return true
		}
		select {
		case <-done:
			if !bytes.Contains(p.log.Bytes(), []byte("shared memory")) {
				p.t.Fatalf("PostgreSQL ended:\n%s", p.log.String())
			}
			return false
		case <-ctx.Done():
			p.t.Fatal("PostgreSQL takes no connections after a minute")
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Kill kills it and all its processes, as a crash would.
func (p *Postgres) Kill() {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	<-p.done
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

// command runs one of its programs as a user that it accepts, in a process group of its own.
func (p *Postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return cmd
}

// script is a path under hack/.
func script(name string) string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", "hack", name)
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
