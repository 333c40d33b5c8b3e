package compile

import (
	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// workload checks what a resource's own Pods read.
func (c *compiler) workload(s *subject, field string, w *v1alpha1.Workload) {
	if w == nil {
		return
	}
	for i := range w.Env {
		if e := &w.Env[i]; e.SecretRef != nil {
			c.secretKey(s, index(field+".env", i)+".secretRef", *e.SecretRef, e.Name)
		}
	}
}
