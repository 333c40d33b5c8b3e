package compile

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// decode reads a test's documents: resources, Secrets, Namespaces, and "kind: Options" for what the host says.
func decode(data []byte) (Input, error) {
	var in Input
	for doc := range bytes.SplitSeq(data, []byte("\n---\n")) {
		var head struct {
			Kind     string `json:"kind"`
			Metadata struct {
				Name      string            `json:"name"`
				Namespace string            `json:"namespace"`
				Labels    map[string]string `json:"labels"`
			} `json:"metadata"`
			Data       map[string]string `json:"data"`
			StringData map[string]string `json:"stringData"`
			Unprobed   string            `json:"unprobed"`
			Refused    []plan.Resource   `json:"refused"`
		}
		if err := yaml.Unmarshal(doc, &head); err != nil {
			return in, err
		}
		var err error
		switch head.Kind {
		case "":
			continue
		case "Broker":
			err = add(&in.Brokers, doc)
		case "Topic":
			err = add(&in.Topics, doc)
		case "Subscription":
			err = add(&in.Subscriptions, doc)
		case "Mailbox":
			err = add(&in.Mailboxes, doc)
		case "Poller":
			err = add(&in.Pollers, doc)
		case "Endpoint":
			err = add(&in.Endpoints, doc)
		case "Pipeline":
			err = add(&in.Pipelines, doc)
		case "Secret":
			if in.Secrets == nil {
				in.Secrets, in.Flaws = map[types.NamespacedName][]string{}, map[types.NamespacedName]map[string]secret.Flaw{}
			}
			keys := slices.Collect(maps.Keys(head.Data))
			keys = slices.AppendSeq(keys, maps.Keys(head.StringData))
			name := types.NamespacedName{Namespace: orDefault(head.Metadata.Namespace), Name: head.Metadata.Name}
			values := map[string][]byte{}
			for k, v := range head.StringData {
				values[k] = []byte(v)
			}
			in.Secrets[name], in.Flaws[name] = keys, secret.FlawsOf(values)
		case "Namespace":
			if in.Namespaces == nil {
				in.Namespaces = map[string]map[string]string{}
			}
			in.Namespaces[head.Metadata.Name] = head.Metadata.Labels
		case "Options":
			in.Refused = append(in.Refused, head.Refused...)
			if head.Unprobed == "WaitForBroker" {
				in.Unprobed = WaitForBroker
			}
		default:
			err = fmt.Errorf("unknown kind %q", head.Kind)
		}
		if err != nil {
			return in, err
		}
	}
	return in, nil
}

func orDefault(namespace string) string { return or(namespace, "default") }

func add[T any, P object[T]](to *[]P, doc []byte) error {
	o := P(new(T))
	if err := yaml.UnmarshalStrict(doc, o); err != nil {
		return fmt.Errorf("%w in\n%s", err, doc)
	}
	o.SetNamespace(orDefault(o.GetNamespace()))
	*to = append(*to, o)
	return nil
}
