package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/manifest"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

const product = "waybill"

// quiet is the product's log during a measurement: errors only.
var quiet = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))

// plans compiles a manifest as the command line would. SERVER in it is server, and main is a Broker at url. None of none.
func plans(text, url, server string) ([]*plan.Plan, error) {
	if text == "" {
		return nil, nil
	}
	var b strings.Builder
	text = fmt.Sprintf("kind: Broker\nmetadata: {name: main, namespace: default}\nspec: {type: NATS, nats: {servers: ['%s']}}\n---", url) +
		strings.ReplaceAll(text, "SERVER", server)
	for d := range strings.SplitSeq(text, "---") {
		fmt.Fprintf(&b, "---\napiVersion: waybill.dev/v1alpha1\n%s\n", strings.TrimSpace(d))
	}
	set, faults, err := manifest.Read([]string{"-"}, manifest.Options{Stdin: strings.NewReader(b.String())})
	if err != nil {
		return nil, err
	}
	if len(faults) > 0 {
		return nil, errors.New(faults[0].Field + ": " + faults[0].Message)
	}
	result := compile.Compile(compile.Input{Brokers: set.Brokers, Topics: set.Topics, Subscriptions: set.Subscriptions, Mailboxes: set.Mailboxes,
		Pollers: set.Pollers, Endpoints: set.Endpoints, Pipelines: set.Pipelines})
	if len(result.Diagnostics) > 0 {
		return nil, errors.New(result.Diagnostics[0].Field + ": " + result.Diagnostics[0].Message)
	}
	return result.Plans(), nil
}

func newEngine(dir string) *engine.Engine {
	secrets := new(secret.Memory)
	key := make([]byte, 32)
	return engine.New(engine.Host{
		Drivers: map[string]driver.Open{"NATS": nats.Open},
		Secrets: secrets,
		Checkpoint: func(r plan.Resource) (checkpoint.Store, error) {
			return checkpoint.File(filepath.Join(dir, r.Name+".json")), nil
		},
		Base:       plan.Resource.Path,
		LeaseKeys:  func() ([][]byte, error) { return [][]byte{key}, nil },
		Outbound:   outbound.New(outbound.Config{Secrets: secrets}),
		Administer: true,
		Log:        quiet,
	})
}

func drain(e *engine.Engine) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	e.Drain(ctx, func(context.Context) {})
}

// ensure makes the broker objects of resources, which all contenders use.
func ensure(ctx context.Context, url, text string) error {
	ps, err := plans(text, url, "")
	if err != nil {
		return err
	}
	e := newEngine("")
	defer drain(e)
	e.Start(ctx, ps)
	return e.Ready()
}

// runs is the product with a manifest. It is done when the resource of that kind has handled all messages; without a kind, when it is told.
func runs(manifest, kind string) contender {
	return contender{name: product, manifest: manifest, work: func(ctx context.Context, w *worker) error {
		dir, err := os.MkdirTemp("", "bench-")
		if err != nil {
			return err
		}
		defer remove(dir)
		e := newEngine(dir)
		defer drain(e)
		if kind != "" {
			w.ready("")
			if err := w.begin(ctx); err != nil {
				return err
			}
			e.Start(ctx, w.Plans)
			if err := handled(ctx, e, kind, uint64(w.Messages)); err != nil {
				return err
			}
			return w.finish(ctx)
		}
		e.Start(ctx, w.Plans)
		if err := e.Ready(); err != nil {
			return err
		}
		return serve(ctx, w, e.Gateways())
	}}
}

func handled(ctx context.Context, e *engine.Engine, kind string, messages uint64) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, s := range e.Status() {
			if s.Kind == kind && s.Counts.Out+s.Counts.Dropped >= messages && s.Counts.Held == 0 {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %+v", ctx.Err(), e.Status())
		}
	}
}
