package engine_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// topic and push are plans as the compiler makes them, on a broker of the given protocol and address.
func topic(name string, b plan.Broker) *plan.Plan {
	ref := plan.Ref{Broker: b.Name, Kind: "Topic", Name: "default_" + name}
	r := plan.Resource{Kind: "Topic", Namespace: "default", Name: name}
	return &plan.Plan{Version: plan.Version, Resource: r, Brokers: []plan.Broker{b},
		Objects: []plan.Object{{Ref: ref, Owner: r.String()}},
		Topic:   &plan.Topic{Object: ref, MaxMessageBytes: 512 << 10}}
}

func push(name, topicName, url string, b plan.Broker) *plan.Plan {
	r := plan.Resource{Kind: "Subscription", Namespace: "default", Name: name}
	of := plan.Ref{Broker: b.Name, Kind: "Topic", Name: "default_" + topicName}
	group := plan.Ref{Broker: b.Name, Kind: "Group", Name: "default_" + name + "_subscription", Of: of.Name}
	dead := plan.Ref{Broker: b.Name, Kind: "Queue", Name: "default_" + name + "_subscription_dead"}
	second := plan.Duration(time.Second)
	return &plan.Plan{Version: plan.Version, Resource: r, Brokers: []plan.Broker{b},
		Objects: []plan.Object{
			{Ref: of, Owner: "Topic/default/" + topicName},
			{Ref: dead, Owner: r.String(), Ordering: "None", AckWait: plan.Duration(30 * time.Second)},
			{Ref: group, Owner: r.String(), Ordering: "None", AckWait: plan.Duration(30 * time.Second), Start: &plan.Start{Position: "Earliest"}},
		},
		Flow: &plan.Flow{
			Source: plan.Source{Object: of, Group: group.Name, Ordering: "None", AckWait: plan.Duration(30 * time.Second), WindowMessages: 128, WindowBytes: 1 << 20},
			Sink:   plan.Sink{Push: &plan.Push{HTTPCall: plan.HTTPCall{HTTPTarget: plan.HTTPTarget{URL: url}, Timeout: 5 * second}, Response: "Drop"}},
			Policy: plan.Policy{Guarantee: "AtLeastOnce", MaxInFlight: 8, BatchSize: 1, OnFailure: "Park", DeadLetter: &dead, WhenExpired: "Deliver",
				Retry: plan.Retry{MaxAttempts: 3, Initial: second / 10, Max: second, Multiplier: 2}},
		}}
}

