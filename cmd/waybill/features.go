package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
)

const featuresHelp = `NAME=FILE: what a probe found of the Broker NAME, in the form of its status.features; may be repeated`

// What a file of --features may hold.
var (
	featureFields   = []string{"product", "flags", "maxMessageBytes"}
	featureProducts = []string{"NATS", "Kafka", "Redpanda", "RabbitMQ", "SQS"}
	featureFlags    = []string{compile.FeatureAtomicBatch, compile.FeatureTransactions, compile.FeatureSNS}
)

// readFeatures reads the files of --features, which are about brokers of the files of -f.
func readFeatures(flags []string, brokers []*v1alpha1.Broker) (map[types.NamespacedName]v1alpha1.BrokerFeatures, error) {
	var declared []string
	for _, b := range brokers {
		declared = append(declared, b.Namespace+"/"+b.Name)
	}
	found := map[types.NamespacedName]v1alpha1.BrokerFeatures{}
	for _, f := range flags {
		name, file, ok := strings.Cut(f, "=")
		if !ok || name == "" || file == "" {
			return nil, fmt.Errorf("--features %s: want NAME=FILE or NAMESPACE/NAME=FILE", f)
		}
		key := brokerKey(name)
		switch _, twice := found[key]; {
		case !slices.Contains(declared, key.String()):
			return nil, fmt.Errorf("--features %s: the files declare no Broker %s%s", name, key, meant(key.String(), declared))
		case twice:
			return nil, fmt.Errorf("--features %s is given twice: keep one", name)
		}
		features, err := featuresOf(file)
		if err != nil {
			return nil, fmt.Errorf("--features %s: %w", name, err)
		}
		found[key] = features
	}
	return found, nil
}

func featuresOf(file string) (features v1alpha1.BrokerFeatures, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err
		}
		return features, fmt.Errorf("cannot read %s: %w", file, err)
	}
	var fields map[string]any
	if yaml.Unmarshal(data, &fields) != nil || len(fields) == 0 {
		return features, fmt.Errorf("%s: want a mapping of %s, as in the Broker's status.features", file, strings.Join(featureFields, ", "))
	}
	for field := range fields {
		if !slices.Contains(featureFields, field) {
			return features, fmt.Errorf("%s: there is no field %q%s", file, field, meant(field, featureFields))
		}
	}
	if err := yaml.UnmarshalStrict(data, &features); err != nil {
		return features, fmt.Errorf("%s: product is text, flags is a list of texts, maxMessageBytes is a number", file)
	}
	if p := features.Product; p != "" && !slices.Contains(featureProducts, p) {
		return features, fmt.Errorf("%s: there is no product %q%s", file, p, meant(p, featureProducts))
	}
	for _, flag := range features.Flags {
		if !slices.Contains(featureFlags, flag) {
			return features, fmt.Errorf("%s: there is no flag %q%s", file, flag, meant(flag, featureFlags))
		}
	}
	if features.MaxMessageBytes < 0 {
		return features, fmt.Errorf("%s: maxMessageBytes is %d and must be 1 or more", file, features.MaxMessageBytes)
	}
	return features, nil
}
