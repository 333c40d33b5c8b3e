package compile

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// Every default of the system stands here and nowhere else, but for replicas: 1 in the definitions, which the scale subresource has to read.
const (
	// Longer than most handlers take, short enough that a lost worker's messages are soon with another one. It is extended while work goes on.
	defaultAckWait = 30 * time.Second
	// As long as common proxies and load balancers wait for an answer, or somewhat less.
	defaultTimeout = 30 * time.Second
	// A person or a program waits at an Endpoint: it should know soon.
	defaultEndpointTimeout = 10 * time.Second

	// Requests at once to one HTTP server from one replica: enough for thousands a second at ordinary latencies, few enough not to drown it.
	defaultMaxInFlight = 64
	// A broker confirms whole batches: 512 messages in one, and four on their way, keep it busy without holding much.
	defaultBatchSize      = 512
	defaultBatchesAtOnce  = 4
	defaultHTTPStepAtOnce = 32

	// What a flow holds unsettled, waiting retries included: minutes of retries for a few bad messages, and a bound on memory.
	defaultWindowMessages = 4096
	defaultWindowBytes    = 64 << 20

	// Ten attempts from one second up to five minutes take some 17 minutes: a rollout or a short outage of the destination is over by then.
	defaultMaxAttempts    = 10
	defaultBackOffInitial = time.Second
	defaultBackOffMax     = 5 * time.Minute
	defaultMultiplier     = 2
	defaultJitterPercent  = 20 // so that messages that failed together do not come again together

	// Portable: below what every broker takes, and a thousand times an ordinary event.
	defaultMaxMessageBytes = 512 << 10
	minMaxMessageBytes     = 1 << 10
	// headerRoom is kept free on the broker for a message's encoded attributes and the history that a dead letter carries, so that a message
	// at the limit can still be dead-lettered.
	headerRoom = 24 << 10

	// A day of ids at one a second; some 10 MB.
	defaultDedupeMaxKeys = 100_000

	// One answer of a source after decompression: more belongs into pages.
	maxResponseBytes = 10 << 20
	// Pages of one poll: the next poll goes on from there, and meanwhile others have their turn.
	defaultMaxPages  = 100
	defaultStartPage = 1

	// How long the identities of ExactlyOnce are kept where the source's own retention does not say when a message can come no more: longer than
	// Kafka keeps positions (7 days) and SQS messages (14).
	defaultKeepIdentities = 30 * 24 * time.Hour

	// maxIdentifier is what PostgreSQL keeps of a name, in bytes.
	maxIdentifier = 63

	defaultServicePort = 80
	defaultPath        = "/"

	// The type of an event that has none of its own.
	defaultEventType = "dev.waybill.message"

	// Of an Embedded broker: a few million messages, and less than what the smallest clusters give out.
	defaultStorage = "1Gi"

	// maxPlanBytes bounds a plan, which in a cluster lies in a ConfigMap.
	maxPlanBytes = 256 << 10
)

// No order gives the most concurrency and lets replicas share the work on every broker; who needs order says so.
const defaultOrdering = v1alpha1.OrderingNone

// Nothing is lost, and it can be had everywhere.
const defaultGuarantee = v1alpha1.GuaranteeAtLeastOnce

// A poison message must not stop the others.
const defaultOnFailure = v1alpha1.OnFailurePark

// A new subscriber wants what comes from now on; the past is asked for.
const defaultStart = v1alpha1.StartLatest

// EmbeddedStorage is the size of an Embedded broker's volume.
func EmbeddedStorage(b *v1alpha1.Broker) resource.Quantity {
	if e := b.Spec.Embedded; e != nil && e.Storage != nil {
		return e.Storage.DeepCopy()
	}
	return resource.MustParse(defaultStorage)
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// retry fills in r. A pause that is given alone moves the default of the other, so that initial is never above max.
func retry(r *v1alpha1.Retry) plan.Retry {
	out := plan.Retry{
		MaxAttempts: defaultMaxAttempts, Initial: plan.Duration(defaultBackOffInitial), Max: plan.Duration(defaultBackOffMax),
		Multiplier: defaultMultiplier, JitterPercent: defaultJitterPercent,
	}
	if r == nil {
		return out
	}
	out.MaxAttempts = int(deref(r.MaxAttempts, defaultMaxAttempts))
	if b := r.BackOff; b != nil {
		switch {
		case b.Initial != nil && b.Max != nil:
			out.Initial, out.Max = plan.Duration(b.Initial.Duration), plan.Duration(b.Max.Duration)
		case b.Initial != nil:
			out.Initial = plan.Duration(b.Initial.Duration)
			out.Max = max(out.Max, out.Initial)
		case b.Max != nil:
			out.Max = plan.Duration(b.Max.Duration)
			out.Initial = min(out.Initial, out.Max)
		}
		out.Multiplier = float64(deref(b.Multiplier, defaultMultiplier))
		out.JitterPercent = int(deref(b.JitterPercent, defaultJitterPercent))
	}
	return out
}

// horizon is how long the attempts of r take at the most, apart from the handling itself; a century stands for everything beyond.
func horizon(r plan.Retry) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	var sum float64
	pause := float64(r.Initial)
	for range max(r.MaxAttempts-1, 0) {
		p := min(pause, float64(r.Max))
		sum += p * (1 + float64(r.JitterPercent)/100)
		if sum >= float64(century) {
			return century
		}
		if p <= 0 {
			break
		}
		pause = p * max(r.Multiplier, 1)
	}
	return time.Duration(sum)
}