// start runs plans on an embedded server and, for protocol NATS, on whatever is at its address.
func start(t *testing.T, plans ...*plan.Plan) *engine.Engine {
	t.Helper()
	embedded, err := nats.StartEmbedded(t.Context(), nats.EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	secrets := new(secret.Memory)
	e := engine.New(engine.Host{
		Drivers:    map[string]driver.Open{"Embedded": embedded.Open, "NATS": nats.Open},
		Secrets:    secrets,
		Base:       plan.Resource.Path,
		Outbound:   outbound.New(outbound.Config{Secrets: secrets}),
		Administer: true,
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		e.Drain(ctx, func(context.Context) {})
		if err := embedded.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	e.Start(ctx, plans)
	return e
}

func state(t *testing.T, e *engine.Engine, name string) engine.Status {
	t.Helper()
	for _, s := range e.Status() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no status of %s", name)
	return engine.Status{}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func post(t *testing.T, e *engine.Engine, path, body string) (int, string) {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	e.Gateways().ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

var embeddedBroker = plan.Broker{Name: "default/main", Protocol: "Embedded"}

func TestAMessageGoesFromTheGatewayToTheSubscriber(t *testing.T) {
	got := make(chan string, 1)
	subscriber := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- r.Header.Get("Traceparent") + " " + r.Header.Get("Ce-Traceparent") + string(b)
	}))
	defer subscriber.Close()
	// The subscription stands before its topic: objects are made in the order that they need.
	e := start(t, push("billing", "orders", subscriber.URL, embeddedBroker), topic("orders", embeddedBroker))
	if code, answer := post(t, e, "/default/topics/orders", `{"n":1}`); code != http.StatusAccepted {
		t.Fatal(code, answer)
	}
	if body := <-got; !strings.HasSuffix(body, `{"n":1}`) {
		t.Errorf("the subscriber got %q", body)
	}
	eventually(t, "the subscription counts it done", func() bool { return state(t, e, "billing").Counts.Out == 1 })
}

func TestWhatCannotStartNeverStopsItsNeighbourAndStartsWhenItCan(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().(*net.TCPAddr)
	free.Close()
	away := plan.Broker{Name: "default/away", Protocol: "NATS", Addresses: []string{"nats://" + address.String()}}
	e := start(t, topic("orders", embeddedBroker), topic("elsewhere", away), topic("kafka", plan.Broker{Name: "default/kafka", Protocol: "Kafka"}))

	if s := state(t, e, "orders"); s.State != engine.Running {
		t.Errorf("the topic on the broker that is there: %+v", s)
	}
	if s := state(t, e, "elsewhere"); s.State != engine.Waiting || !strings.Contains(s.Message, address.String()) {
		t.Errorf("the topic on the broker that is away: %+v", s)
	}
	if code, answer := post(t, e, "/default/topics/elsewhere", `{}`); code != http.StatusServiceUnavailable {
		t.Errorf("its gateway answers %d %s", code, answer)
	}
	if s := state(t, e, "kafka"); s.State != engine.Failed || !strings.Contains(s.Message, "no driver") {
		t.Errorf("the topic on a broker without a driver: %+v", s)
	}
	if err := e.Ready(); err == nil || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("ready: %v", err)
	}
	if code, answer := post(t, e, "/default/topics/orders", `{}`); code != http.StatusAccepted {
		t.Error(code, answer)
	}

	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: address.Port, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer srv.WaitForShutdown()
	defer srv.Shutdown()
	eventually(t, "the topic runs once its broker is there", func() bool { return state(t, e, "elsewhere").State == engine.Running })
	if code, answer := post(t, e, "/default/topics/elsewhere", `{}`); code != http.StatusAccepted {
		t.Error(code, answer)
	}
}

func TestADrainFinishesWhatIsInFlightAndHandsBackTheRest(t *testing.T) {
	entered, leave := make(chan struct{}, 16), make(chan struct{})
	subscriber := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-leave
	}))
	defer subscriber.Close()
	p := push("billing", "orders", subscriber.URL, embeddedBroker)
	p.Flow.Policy.MaxInFlight = 1
	e := start(t, topic("orders", embeddedBroker), p)
	for range 3 {
		if code, answer := post(t, e, "/default/topics/orders", `{}`); code != http.StatusAccepted {
			t.Fatal(code, answer)
		}
	}
	<-entered
	eventually(t, "more than one is held", func() bool { return state(t, e, "billing").Counts.Held > 1 })

	drained, stopped := make(chan []engine.Drained, 1), make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		drained <- e.Drain(ctx, func(context.Context) { close(stopped) })
	}()
	eventually(t, "the engine is unready while it drains", func() bool { return e.Ready() != nil })
	eventually(t, "the gateway takes nothing more", func() bool {
		code, _ := post(t, e, "/default/topics/orders", `{}`)
		return code == http.StatusServiceUnavailable
	})
	select {
	case <-stopped:
		t.Error("HTTP ended before the flows were drained")
	default:
	}
	close(leave)
	for _, d := range <-drained {
		if d.Resource.Name == "billing" && (d.Finished != 1 || d.Released < 1) {
			t.Errorf("drained %+v, want the one in flight finished and the others released", d)
		}
	}
}

// A flow that takes all of the drain leaves those who are being answered a moment.
func TestADrainLeavesTimeForTheLastAnswers(t *testing.T) {
	entered, leave := make(chan struct{}, 16), make(chan struct{})
	subscriber := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-leave
	}))
	defer subscriber.Close()
	defer close(leave)
	e := start(t, topic("orders", embeddedBroker), push("billing", "orders", subscriber.URL, embeddedBroker))
	if code, answer := post(t, e, "/default/topics/orders", `{}`); code != http.StatusAccepted {
		t.Fatal(code, answer)
	}
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	var err error
	e.Drain(ctx, func(ctx context.Context) { err = ctx.Err() })
	if err != nil {
		t.Errorf("HTTP is to end with a context that is over: %v", err)
	}
}

func TestAnAddressThatServesNothingIsAProblemNotARedirect(t *testing.T) {
	e := start(t, topic("orders", embeddedBroker))
	for _, path := range []string{"/", "/default", "/default/topics/other", "/default/topics", "//default/topics/orders"} {
		code, body := post(t, e, path, `{}`)
		var problem struct{ Status int }
		if code != http.StatusNotFound || json.Unmarshal([]byte(body), &problem) != nil || problem.Status != 404 {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}
