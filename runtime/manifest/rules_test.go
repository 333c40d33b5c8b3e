package manifest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// Every rule of the CRDs says no to something in testdata/wrong, but those about changes, which TestChanges shows.
func TestEveryRuleIsShown(t *testing.T) {
	var shown strings.Builder
	files, err := filepath.Glob("testdata/wrong/*.golden")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		shown.Write(data)
	}
	for kind, load := range schemas {
		r, err := load()
		if err != nil {
			t.Fatal(err)
		}
		for message, rules := range r.texts {
			if message == "" {
				t.Errorf("%s: a rule without a message: %s", kind, rules[0])
			}
			if !strings.Contains(rules[0], "oldSelf") && !strings.Contains(shown.String(), strings.TrimPrefix(message, "metadata.name ")) {
				t.Errorf("%s: no file under testdata/wrong breaks the rule %q", kind, message)
			}
		}
	}
}

// What may not be changed is refused when it is, and the rest is not.
func TestChanges(t *testing.T) {
	const (
		topic        = "brokerRef: {name: main}"
		mailbox      = "brokerRef: {name: main}"
		subscription = "topicRef: {name: orders}\ndeliverTo: {uri: http://a/}"
		pipeline     = "from: {topicRef: {name: orders}}\nto: {topicRef: {name: enriched}}"
		broker       = "type: Embedded"
	)
	for _, c := range []struct{ kind, before, after, want string }{
		{"Topic", topic, "brokerRef: {name: other}", "brokerRef cannot be changed"},
		{"Topic", topic, "brokerRef: {name: main, namespace: shared}", "brokerRef cannot be changed"},
		{"Topic", topic + "\npartitions: 4", topic + "\npartitions: 3", "partitions can only be raised"},
		{"Topic", topic + "\npartitions: 3", topic + "\npartitions: 4", ""},
		{"Topic", topic, topic + "\nexternalName: a", "externalName cannot be changed"},
		{"Topic", topic + "\nexternalName: a", topic, "externalName cannot be changed"},
		{"Topic", topic + "\nexternalName: a", topic + "\nexternalName: b", "externalName cannot be changed"},
		{"Topic", topic + "\nexternalName: a", topic + "\nexternalName: a\nretention: {maxAge: 1h}", ""},
		{"Topic", topic, topic + "\ndeletionPolicy: Delete", ""},
		{"Mailbox", mailbox, "brokerRef: {name: other}", "brokerRef cannot be changed"},
		{"Mailbox", mailbox + "\nordering: Strict", mailbox + "\nordering: None", "ordering cannot be changed"},
		{"Mailbox", mailbox, mailbox + "\nordering: Strict", "ordering cannot be changed"},
		{"Mailbox", mailbox, mailbox + "\nexternalName: a", "externalName cannot be changed"},
		{"Mailbox", mailbox, mailbox + "\ndeliverTo: {uri: http://a/}", ""},
		{"Subscription", subscription, strings.Replace(subscription, "orders", "others", 1), "topicRef cannot be changed"},
		{"Subscription", subscription, subscription + "\nexternalName: a", "externalName cannot be changed"},
		{"Subscription", subscription, subscription + "\nordering: Key", ""},
		{"Pipeline", pipeline, strings.Replace(pipeline, "orders", "others", 1), "from cannot be changed"},
		{"Pipeline", pipeline, strings.Replace(pipeline, "topicRef: {name: orders", "mailboxRef: {name: orders", 1), "from cannot be changed"},
		{"Pipeline", pipeline, pipeline + "\nexternalName: a", "externalName cannot be changed"},
		{"Pipeline", pipeline, strings.Replace(pipeline, "enriched", "others", 1), ""},
		{"Broker", broker, broker + "\nprefix: a", "prefix cannot be changed"},
		{"Broker", broker, broker + "\nembedded: {storage: 2Gi}", ""},
	} {
		r, err := schemas[c.kind]()
		if err != nil {
			t.Fatal(err)
		}
		object := func(spec string) map[string]any {
			roots, fault := decodeYAML([]byte(spec))
			if fault != nil {
				t.Fatal(fault.message)
			}
			s, _ := value(roots[0])
			return map[string]any{"apiVersion": apiVersion, "kind": c.kind, "metadata": map[string]any{"name": "x"}, "spec": s}
		}
		errs, _ := cel.NewValidator(r.bare, true, celconfig.PerCallLimit).Validate(context.Background(), nil, r.bare, object(c.after), object(c.before), celconfig.RuntimeCELCostBudget)
		switch {
		case c.want == "" && len(errs) > 0:
			t.Errorf("%s: %s\n→ %s\nrefused: %v", c.kind, c.before, c.after, errs)
		case c.want != "" && (len(errs) != 1 || !strings.HasPrefix(errs[0].Detail, c.want)):
			t.Errorf("%s: %s\n→ %s\ngot %v, want %s", c.kind, c.before, c.after, errs, c.want)
		}
	}
}
