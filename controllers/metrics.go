package controllers

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill/runtime/plan"
)

var (
	resourcesDesc = prometheus.NewDesc("waybill_resources", "Declared resources, by whether the compiler accepts them.", []string{"kind", "accepted"}, nil)
	reachableDesc = prometheus.NewDesc("waybill_broker_reachable", "1 while the Broker answered the last probe, 0 when it did not; absent before the first.", []string{"namespace", "name"}, nil)
	rollingDesc   = prometheus.NewDesc("waybill_image_rollouts", "Resources whose Pods change to another worker image, and such as wait for their turn.", []string{"state"}, nil)
)

// Describe and Collect make metrics of what the controller knows, when it is asked. How often it reconciles, how long that takes and what fails
// is counted by controller-runtime: controller_runtime_reconcile_total, _reconcile_errors_total, _reconcile_time_seconds, workqueue_depth.
func (c *Controller) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{resourcesDesc, reachableDesc, rollingDesc} {
		to <- d
	}
	c.left.Describe(to)
}

// Collect implements prometheus.Collector.
func (c *Controller) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	type group struct{ kind, accepted string }
	count := map[group]int{}
	c.world.each(func(r plan.Resource, v *verdict) {
		accepted := "true"
		if refusal(v) != nil {
			accepted = "false"
		}
		count[group{r.Kind, accepted}]++
	})
	for g, n := range count {
		gauge(resourcesDesc, n, g.kind, g.accepted)
	}
	c.mu.Lock()
	for r, reachable := range c.reachable {
		gauge(reachableDesc, map[bool]int{true: 1}[reachable], r.Namespace, r.Name)
	}
	c.mu.Unlock()
	rolling, waiting := c.turns.counts()
	gauge(rollingDesc, rolling, "rolling")
	gauge(rollingDesc, waiting, "waiting")
	c.left.Collect(to)
}

// each calls f with every resource and what is said of it.
func (w *world) each(f func(plan.Resource, *verdict)) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	for r, v := range w.verdicts {
		f(r, v)
	}
}
