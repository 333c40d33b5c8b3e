package telemetry

import (
	"context"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/gateway"
	"github.com/waybill-dev/waybill/runtime/poll"
)

// collector makes metrics of the engine's own counters when it is asked, so that the hot path pays for no metric. Labels are the resource's
// kind, namespace and name, and reasons from closed sets: nothing that messages or clients choose. A counter whose first step is worth an
// alert is there from the start, with 0: Prometheus sees no increase where a series begins with 1.
type collector struct{ engine *engine.Engine }

var resource = []string{"kind", "namespace", "name"}

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("waybill_"+name, help, append(append([]string(nil), resource...), labels...), nil)
}

var (
	up = metric("resource_running", "1 while the resource runs as declared, 0 otherwise.")
	// Of what waits on a broker. The name of the first is what an HPA or KEDA is given.
	backlog = metric("backlog", "Messages stored for the resource and not acknowledged, as the broker counts them; absent while the broker does not tell.")
	oldest  = metric("oldest_unacknowledged_seconds",
		"Age of the oldest message that is not acknowledged, since the broker stored it; while the broker does not tell, of the oldest that is held here. 0: nothing waits.")

	requests    = metric("gateway_requests_total", "Requests answered, by HTTP status; 499: the client left before it was answered.", "code")
	stored      = metric("gateway_stored_total", "Events that the gateway was given and the broker has confirmed.")
	accepted    = metric("gateway_accepted_total", "Events answered Accepted: not yet stored then.")
	lost        = metric("gateway_lost_total", "Events answered Accepted that were never stored.")
	buffered    = metric("gateway_buffered_bytes", "Bytes of requests held in memory.")
	replies     = metric("gateway_replies_total", "Requests answered with a reply or a receipt.")
	failed      = metric("gateway_failed_total", "Requests whose message was dead-lettered.")
	lateReplies = metric("gateway_late_replies_total", "Replies that came when nobody waited for them any more.")
	secondReply = metric("gateway_duplicate_replies_total", "Replies that came after the first one.")
	waiting     = metric("gateway_waiting_requests", "Requests that wait for their answer.")
	receivers   = metric("gateway_waiting_receivers", "Long polls of a Mailbox that wait for messages.")
	readers     = metric("gateway_live_readers", "Readers of a Topic's live events.")
	gaps        = metric("gateway_live_gaps_total", "Readers of live events that resumed at a position which was gone.")
	timedOut    = metric("gateway_timed_out_total", "Requests that were not answered in time.")
	unwanted    = metric("gateway_expired_total", "Requests dropped before they were handed out, because nobody waited for them any more.")
	leased      = metric("gateway_leased_total", "Messages handed out under a lease.")
	settled     = metric("gateway_settled_total", "Leases settled by their holder, by how.", "how")
	ended       = metric("gateway_leases_ended_total", "Calls for a lease that had ended.")
	gatewayDead = metric("gateway_dead_lettered_total", "Messages that the dead letter took, by a rejection or after their attempts.")

	received     = metric("flow_received_total", "Messages received from the source.")
	acked        = metric("flow_acknowledged_total", "Messages acknowledged at the source, by how they ended: Done, Dropped, Expired or DeadLettered.", "outcome")
	done         = metric("flow_done_total", "Messages that the sink has confirmed.")
	dropped      = metric("flow_dropped_total", "Messages dropped on purpose, by reason.", "reason")
	expired      = metric("flow_expired_total", "Requests dropped because nobody waited for them any more.")
	retried      = metric("flow_retried_total", "Handlings after a message's first.")
	deadLettered = metric("flow_dead_lettered_total", "Messages that the dead letter took, by reason.", "reason")
	flowFailed   = metric("flow_failed_total", "Messages of an AtMostOnce flow whose one attempt failed, or was prevented by a shutdown: they are lost.")
	returned     = metric("flow_returned_total", "Messages given back unattempted or lost to another worker: they come again.")
	inFlight     = metric("flow_in_flight", "Messages being handled.")
	window       = metric("flow_window", "Messages received and not yet settled.")
	windowMost   = metric("flow_window_limit", "Messages that the window has room for: when it is full nothing more is received.")
	windowBytes  = metric("flow_window_bytes", "Bytes of messages received and not yet settled.")
	windowMostB  = metric("flow_window_limit_bytes", "Bytes that the window has room for.")
	retrying     = metric("flow_waiting_keys", "Keys (without ordering: messages) that wait for their next try.")
	blocked      = metric("flow_blocked_keys", "Keys (without ordering: messages) stopped by a message that cannot be delivered, with onFailure: Block.")
	breaker      = metric("flow_breaker_open", "1 while the breaker keeps messages from a destination that is down.")
	state        = metric("flow_state", "1 for what the flow is doing, 0 for the other states.", "state")
	latency      = metric("flow_latency_seconds", "Time from when the broker stored a message until it was done and acknowledged. Not of brokers that do not tell when that was.")
	handling     = metric("flow_handling_seconds", "Time that a handling took, from the first step to the sink's confirmation and the acknowledgement, whatever came of it.")

	polls       = metric("poller_polls_total", "Polls that were answered.")
	rounds      = metric("poller_rounds_total", "Rounds that came to their last page.")
	pages       = metric("poller_pages_total", "Pages read.")
	items       = metric("poller_items_total", "Items found on pages, whether they were new or not.")
	published   = metric("poller_published_total", "Items published.")
	refused     = metric("poller_refused_total", "Items that could not be published, each time they were met.")
	pollErrors  = metric("poller_errors_total", "Polls that failed.")
	lastSuccess = metric("poller_last_success_timestamp_seconds", "When the last poll succeeded, in Unix time; absent before the first.")
	lag         = metric("poller_lag_seconds", "For how long a poll is overdue: since it should have succeeded and has not. 0 while all is well.")

	broker = prometheus.NewDesc("waybill_broker_up", "1 while this process has its sessions with the broker, 0 otherwise.", []string{"namespace", "name"}, nil)
	build  = prometheus.NewDesc("waybill_build_info", "What was built: always 1.", []string{"version", "commit"}, nil)
)

