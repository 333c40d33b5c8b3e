package workload

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// mounted is one Secret in the volume. Each key becomes the file NAME/KEY, so that Secrets stay apart and follow every change: what is mounted
// by a subPath would not.
type mounted struct {
	name     string
	required []string
	// optional keys are read where they are there: which of them a broker's Secret has decides how to show who one is.
	optional []string
}

// mounts are sorted by name, their keys too.
func (w *worker) mounts(needs compile.Needs) []mounted {
	byName := map[string]*mounted{}
	of := func(name string) *mounted {
		if byName[name] == nil {
			byName[name] = &mounted{name: name}
		}
		return byName[name]
	}
	for _, s := range needs.Secrets {
		of(s.Name).required = append(of(s.Name).required, s.Keys...)
	}
	for _, b := range w.plan.Brokers {
		if b.Secret != "" {
			of(b.Secret).optional = append(of(b.Secret).optional, plan.CredentialKeys(b.Protocol)...)
		}
	}
	if dsn := compile.DSN(w.plan); dsn != nil {
		of(dsn.Name).optional = append(of(dsn.Name).optional, compile.DatabaseKeys()...)
	}
	if w.leases {
		of(plan.LeaseKeySecret).required = append(of(plan.LeaseKeySecret).required, LeaseKeyCurrent)
		of(plan.LeaseKeySecret).optional = append(of(plan.LeaseKeySecret).optional, leaseKeyNext, leaseKeyPrevious)
	}
	var out []mounted
	for _, m := range byName {
		m.required = sortedUnique(m.required)
		m.optional = slices.DeleteFunc(sortedUnique(m.optional), func(k string) bool { return slices.Contains(m.required, k) })
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b mounted) int { return strings.Compare(a.name, b.name) })
	return out
}

func sortedUnique(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}

// secretsVolume is one volume with a directory a Secret.
func secretsVolume(secrets []mounted) *applycore.VolumeApplyConfiguration {
	v := applycore.ProjectedVolumeSource().WithDefaultMode(readable)
	for _, s := range secrets {
		for _, part := range []struct {
			keys     []string
			optional bool
		}{{s.required, false}, {s.optional, true}} {
			if len(part.keys) == 0 {
				continue
			}
			p := applycore.SecretProjection().WithName(s.name)
			for _, k := range part.keys {
				p.WithItems(applycore.KeyToPath().WithKey(k).WithPath(s.name + "/" + k))
			}
			if part.optional {
				p.WithOptional(true)
			}
			v.WithSources(applycore.VolumeProjection().WithSecret(p))
		}
	}
	return applycore.Volume().WithName("secrets").WithProjected(v)
}

// apiVolume is the token with which a Poller reaches its checkpoint, where automounting would have put it; and whom to trust.
func apiVolume() *applycore.VolumeApplyConfiguration {
	return applycore.Volume().WithName("api").WithProjected(applycore.ProjectedVolumeSource().
		WithDefaultMode(readable).
		WithSources(
			applycore.VolumeProjection().WithServiceAccountToken(applycore.ServiceAccountTokenProjection().WithPath(corev1.ServiceAccountTokenKey).WithExpirationSeconds(3600)),
			applycore.VolumeProjection().WithConfigMap(applycore.ConfigMapProjection().WithName("kube-root-ca.crt").
				WithItems(applycore.KeyToPath().WithKey(corev1.ServiceAccountRootCAKey).WithPath(corev1.ServiceAccountRootCAKey)))))
}
