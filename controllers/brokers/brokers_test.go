package brokers

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

var key = types.NamespacedName{Namespace: "shop", Name: "main"}

func connection(version, address string) controllers.Connection {
	return controllers.Connection{Key: key, Version: version, Broker: plan.Broker{Name: key.String(), Protocol: "NATS", Addresses: []string{address}, Secret: "user"}}
}

func noSecret(context.Context, types.NamespacedName) (map[string][]byte, error) {
	return map[string][]byte{"username": []byte("waybill"), "password": []byte("secret")}, nil
}

func reasonOf(t *testing.T, err error) v1alpha1.Reason {
	t.Helper()
	e, ok := errors.AsType[*controllers.BrokerError](err)
	if !ok {
		t.Fatalf("%v is no broker's error", err)
	}
	return e.Reason
}

func TestADeadBrokerIsDialledOnceAndThenSaidToBeDead(t *testing.T) {
	var dials atomic.Int32
	s := New(map[string]Driver{"NATS": {Class: nats.Class, Open: func(context.Context, driver.Config) (driver.Conn, error) {
		dials.Add(1)
		return nil, errors.New("no route to host")
	}}}, noSecret)
	defer s.Close()
	for range 10 {
		_, err := s.Probe(t.Context(), connection("1", "nats:4222"))
		if reasonOf(t, err) != v1alpha1.ReasonUnreachable || !strings.Contains(err.Error(), "nats:4222") {
			t.Fatal(err)
		}
	}
	if dials.Load() != 1 {
		t.Errorf("dialled %d times", dials.Load())
	}
	if _, err := s.Probe(t.Context(), connection("2", "other:4222")); err == nil || dials.Load() != 2 {
		t.Errorf("%v; another address was not dialled at once", err)
	}
}

func TestWhatStandsInTheWayIsNamed(t *testing.T) {
	s := New(map[string]Driver{"NATS": {Class: func(error) driver.Class { return driver.Denied }, Open: func(context.Context, driver.Config) (driver.Conn, error) {
		return nil, errors.New("authorization violation")
	}}}, func(_ context.Context, name types.NamespacedName) (map[string][]byte, error) {
		if name.Name == "gone" {
			return nil, nil
		}
		return noSecret(t.Context(), name)
	})
	defer s.Close()
	_, err := s.Probe(t.Context(), connection("1", "nats:4222"))
	if reasonOf(t, err) != v1alpha1.ReasonDenied {
		t.Error(err)
	}
	to := connection("2", "nats:4222")
	to.Secret = "gone"
	if _, err := s.Probe(t.Context(), to); reasonOf(t, err) != v1alpha1.ReasonSecretNotFound {
		t.Error(err)
	}
	to.Protocol = "Kafka"
	to.Version = "3"
	if _, err := s.Probe(t.Context(), to); reasonOf(t, err) != v1alpha1.ReasonInvalid {
		t.Error(err)
	}
}

func TestObjectsAreMadeOnceKeptAndDeleted(t *testing.T) {
	server, err := nats.StartEmbedded(t.Context(), nats.EmbeddedConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0", Username: "waybill", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown(context.Background())
	s := New(map[string]Driver{"NATS": {Open: nats.Open, Class: nats.Class}}, noSecret)
	defer s.Close()
	to, ctx := connection("1", server.Addr()), t.Context()

	found, err := s.Probe(ctx, to)
	if err != nil || found.Version == "" || found.Features.Product != "NATS" || len(found.Features.Flags) != 1 || found.Features.Flags[0] != compile.FeatureAtomicBatch {
		t.Fatalf("%+v %v", found, err)
	}
	o := plan.Object{Ref: plan.Ref{Kind: "Topic", Name: "shop_orders"}, Owner: "Topic/shop/orders"}
	for _, want := range []bool{true, false} {
		if changed, err := s.Ensure(ctx, to, o); err != nil || changed != want {
			t.Fatalf("changed=%v %v", changed, err)
		}
	}
	if states, err := s.Inspect(ctx, to, []plan.Ref{o.Ref}); err != nil || !states[0].Exists || states[0].Owner != o.Owner || states[0].Messages != 0 {
		t.Errorf("%+v %v", states, err)
	}
	if err := s.Delete(ctx, to, o.Ref, "Topic/other/orders", false); reasonOf(t, err) != v1alpha1.ReasonConflict {
		t.Error(err)
	}
	s.Forget(key) // the next call dials anew
	if err := s.Delete(ctx, to, o.Ref, o.Owner, true); err != nil {
		t.Error(err)
	}
}

// hung is a session that takes calls and answers none.
type hung struct {
	driver.Conn
	calls atomic.Int32
}

func (h *hung) Done() <-chan struct{}       { return nil }
func (h *hung) Features() driver.Features   { return driver.Features{} }
func (h *hung) Class(error) driver.Class    { return driver.Transient }
func (h *hung) Close(context.Context) error { return nil }
func (h *hung) Admin() driver.Admin         { return hungAdmin{h: h} }

type hungAdmin struct {
	driver.Admin
	h *hung
}

func (a hungAdmin) Inspect(ctx context.Context, _ []driver.Ref) ([]driver.State, error) {
	a.h.calls.Add(1)
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestABrokerThatHangsHoldsUpOneCallAndNotAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := &hung{}
		s := New(map[string]Driver{"NATS": {Class: conn.Class, Open: func(context.Context, driver.Config) (driver.Conn, error) { return conn, nil }}}, noSecret)
		defer s.Close()
		began := time.Now()
		for range 100 {
			if _, err := s.Probe(t.Context(), connection("1", "nats:4222")); reasonOf(t, err) != v1alpha1.ReasonUnreachable {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != callTimeout || conn.calls.Load() != 1 {
			t.Errorf("%d calls, %v", conn.calls.Load(), took)
		}
		time.Sleep(2 * firstRedial) // of the bubble's clock
		if _, err := s.Probe(t.Context(), connection("1", "nats:4222")); err == nil || conn.calls.Load() != 2 {
			t.Errorf("%v after %d calls: it is asked again, ever more seldom", err, conn.calls.Load())
		}
	})
}

func TestTheSameFaultIsToldInTheSameWords(t *testing.T) {
	to := connection("1", "nats:4222")
	for text, want := range map[string]string{
		"read tcp 127.0.0.1:54321->127.0.0.1:4222: i/o timeout": "[nats:4222] does not answer: read tcp 127.0.0.1:4222: i/o timeout",
		"write tcp [::1]:54321->[::1]:4222: broken pipe":        "[nats:4222] does not answer: write tcp [::1]:4222: broken pipe",
		"dial tcp 127.0.0.1:1: connect: connection refused":     "[nats:4222] does not answer: dial tcp: connection refused",
		"dial tcp [::1]:4222: i/o timeout":                      "[nats:4222] does not answer: dial tcp: i/o timeout",
		"dial tcp: lookup a on 10.0.0.53:53: no such host":      "[nats:4222] does not answer: dial tcp: no such host",
		"dial tcp: lookup b: no such host":                      "[nats:4222] does not answer: dial tcp: no such host",
	} {
		if got := away(to, errors.New(text)).Error(); got != want {
			t.Error(got)
		}
	}
}