// Describe sends nothing: which series there are depends on what runs.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	version, commit := built()
	out <- prometheus.MustNewConstMetric(build, prometheus.GaugeValue, 1, version, commit)
	for name, there := range c.engine.Reached() {
		ns, name, _ := strings.Cut(name, "/")
		out <- prometheus.MustNewConstMetric(broker, prometheus.GaugeValue, truth(there), ns, name)
	}
	now := time.Now()
	waits := map[[3]string]*engine.Backlog{}
	for _, b := range c.engine.Backlogs(context.Background()) {
		waits[[3]string{b.Resource.Kind, b.Resource.Namespace, b.Resource.Name}] = &b
	}
	for _, s := range c.engine.Status() {
		r := row{out, [3]string{s.Kind, s.Namespace, s.Name}}
		r.gauge(up, truth(s.State == engine.Running))
		told := waits[r.of]
		if told != nil {
			r.gauge(backlog, float64(told.Messages))
		}
		switch {
		case told != nil:
			r.gauge(oldest, since(told.Oldest, now))
		case s.Flow != nil:
			r.gauge(oldest, since(s.Flow.Oldest, now))
		}
		if s.Gateway != nil {
			r.gateway(s.Gateway, s.Answers, s.Kind)
		}
		if s.Flow != nil {
			r.flow(s.Flow)
		}
		if s.Poller != nil {
			r.poller(s.Poller, now)
		}
	}
}

// row sends the metrics of one resource.
type row struct {
	out chan<- prometheus.Metric
	of  [3]string
}

func (r row) send(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
	r.out <- prometheus.MustNewConstMetric(d, t, v, append(r.of[:], labels...)...)
}

func (r row) count(d *prometheus.Desc, v uint64, labels ...string) {
	r.send(d, prometheus.CounterValue, float64(v), labels...)
}

func (r row) gauge(d *prometheus.Desc, v float64, labels ...string) {
	r.send(d, prometheus.GaugeValue, v, labels...)
}

