package envtest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/manifest"
)

// ruleTexts are what the CRDs' CEL rules say: of those about one object, and of those about a change.
func ruleTexts() (always, changes map[string]bool) {
	GinkgoHelper()
	always, changes = map[string]bool{}, map[string]bool{}
	files, err := filepath.Glob(filepath.Join(root, "config", "crd", "bases", "*.yaml"))
	Expect(err).NotTo(HaveOccurred())
	var walk func(any)
	walk = func(node any) {
		switch n := node.(type) {
		case map[string]any:
			rules, _ := n["x-kubernetes-validations"].([]any)
			for _, r := range rules {
				rule, _ := r.(map[string]any)
				text, _ := rule["message"].(string)
				if strings.Contains(fmt.Sprint(rule["rule"]), "oldSelf") {
					changes[text] = true
				} else {
					always[text] = true
				}
			}
			for _, v := range n {
				walk(v)
			}
		case []any:
			for _, v := range n {
				walk(v)
			}
		}
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		var crd map[string]any
		Expect(yaml.Unmarshal(text, &crd)).To(Succeed())
		walk(crd)
	}
	return always, changes
}

// documents are the objects of a file.
func documents(file string) []*unstructured.Unstructured {
	GinkgoHelper()
	text, err := os.ReadFile(file)
	Expect(err).NotTo(HaveOccurred())
	var out []*unstructured.Unstructured
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		u := new(unstructured.Unstructured)
		if yaml.Unmarshal(doc, &u.Object) == nil && u.GetKind() != "" {
			out = append(out, u)
		}
	}
	return out
}

// told is what the command line says of an object.
func told(u *unstructured.Unstructured) string {
	GinkgoHelper()
	text, err := yaml.Marshal(u.Object)
	Expect(err).NotTo(HaveOccurred())
	_, faults, err := manifest.Read([]string{"-"}, manifest.Options{Stdin: bytes.NewReader(text)})
	Expect(err).NotTo(HaveOccurred())
	var words []string
	for _, f := range faults {
		words = append(words, f.Message)
	}
	return strings.Join(words, "\n")
}

// causes are the faults of a refusal; none where it is of another kind.
func causes(err error) []metav1.StatusCause {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	return status.Status().Details.Causes
}

var pathPart = regexp.MustCompile(`[^.\[\]]+`)

// without removes the field at a path such as spec.steps[2].name, and reports whether there was one.
func without(node any, path []string) bool {
	last := len(path) == 1
	switch n := node.(type) {
	case map[string]any:
		v, ok := n[path[0]]
		if !ok {
			return false
		}
		if last {
			delete(n, path[0])
			return true
		}
		return without(v, path[1:])
	case []any:
		i, err := strconv.Atoi(path[0])
		return err == nil && i < len(n) && !last && without(n[i], path[1:])
	}
	return false
}

