package nats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/pprof"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// EmbeddedConfig says how the server inside this process keeps its data.
type EmbeddedConfig struct {
	// Dir holds the data. It belongs to one server at a time; whoever starts two on one folder loses data, so the caller locks it.
	Dir string
	// MaxPayload is the limit on one message in bytes, headers included; 0: 1 MiB.
	MaxPayload int
	// MaxStore bounds what is kept on disk, in bytes; 0: the server's default, a share of the disk.
	MaxStore int64
	// Listen is an address (host:port, port 0 for any) that other processes can reach the server at; "": none, and no socket is opened.
	Listen string
	// Username and Password are asked of those who come by Listen; "": nobody is asked.
	Username, Password string
	// Authenticate, where it is set, decides in their place whether a user name and a password are right. It is asked at each connection, so
	// the right ones may change.
	Authenticate func(username, password string) bool
	// Logger gets the server's warnings and errors; nil drops them.
	Logger *slog.Logger
}

// Embedded is a NATS JetStream server inside this process. What it has confirmed is on disk: it syncs before it answers, and the driver
// publishes in atomic batches so that a batch shares its syncs.
type Embedded struct {
	server atomic.Pointer[server.Server]
	config EmbeddedConfig
	healer *healer
}

// StartEmbedded starts a server and returns when it takes connections.
func StartEmbedded(ctx context.Context, cfg EmbeddedConfig) (*Embedded, error) {
	if cfg.Dir == "" {
		return nil, errors.New("embedded NATS: no folder to keep the data in was given")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded NATS: the folder for its data cannot be made: %w", err)
	}
	e := &Embedded{config: cfg}
	e.healer = startHealer(e)
	if err := e.start(); err != nil {
		e.healer.close()
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		e.healer.close()
		e.stop()
		return nil, err
	}
	return e, nil
}

func (e *Embedded) start() error {
	cfg := e.config
	opts := &server.Options{
		ServerName:             "waybill-embedded",
		JetStream:              true,
		StoreDir:               cfg.Dir,
		SyncAlways:             true,
		JetStreamMaxStore:      cfg.MaxStore,
		DisableJetStreamBanner: true,
		DontListen:             true,
		NoSigs:                 true,
		NoLog:                  true,
		MaxPayload:             int32(cfg.MaxPayload),
		Username:               cfg.Username,
		Password:               cfg.Password,
	}
	if cfg.Authenticate != nil {
		opts.CustomClientAuthentication = authenticate(cfg.Authenticate)
	}
	if cfg.Listen != "" {
		host, port, err := net.SplitHostPort(cfg.Listen)
		if err != nil {
			return fmt.Errorf("embedded NATS: listen address %q is not host:port: %w", cfg.Listen, err)
		}
		if opts.Port, err = strconv.Atoi(port); err != nil {
			return fmt.Errorf("embedded NATS: port of listen address %q is not a number", cfg.Listen)
		}
		if opts.Port == 0 {
			opts.Port = server.RANDOM_PORT
		}
		opts.Host, opts.DontListen = host, false
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("embedded NATS: %w", err)
	}
	log := &serverLog{to: cfg.Logger, sick: e.healer.told}
	s.SetLoggerV2(log, false, false, false)
	s.Start() // returns once JetStream has recovered its data and the listener, if any, is open
	e.server.Store(s)
	if !s.JetStreamEnabled() || cfg.Listen != "" && s.Addr() == nil {
		e.stop()
		return fmt.Errorf("embedded NATS: the server did not start: %s", log.fatalText())
	}
	if cfg.Listen != "" {
		e.config.Listen = s.Addr().String() // which the next start keeps
	}
	return nil
}

// authenticate makes a function what the server asks.
type authenticate func(username, password string) bool

func (a authenticate) Check(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	return a(o.Username, o.Password)
}

// restart gives the connections that come from now on another server on the same data.
func (e *Embedded) restart() error {
	e.stop()
	return e.start()
}

func (e *Embedded) stop() {
	s := e.server.Load()
	awaitConsumerWrites() // lest it end after what the shutdown writes itself
	s.Shutdown()
	s.WaitForShutdown()
	awaitConsumerWrites()
}

// consumerWriteTimeout bounds the wait for a disk that has gone.
const consumerWriteTimeout = 5 * time.Second

// awaitConsumerWrites returns when no consumer's state is being written any more. A server that is shut down waits for that a tenth of a
// second only (consumerFileStore.Stop of nats-server 2.15.3) and tells nobody; should the process end first, what was settled is delivered
// again, and what was handed back stays out for its whole ack wait.
func awaitConsumerWrites() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(consumerWriteTimeout); writingConsumers() && time.Now().Before(end); {
		<-tick.C
	}
}

// writingConsumers looks at what goroutines do, for the server does not say.
func writingConsumers() bool {
	var stacks bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1) // into memory
	return bytes.Contains(stacks.Bytes(), []byte(".(*consumerFileStore).writeState"))
}

// InProcessConn opens one connection within the process; it makes Embedded what nats.go dials.
func (e *Embedded) InProcessConn() (net.Conn, error) { return e.server.Load().InProcessConn() }

// Open connects within the process. It is a driver.Open; addresses and TLS of the configuration are not used.
func (e *Embedded) Open(ctx context.Context, cfg driver.Config) (driver.Conn, error) {
	if cfg.Username == "" && cfg.Token == "" && len(cfg.Credentials) == 0 {
		cfg.Username, cfg.Password = e.config.Username, e.config.Password
	}
	cfg.TLS = nil
	return open(ctx, cfg, e)
}

// Addr is where Listen ended up, "nats://host:port"; "" without Listen.
func (e *Embedded) Addr() string {
	if e.config.Listen == "" {
		return ""
	}
	return "nats://" + e.server.Load().Addr().String()
}

// Shutdown stops the server and returns when its files are closed, or when ctx ends.
func (e *Embedded) Shutdown(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		e.healer.close()
		e.stop()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("embedded NATS: still shutting down: %w", ctx.Err())
	}
}