func (r row) histogram(d *prometheus.Desc, h *flow.Histogram) {
	buckets, sum := map[float64]uint64{}, uint64(0)
	for i, bound := range flow.Bounds {
		sum += h.Counts[i]
		buckets[bound.Seconds()] = sum
	}
	r.out <- prometheus.MustNewConstHistogram(d, h.Count(), h.Seconds, buckets, r.of[:]...)
}

func (r row) gateway(g *gateway.Stats, answers map[int]uint64, kind string) {
	for status, n := range answers {
		r.count(requests, n, strconv.Itoa(status))
	}
	r.count(stored, uint64(g.Stored))
	r.count(lost, uint64(g.Lost))
	r.count(accepted, uint64(g.Accepted))
	r.gauge(buffered, float64(g.Bytes))
	if kind == "Topic" {
		r.gauge(readers, float64(g.Live))
		r.count(gaps, uint64(g.Gaps))
		return
	}
	r.count(replies, uint64(g.Replies))
	r.count(failed, uint64(g.Failed))
	r.count(timedOut, uint64(g.TimedOut))
	r.count(lateReplies, uint64(g.LateReplies))
	r.count(secondReply, uint64(g.DuplicateReplies))
	r.gauge(waiting, float64(g.Waiting))
	if kind != "Mailbox" {
		return
	}
	r.gauge(receivers, float64(g.Polls))
	r.count(unwanted, uint64(g.Expired))
	r.count(leased, uint64(g.Leased))
	for how, n := range map[string]int64{"ack": g.Acked, "nack": g.Nacked, "reject": g.Rejected, "reply": g.Replied} {
		r.count(settled, uint64(n), how)
	}
	r.count(ended, uint64(g.LeasesEnded))
	r.count(gatewayDead, uint64(g.DeadLettered))
}

func (r row) flow(f *flow.Stats) {
	r.count(received, f.Received)
	r.count(done, f.Done)
	r.count(expired, f.Expired)
	r.count(retried, f.Retried)
	r.count(flowFailed, f.Failed)
	r.count(returned, f.Forgotten)
	drops := uint64(0)
	for reason, n := range f.Dropped {
		r.count(dropped, n, reason)
		drops += n
	}
	dead := uint64(0)
	for _, reason := range flow.Reasons {
		r.count(deadLettered, f.DeadLettered[reason], string(reason))
		dead += f.DeadLettered[reason]
	}
	for outcome, n := range map[string]uint64{"Done": f.Done, "Dropped": drops, "Expired": f.Expired, "DeadLettered": dead} {
		r.count(acked, n, outcome)
	}
	r.gauge(inFlight, float64(f.InFlight))
	r.gauge(window, float64(f.Window))
	r.gauge(windowMost, float64(f.WindowLimit.Messages))
	r.gauge(windowBytes, float64(f.WindowBytes))
	r.gauge(windowMostB, float64(f.WindowLimit.Bytes))
	r.gauge(retrying, float64(f.Waiting))
	r.gauge(blocked, float64(f.Blocked))
	r.gauge(breaker, truth(!f.BreakerSince.IsZero()))
	for _, one := range flow.States {
		r.gauge(state, truth(one == f.State), string(one))
	}
	r.histogram(latency, &f.Latency)
	r.histogram(handling, &f.Handling)
}

func (r row) poller(p *poll.Stats, now time.Time) {
	r.count(polls, uint64(p.Polls))
	r.count(rounds, uint64(p.Rounds))
	r.count(pages, uint64(p.Pages))
	r.count(items, uint64(p.Items))
	r.count(published, uint64(p.Published))
	r.count(refused, uint64(p.Refused))
	r.count(pollErrors, uint64(p.Errors))
	if !p.LastSuccess.IsZero() {
		r.gauge(lastSuccess, float64(p.LastSuccess.UnixMilli())/1000)
	}
	r.gauge(lag, since(p.Due, now))
}

// since is the age of what began at t, 0 where t is zero or yet to come.
func since(t, now time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return max(now.Sub(t), 0).Seconds()
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// built is what the build knows of itself.
func built() (version, commit string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			commit = s.Value
		}
	}
	return info.Main.Version, commit
}