var _ = Describe("What the API server refuses", func() {
	// It looks at rules only when the schema has no fault to find; so what it finds by the schema is taken away first, a fault at a time.
	It("it refuses in the command line's words, each rule of the CRDs", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		always, changes := ruleTexts()
		shown := map[string]bool{}
		files, err := filepath.Glob(filepath.Join(root, "runtime", "manifest", "testdata", "wrong", "*.yaml"))
		Expect(err).NotTo(HaveOccurred())
		refused := 0
		for _, file := range files {
			for _, u := range documents(file) {
				who := u.GetKind() + "/" + u.GetName()
				u.SetNamespace(namespace)
				words := told(u)
				if words == "" || u.GetName() == "" || u.GroupVersionKind().Group != v1alpha1.GroupVersion.Group {
					continue
				}
				strict := k8s.Create(ctx, u.DeepCopy(), client.DryRunAll, client.FieldValidation("Strict"))
				if apierrors.IsNotFound(strict) {
					continue // a kind that there is not
				}
				Expect(strict).To(HaveOccurred(), "%s of %s: the command line says %q, and the API server takes it", who, file, words)
				refused++
				for range 20 {
					err := k8s.Create(ctx, u.DeepCopy(), client.DryRunAll)
					if err == nil {
						break
					}
					words, repaired := told(u), false
					for _, cause := range causes(err) {
						text, isRule := ruleOf(cause.Message, always)
						switch {
						case isRule:
							// The command line leaves a rule out where it has told of the very field already.
							shown[text] = shown[text] || strings.Contains(words, strings.TrimPrefix(text, "metadata.name "))
						default:
							repaired = without(u.Object, pathPart.FindAllString(cause.Field, -1)) || repaired
						}
					}
					if !repaired {
						break
					}
				}
			}
		}
		for _, c := range ruledOut {
			before := parse(namespace, c.before)
			if c.after != "" {
				Expect(k8s.Create(ctx, before)).To(Succeed(), c.before)
				after := parse(namespace, c.after)
				Eventually(func(g Gomega) { // the operator writes to it too
					g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(before), before)).To(Succeed())
					after.SetResourceVersion(before.GetResourceVersion())
					err = k8s.Update(ctx, after, client.DryRunAll)
					g.Expect(apierrors.IsConflict(err)).To(BeFalse())
				}).WithContext(ctx).Should(Succeed())
				before = after
			} else {
				Expect(told(before)).To(ContainSubstring(c.want), c.before)
				err = k8s.Create(ctx, before, client.DryRunAll)
			}
			Expect(err).To(MatchError(ContainSubstring(c.want)), "%s → %s", c.before, c.after)
			for _, cause := range causes(err) {
				for _, texts := range []map[string]bool{always, changes} {
					if text, ok := ruleOf(cause.Message, texts); ok {
						shown[text] = true
					}
				}
			}
		}
		maps.Copy(always, changes)
		maps.DeleteFunc(always, func(text string, _ bool) bool { return shown[text] })
		Expect(slices.Sorted(maps.Keys(always))).To(BeEmpty(), "rules that were not shown at work")
		AddReportEntry("refusals", fmt.Sprintf("%d objects, %d rules", refused, len(shown)))
	}, NodeTimeout(2*patience))
})

func ruleOf(message string, texts map[string]bool) (string, bool) {
	for text := range texts {
		if strings.HasSuffix(message, text) {
			return text, true
		}
	}
	return "", false
}

func parse(namespace, text string) *unstructured.Unstructured {
	GinkgoHelper()
	u := new(unstructured.Unstructured)
	Expect(yaml.Unmarshal([]byte(text), &u.Object)).To(Succeed())
	u.SetAPIVersion(v1alpha1.GroupVersion.String())
	u.SetNamespace(namespace)
	return u
}

