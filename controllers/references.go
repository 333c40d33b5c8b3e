package controllers

import (
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
)

var (
	secretReference    = reflect.TypeFor[v1alpha1.SecretReference]()
	secretKeyReference = reflect.TypeFor[v1alpha1.SecretKeyReference]()
)

// secretsOf names the Secrets that an object refers to, wherever in its spec: a new field with a reference needs no line here. An Embedded
// Broker has one without saying so.
func secretsOf(o client.Object) []types.NamespacedName {
	var names []string
	collect(reflect.ValueOf(o).Elem().FieldByName("Spec"), &names)
	if b, ok := o.(*v1alpha1.Broker); ok {
		if made := workload.BrokerCredentials(b, ""); made != nil {
			names = append(names, made.Name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	out := make([]types.NamespacedName, len(names))
	for i, n := range names {
		out[i] = types.NamespacedName{Namespace: o.GetNamespace(), Name: n}
	}
	return out
}

func collect(v reflect.Value, names *[]string) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			collect(v.Elem(), names)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return
		}
		for i := range v.Len() {
			collect(v.Index(i), names)
		}
	case reflect.Struct:
		if t := v.Type(); t == secretReference || t == secretKeyReference {
			*names = append(*names, v.FieldByName("Name").String())
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				collect(v.Field(i), names)
			}
		}
	}
}
