package telemetry

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill/runtime/engine"
)

// collector makes metrics of the engine's own counters when it is asked, so that the hot path pays for no metric. Labels are the resource's
// kind, namespace and name, and reasons from closed sets: nothing that messages or clients choose.
type collector struct{ engine *engine.Engine }

var resource = []string{"kind", "namespace", "name"}

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("waybill_"+name, help, append(append([]string(nil), resource...), labels...), nil)
}

var (
	up           = metric("resource_running", "1 while the resource runs as declared, 0 otherwise.")
	stored       = metric("gateway_stored_total", "Events that the gateway was given and the broker has confirmed.")
	accepted     = metric("gateway_accepted_total", "Events answered Accepted: not yet stored then.")
	lost         = metric("gateway_lost_total", "Events answered Accepted that were never stored.")
	buffered     = metric("gateway_buffered_bytes", "Bytes of requests held in memory.")
	refused      = metric("gateway_refused_total", "Requests refused, by HTTP status.", "status")
	replies      = metric("gateway_replies_total", "Requests answered with a reply or a receipt.")
	failed       = metric("gateway_failed_total", "Requests whose message was dead-lettered.")
	lateReplies  = metric("gateway_late_replies_total", "Replies that came when nobody waited for them any more.")
	secondReply  = metric("gateway_duplicate_replies_total", "Replies that came after the first one.")
	requests     = metric("gateway_waiting_requests", "Requests that wait for their answer.")
	receivers    = metric("gateway_waiting_receivers", "Long polls of a Mailbox that wait for messages.")
	timedOut     = metric("gateway_timed_out_total", "Requests that were not answered in time.")
	unwanted     = metric("gateway_expired_total", "Requests dropped before they were handed out, because nobody waited for them any more.")
	leased       = metric("gateway_leased_total", "Messages handed out under a lease.")
	settled      = metric("gateway_settled_total", "Leases settled by their holder, by how.", "how")
	ended        = metric("gateway_leases_ended_total", "Calls for a lease that had ended.")
	gatewayDead  = metric("gateway_dead_lettered_total", "Messages that the dead letter took, by a rejection or after their attempts.")
	received     = metric("flow_received_total", "Messages received from the source.")
	done         = metric("flow_done_total", "Messages that the sink has confirmed.")
	dropped      = metric("flow_dropped_total", "Messages dropped on purpose, by reason.", "reason")
	expired      = metric("flow_expired_total", "Requests dropped because nobody waited for them any more.")
	retried      = metric("flow_retried_total", "Handlings after a message's first.")
	deadLettered = metric("flow_dead_lettered_total", "Messages that the dead letter took, by reason.", "reason")
	inFlight     = metric("flow_in_flight", "Messages being handled.")
	window       = metric("flow_window", "Messages received and not yet settled.")
	breaker      = metric("flow_breaker_open", "1 while the breaker keeps messages from a destination that is down.")
	oldest       = metric("flow_oldest_unsettled_seconds", "Age of the oldest message that is held.")
	polls        = metric("poller_polls_total", "Polls that were answered.")
	published    = metric("poller_published_total", "Items published.")
	pollErrors   = metric("poller_errors_total", "Polls that failed.")
)

// Describe sends nothing: which series there are depends on what runs.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	for _, s := range c.engine.Status() {
		send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(d, t, v, append([]string{s.Kind, s.Namespace, s.Name}, labels...)...)
		}
		count := func(d *prometheus.Desc, v uint64, labels ...string) {
			send(d, prometheus.CounterValue, float64(v), labels...)
		}
		gauge := func(d *prometheus.Desc, v float64) { send(d, prometheus.GaugeValue, v) }

		gauge(up, truth(s.State == engine.Running))
		if g := s.Gateway; g != nil {
			count(stored, uint64(g.Stored))
			count(lost, uint64(g.Lost))
			count(accepted, uint64(g.Accepted))
			count(replies, uint64(g.Replies))
			count(failed, uint64(g.Failed))
			count(timedOut, uint64(g.TimedOut))
			count(lateReplies, uint64(g.LateReplies))
			count(secondReply, uint64(g.DuplicateReplies))
			gauge(requests, float64(g.Waiting))
			gauge(receivers, float64(g.Polls))
			if s.Kind == "Mailbox" {
				count(unwanted, uint64(g.Expired))
				count(leased, uint64(g.Leased))
				for how, n := range map[string]int64{"ack": g.Acked, "nack": g.Nacked, "reject": g.Rejected, "reply": g.Replied} {
					count(settled, uint64(n), how)
				}
				count(ended, uint64(g.LeasesEnded))
				count(gatewayDead, uint64(g.DeadLettered))
			}
			gauge(buffered, float64(g.Bytes))
			for status, n := range g.Refused {
				count(refused, uint64(n), strconv.Itoa(status))
			}
		}
		if f := s.Flow; f != nil {
			count(received, f.Received)
			count(done, f.Done)
			count(expired, f.Expired)
			count(retried, f.Retried)
			for reason, n := range f.Dropped {
				count(dropped, n, reason)
			}
			for reason, n := range f.DeadLettered {
				count(deadLettered, n, string(reason))
			}
			gauge(inFlight, float64(f.InFlight))
			gauge(window, float64(f.Window))
			gauge(breaker, truth(!f.BreakerSince.IsZero()))
			age := 0.0
			if !f.Oldest.IsZero() {
				age = time.Since(f.Oldest).Seconds()
			}
			gauge(oldest, age)
		}
		if p := s.Poller; p != nil {
			count(polls, uint64(p.Polls))
			count(published, uint64(p.Published))
			count(pollErrors, uint64(p.Errors))
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