// ruledOut are changes that a rule refuses, and what no file of wrong manifests comes to once its faults by the schema are taken away.
var ruledOut = []struct{ before, after, want string }{
	{"{kind: Topic, metadata: {name: a}, spec: {brokerRef: {name: main}, partitions: 4}}",
		"{kind: Topic, metadata: {name: a}, spec: {brokerRef: {name: main}, partitions: 3}}", "partitions can only be raised"},
	{"{kind: Topic, metadata: {name: b}, spec: {brokerRef: {name: main}}}",
		"{kind: Topic, metadata: {name: b}, spec: {brokerRef: {name: other}}}", "brokerRef cannot be changed"},
	{"{kind: Topic, metadata: {name: c}, spec: {brokerRef: {name: main}}}",
		"{kind: Topic, metadata: {name: c}, spec: {brokerRef: {name: main}, externalName: x}}", "externalName cannot be changed"},
	{"{kind: Mailbox, metadata: {name: a}, spec: {brokerRef: {name: main}}}",
		"{kind: Mailbox, metadata: {name: a}, spec: {brokerRef: {name: other}}}", "brokerRef cannot be changed"},
	{"{kind: Mailbox, metadata: {name: b}, spec: {brokerRef: {name: main}}}",
		"{kind: Mailbox, metadata: {name: b}, spec: {brokerRef: {name: main}, ordering: Strict}}", "ordering cannot be changed"},
	{"{kind: Subscription, metadata: {name: a}, spec: {topicRef: {name: orders}, deliverTo: {uri: 'http://a/'}}}",
		"{kind: Subscription, metadata: {name: a}, spec: {topicRef: {name: others}, deliverTo: {uri: 'http://a/'}}}", "topicRef cannot be changed"},
	{"{kind: Pipeline, metadata: {name: a}, spec: {from: {topicRef: {name: orders}}, to: {topicRef: {name: c}}}}",
		"{kind: Pipeline, metadata: {name: a}, spec: {from: {mailboxRef: {name: orders}}, to: {topicRef: {name: c}}}}", "from cannot be changed"},
	{"{kind: Broker, metadata: {name: a}, spec: {type: Embedded}}",
		"{kind: Broker, metadata: {name: a}, spec: {type: Embedded, prefix: a}}", "prefix cannot be changed"},

	{"{kind: Endpoint, metadata: {name: a}, spec: {pattern: RequestAck, path: orders, to: {topicRef: {name: orders}}}}",
		"", "must be a path that starts with '/'"},
	{"{kind: Subscription, metadata: {name: b}, spec: {topicRef: {name: orders}, deliverTo: {uri: 'http://a/'}, timeout: 2h}}",
		"", "must be a duration from 1ms to 1h"},
	{"{kind: Subscription, metadata: {name: c}, spec: {topicRef: {name: orders}, deliverTo: {uri: 'http://a/'}, ackWait: 13h}}",
		"", "must be a duration from 1s to 12h"},
	{"{kind: Subscription, metadata: {name: d}, spec: {topicRef: {name: orders}, deliverTo: {uri: 'http://a/'}, retry: {backOff: {initial: 10s, max: 1s}}}}",
		"", "initial must not be longer than max"},
	{"{kind: Pipeline, metadata: {name: b}, spec: {from: {topicRef: {name: a}}, steps: [{name: once, dedupe: {key: {cel: id}, window: 25h}}], to: {topicRef: {name: c}}}}",
		"", "must be a duration from 1ms to 24h"},
	{"{kind: Pipeline, metadata: {name: c}, spec: {from: {topicRef: {name: a}}, steps: [{name: Big, filter: {cel: 'true'}}], to: {topicRef: {name: c}}}}",
		"", "must be lower case letters, digits and '-', begin with a letter and not end with '-', such as big-orders"},
	{"{kind: Pipeline, metadata: {name: d}, spec: {from: {topicRef: {name: a}}, steps: [{name: two, filter: {cel: 'true'}, split: {cel: data}}], to: {topicRef: {name: c}}}}",
		"", "exactly one of filter, transform, split, dedupe, http and container must be set beside name"},
	{"{kind: Pipeline, metadata: {name: e}, spec: {from: {topicRef: {name: a}}, to: {postgres: {dsnSecretRef: {name: db}, table: a.b.c, columns: {id: {cel: id}}}}}}",
		"", "must be TABLE or SCHEMA.TABLE"},
	{"{kind: Poller, metadata: {name: a}, spec: {schedule: {every: 1m}, http: {url: 'http://a/'}, to: {topicRef: {name: c}}, deletionPolicy: DeleteIfEmpty}}",
		"", "a checkpoint is never empty: use Retain or Delete"},
	{"{kind: Poller, metadata: {name: b}, spec: {schedule: {every: 1m}, sql: {driver: Postgres, dsnSecretRef: {name: db}, query: 'select :cursor_1, :cursor_2', cursor: {columns: [at, id], start: ['0']}}, to: {topicRef: {name: c}}}}",
		"", "start must have as many values as columns has names"},
}
