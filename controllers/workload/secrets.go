package workload

import (
	"bytes"
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// Keys of the Secret of lease keys.
const (
	LeaseKeyCurrent  = "current"
	leaseKeyNext     = "next"
	leaseKeyPrevious = "previous"
)

// LeaseKeyBytes is how long a lease key is.
const LeaseKeyBytes = 32

// LeaseKeys is the Secret that the mailboxes of a namespace seal lease tokens with. key is LeaseKeyBytes of randomness. It is created where it
// is missing and never applied: another one would end every lease.
func LeaseKeys(namespace string, key []byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: plan.LeaseKeySecret, Labels: map[string]string{"app.kubernetes.io/name": "waybill", LabelManagedBy: ManagedBy}},
		Type:       corev1.SecretTypeOpaque,
		Data:       map[string][]byte{LeaseKeyCurrent: bytes.Clone(key)},
	}
}

// RotateLeaseKeys takes one of three steps to another key and returns the Secret to be written: 1, fresh is made known to all Pods; 2, they seal
// with it; 3, the old one is forgotten. Between two steps every Pod must have had the time to see the first (some minutes), before the third
// also every lease the time to end; so no token is ever refused.
func RotateLeaseKeys(old *corev1.Secret, step int, fresh []byte) *corev1.Secret {
	next := old.DeepCopy()
	switch {
	case step == 1:
		next.Data = map[string][]byte{LeaseKeyCurrent: old.Data[LeaseKeyCurrent], leaseKeyNext: bytes.Clone(fresh)}
	case step == 2 && len(old.Data[leaseKeyNext]) > 0:
		next.Data = map[string][]byte{LeaseKeyCurrent: old.Data[leaseKeyNext], leaseKeyPrevious: old.Data[LeaseKeyCurrent]}
	default:
		next.Data = map[string][]byte{LeaseKeyCurrent: old.Data[LeaseKeyCurrent]}
	}
	return next
}

// credentialsName is the Secret that an Embedded Broker and its workers share: the one that its spec names, else one that the operator makes.
func credentialsName(b *v1alpha1.Broker) string {
	if b.Spec.SecretRef != nil {
		return b.Spec.SecretRef.Name
	}
	return plan.Resource{Kind: "Broker", Namespace: b.Namespace, Name: b.Name}.Child()
}

// BrokerCredentials is the Secret of an Embedded Broker, with a random password. Like LeaseKeys it is created where it is missing and never
// applied. nil where there is none to be made: the type is another one, or the spec names a Secret.
func BrokerCredentials(b *v1alpha1.Broker, password string) *corev1.Secret {
	if b.Spec.Type != v1alpha1.BrokerEmbedded || b.Spec.SecretRef != nil {
		return nil
	}
	r := plan.Resource{Kind: "Broker", Namespace: b.Namespace, Name: b.Name}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: b.Namespace, Name: credentialsName(b), Labels: Labels(r),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(b, v1alpha1.GroupVersion.WithKind("Broker"))},
		},
		Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{v1alpha1.SecretKeyUsername: []byte("waybill"), v1alpha1.SecretKeyPassword: []byte(password)},
	}
}

// RotateBrokerCredentials takes one of three steps to another password of an Embedded Broker and returns the Secret to be written: 1, the
// server is told to take fresh too; 2, workers use it, and the server takes the old one as well; 3, that is forgotten. Between two steps every Pod must have had the time to see the first (some minutes): so nobody is ever
// refused.
func RotateBrokerCredentials(old *corev1.Secret, step int, fresh string) *corev1.Secret {
	next := old.DeepCopy()
	if next.Data == nil {
		next.Data = map[string][]byte{}
	}
	switch {
	case step == 1:
		next.Data[plan.PreviousPasswordKey] = []byte(fresh)
	case step == 2 && len(old.Data[plan.PreviousPasswordKey]) > 0:
		next.Data[v1alpha1.SecretKeyPassword], next.Data[plan.PreviousPasswordKey] = old.Data[plan.PreviousPasswordKey], old.Data[v1alpha1.SecretKeyPassword]
	default:
		delete(next.Data, plan.PreviousPasswordKey)
	}
	return next
}

// Mirror is a Broker's Secret as the workers of another namespace find it: what they read of it. An ownerReference cannot lead to another namespace: its labels say
// whose it is (the UID, too: a Secret that a stranger labelled by hand, or one of an earlier Broker of this name, is not taken for it), and it
// is removed when no Set there needs it, or when the Broker admits the namespace no more.
func Mirror(source *corev1.Secret, m compile.Mirror, broker plan.Resource, uid types.UID) *corev1.Secret {
	data := map[string][]byte{}
	for _, k := range m.Keys {
		if v, ok := source.Data[k]; ok {
			data[k] = bytes.Clone(v)
		}
	}
	labels := map[string]string{"app.kubernetes.io/name": "waybill", LabelManagedBy: ManagedBy}
	maps.Copy(labels, MirrorLabels(broker, uid))
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: m.To.Namespace, Name: m.To.Name, Labels: labels},
		Type:       corev1.SecretTypeOpaque, // others ask for keys that are not copied
		Data:       data,
	}
}

// MirrorLabels pick the copies of a Broker's Secrets.
func MirrorLabels(broker plan.Resource, uid types.UID) map[string]string {
	return map[string]string{LabelBrokerNamespace: broker.Namespace, LabelBroker: broker.Name, LabelBrokerUID: string(uid)}
}
