package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// builder turns what was built into what is applied. The first error is kept and stops the rest.
type builder struct {
	set Set
	err error
}

func (b *builder) owned(o Owner, configs ...any) {
	for _, c := range configs {
		if u := b.object(c); u != nil {
			setLabels(u, Labels(o.Resource))
			// As plain JSON: a typed reference would bring fields along that say nothing.
			u.Object["metadata"].(map[string]any)["ownerReferences"] = []any{map[string]any{
				"apiVersion": v1alpha1.GroupVersion.String(), "kind": o.Kind, "name": o.Name, "uid": string(o.UID), "controller": true, "blockOwnerDeletion": true,
			}}
			b.set.Owned = append(b.set.Owned, b.sealed(u))
		}
	}
}

func (b *builder) kept(o Owner, configs ...any) {
	for _, c := range configs {
		if u := b.object(c); u != nil {
			setLabels(u, Labels(o.Resource))
			b.set.Kept = append(b.set.Kept, b.sealed(u))
		}
	}
}

func (b *builder) shared(configs ...any) {
	for _, c := range configs {
		if u := b.object(c); u != nil {
			setLabels(u, map[string]string{"app.kubernetes.io/name": "waybill", LabelManagedBy: ManagedBy})
			b.set.Shared = append(b.set.Shared, b.sealed(u))
		}
	}
}

// into moves the objects into set.
func (b *builder) into(set *Set) (*Set, error) {
	if b.err != nil {
		return nil, b.err
	}
	set.Owned, set.Kept, set.Shared = b.set.Owned, b.set.Kept, b.set.Shared
	return set, nil
}

// object reads an apply configuration as the API server will: only the fields that were set.
func (b *builder) object(config any) *unstructured.Unstructured {
	if b.err != nil {
		return nil
	}
	data, err := json.Marshal(config)
	u := new(unstructured.Unstructured)
	if err == nil {
		err = u.UnmarshalJSON(data)
	}
	if err != nil {
		b.err = fmt.Errorf("workload: %w", err)
		return nil
	}
	return u
}

func setLabels(u *unstructured.Unstructured, labels map[string]string) {
	all := u.GetLabels()
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, labels)
	u.SetLabels(all)
}

// Image is what the containers of a Deployment or StatefulSet run; "" for anything else.
func Image(u *unstructured.Unstructured) string {
	image, _ := container0(u)["image"].(string)
	return image
}

// Env is what of Settings.Env a Deployment was built with. One without AnnotationEnv was built with none, or before there was the annotation:
// of its variables those count that are in now, the Settings.Env of today.
func Env(u *unstructured.Unstructured, now map[string]string) map[string]string {
	env := map[string]string{}
	if text, ok := u.GetAnnotations()[AnnotationEnv]; ok {
		_ = json.Unmarshal([]byte(text), &env) // it is our own
		return env
	}
	vars, _ := container0(u)["env"].([]any)
	for _, e := range vars {
		v, _ := e.(map[string]any)
		name, _ := v["name"].(string)
		if _, ok := now[name]; ok && v["valueFrom"] == nil {
			env[name], _ = v["value"].(string) // "" is left out
		}
	}
	return env
}

// container0 is the first container; nil where there is none.
func container0(u *unstructured.Unstructured) map[string]any {
	at := u.Object
	for _, field := range []string{"spec", "template", "spec"} {
		at, _ = at[field].(map[string]any)
	}
	if list, _ := at["containers"].([]any); len(list) > 0 {
		at, _ = list[0].(map[string]any)
		return at
	}
	return nil
}

// sealed notes on the object what was applied. Being contained in the live object does not tell that a field was removed; this does.
func (b *builder) sealed(u *unstructured.Unstructured) *unstructured.Unstructured {
	data, err := json.Marshal(u.Object) // of maps: sorted
	if err != nil {
		b.err = fmt.Errorf("workload: %w", err)
		return u
	}
	sum := sha256.Sum256(data)
	annotations := u.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[AnnotationApplied] = hex.EncodeToString(sum[:])[:16]
	u.SetAnnotations(annotations)
	return u
}
