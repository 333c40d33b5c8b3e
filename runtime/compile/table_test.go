package compile

import (
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// What a broker cannot do always comes with the reason and with what to do instead, for that is what the user gets to read.
func TestEveryRefusalHasAnAlternative(t *testing.T) {
	for _, p := range Protocols() {
		v := reflect.ValueOf(p)
		for i := range v.NumField() {
			if !v.Type().Field(i).IsExported() {
				continue
			}
			a, ok := reflect.TypeAssert[Ability](v.Field(i))
			if ok && (!a.Can || a.Needs != "") && (a.How == "" || a.Instead == "") {
				t.Errorf("%s, %s: %+v has no reason or no alternative", p.Name, v.Type().Field(i).Name, a)
			}
		}
		if p.Floor.MaxMessageBytes == 0 || p.names.separator == "" || p.EncodingDenominator == 0 {
			t.Errorf("%s is incomplete", p.Name)
		}
		if got := (&broker{protocol: p, features: p.Floor}).maxMessageBytes(); got < defaultMaxMessageBytes {
			t.Errorf("%s takes %d bytes by default, less than the portable default", p.Name, got)
		}
	}
	for _, typ := range []v1alpha1.BrokerType{v1alpha1.BrokerEmbedded, v1alpha1.BrokerNATS, v1alpha1.BrokerKafka, v1alpha1.BrokerRedpanda, v1alpha1.BrokerRabbitMQ, v1alpha1.BrokerSQS} {
		if _, ok := protocolOf(typ); !ok {
			t.Errorf("no protocol for type %s", typ)
		}
	}
}

// Objects of different resources never have the same name, and every name is one that the broker takes.
func TestNamesDoNotMeet(t *testing.T) {
	name := rapid.StringMatching(`[a-z]([-a-z0-9]{0,46}[a-z0-9])?`)
	resource := rapid.Custom(func(t *rapid.T) plan.Resource {
		return plan.Resource{Kind: rapid.SampledFrom([]string{"Topic", "Mailbox", "Subscription", "Pipeline"}).Draw(t, "kind"), Namespace: name.Draw(t, "namespace"), Name: name.Draw(t, "name")}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := resource.Draw(t, "a"), resource.Draw(t, "b")
		prefix := rapid.SampledFrom([]string{"", "acme-", strings.Repeat("p", 40)}).Draw(t, "prefix")
		for _, p := range Protocols() {
			names := []string{p.names.object(prefix, a), p.names.object(prefix, a, "dead")}
			for _, n := range names {
				if c, bad := p.names.refuses(n); bad || len(n) > p.names.maxLength {
					t.Fatalf("%s does not take %q (%q)", p.Name, n, c)
				}
			}
			names = append(names, p.names.object(prefix, b), p.names.object(prefix, b, "dead"))
			for i := range names {
				for j := range names[:i] {
					if names[i] == names[j] && !(a == b && i == j+2) {
						t.Fatalf("%s: %s and %s have an object called %q", p.Name, a, b, names[i])
					}
				}
			}
		}
	})
}

func TestRetryDefaults(t *testing.T) {
	d := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	for _, c := range []struct {
		backOff      v1alpha1.BackOff
		initial, max time.Duration
	}{
		{v1alpha1.BackOff{}, time.Second, 5 * time.Minute},
		{v1alpha1.BackOff{Initial: d(10 * time.Minute)}, 10 * time.Minute, 10 * time.Minute},
		{v1alpha1.BackOff{Max: d(100 * time.Millisecond)}, 100 * time.Millisecond, 100 * time.Millisecond},
		{v1alpha1.BackOff{Initial: d(2 * time.Second), Max: d(3 * time.Second)}, 2 * time.Second, 3 * time.Second},
	} {
		got := retry(&v1alpha1.Retry{BackOff: &c.backOff})
		if time.Duration(got.Initial) != c.initial || time.Duration(got.Max) != c.max {
			t.Errorf("%+v: initial %s, max %s", c.backOff, got.Initial, got.Max)
		}
	}
}

func TestHorizon(t *testing.T) {
	r := plan.Retry{MaxAttempts: 4, Initial: plan.Duration(time.Second), Max: plan.Duration(3 * time.Second), Multiplier: 2}
	if got := horizon(r); got != 6*time.Second { // 1 + 2 + 3
		t.Errorf("horizon %s", got)
	}
	r.JitterPercent = 50
	if got := horizon(r); got != 9*time.Second {
		t.Errorf("horizon with jitter %s", got)
	}
	r.MaxAttempts = 1
	if got := horizon(r); got != 0 {
		t.Errorf("horizon of one attempt %s", got)
	}
	r = plan.Retry{MaxAttempts: 1 << 30, Initial: 1 << 62, Max: 1 << 62, Multiplier: 10, JitterPercent: 100}
	if got := horizon(r); got <= 0 {
		t.Errorf("horizon overflows: %s", got)
	}
}
