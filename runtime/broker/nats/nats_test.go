package nats_test

import (
	"context"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/brokertest"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
)

// abilities are what NATS JetStream can do.
var abilities = brokertest.Abilities{
	Inbox: true, Settler: true, Dedup: true, Full: true, Replay: true, Expire: true, Live: true, Fenced: true, Transfer: true,
	Settling: func(k driver.Kind, o driver.Ordering) driver.Settling {
		if o == driver.Key || o == driver.Strict && k != driver.Queue {
			return driver.Positional
		}
		return driver.PerMessage
	},
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func startEmbedded(t testing.TB, cfg nats.EmbeddedConfig) *nats.Embedded {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	e, err := nats.StartEmbedded(within(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Shutdown(within(t)); err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestConformanceEmbedded(t *testing.T) {
	t.Parallel() // much of the suite is waiting
	e := startEmbedded(t, nats.EmbeddedConfig{})
	brokertest.Run(t, brokertest.Harness{
		Open:    e.Open,
		AckWait: time.Second,
		Can:     abilities,
		Stop:    func(*testing.T) { e.Stop() },
		Start: func(t *testing.T) {
			if err := e.Start(); err != nil {
				t.Fatal(err)
			}
		},
	})
}

// External is a plain nats-server in a process of its own; stopping it is kill -9.
func TestConformanceExternal(t *testing.T) {
	t.Parallel()
	p := startProcess(t, serverConfig{})
	brokertest.Run(t, brokertest.Harness{
		Open:    nats.Open,
		Config:  driver.Config{Addresses: []string{p.addr}},
		AckWait: time.Second,
		Can:     abilities,
		Stop:    func(t *testing.T) { p.stop(t) },
		Start:   func(t *testing.T) { p.start(t) },
		Reader:  reader,
	})
}
