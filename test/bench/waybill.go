package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

const pipeline = `
metadata: {name: bench, namespace: default}
spec:
  from: {topicRef: {name: in}}
  startFrom: {position: Earliest}
  ordering: Key
  steps:
  - name: big
    filter: {cel: 'data.type == "order.created" && data.total > 100'}
  - name: shape
    transform: {cel: '{"id": data.id, "customer": data.customer, "total": data.total, "units": data.lines.map(l, l.qty).sum()}'}
  to: {topicRef: {name: out}}
`

// plans compiles the topics and, where wanted, the pipeline, as the command line would.
func plans(url string, withPipeline bool) ([]*plan.Plan, error) {
	broker, topicIn, topicOut, pipe := new(v1alpha1.Broker), new(v1alpha1.Topic), new(v1alpha1.Topic), new(v1alpha1.Pipeline)
	for text, into := range map[string]any{
		fmt.Sprintf("metadata: {name: main, namespace: default}\nspec: {type: NATS, nats: {servers: ['%s']}}", url): broker,
		"metadata: {name: in, namespace: default}\nspec: {brokerRef: {name: main}}":                                 topicIn,
		"metadata: {name: out, namespace: default}\nspec: {brokerRef: {name: main}}":                                topicOut,
		pipeline: pipe,
	} {
		if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
			return nil, err
		}
	}
	input := compile.Input{Brokers: []*v1alpha1.Broker{broker}, Topics: []*v1alpha1.Topic{topicIn, topicOut}}
	if withPipeline {
		input.Pipelines = []*v1alpha1.Pipeline{pipe}
	}
	result := compile.Compile(input)
	for _, d := range result.Diagnostics {
		return nil, errors.New(d.Field + ": " + d.Message)
	}
	return result.Plans(), nil
}

func newEngine() *engine.Engine {
	secrets := new(secret.Memory)
	return engine.New(engine.Host{
		Drivers:    map[string]driver.Open{"NATS": nats.Open},
		Secrets:    secrets,
		Base:       plan.Resource.Path,
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

// makeTopics makes the streams that all contenders use.
func makeTopics(ctx context.Context, url string) error {
	ps, err := plans(url, false)
	if err != nil {
		return err
	}
	e := newEngine()
	defer drain(e)
	e.Start(ctx, ps)
	return e.Ready()
}

// waybill is the product: the pipeline from its YAML, until every input is settled.
func waybill(ctx context.Context, url string, messages, _ int) error {
	ps, err := plans(url, true)
	if err != nil {
		return err
	}
	e := newEngine()
	defer drain(e)
	e.Start(ctx, ps)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, s := range e.Status() {
			if s.Kind == "Pipeline" && s.Counts.Out+s.Counts.Dropped >= uint64(messages) && s.Counts.Held == 0 {
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
