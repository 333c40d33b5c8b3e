package contract

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is wrong with the flags is exit code 2, on standard error, and says what would be right; each flag's own faults are tested beside
// the command.
func TestWrongUsage(t *testing.T) {
	t.Parallel()
	says(t, "C14", "C4", "C12")
	good := manifest(t, broker, inboxMailbox)
	for args, part := range map[string]string{
		"vlidate":                     "did you mean validate?",
		"run":                         "-f",
		"run -f GOOD --prot 1":        "did you mean --port?",
		"run -f GOOD --port abc":      "whole number",
		"validate -f GOOD OTHER.yaml": "a -f of its own",
		"run -f GOOD --broker main=nats://me:s3cret@":      "nats://HOST:PORT",
		"run -f GOOD --broker main=kafka://a:9092,b:9092":  "no driver for Kafka",
		"run -f GOOD --broker main=amqps://me:s3cret@r":    "no driver for RabbitMQ",
		"run -f GOOD --broker main=sqs://eu-central-1":     "no driver for SQS",
		"run -f GOOD --broker mian=embedded:":              "did you mean default/main?",
		"run -f GOOD --service billing=http://me:s3cret@h": "credentials",
	} {
		code, out, errs := waybill(t, strings.Fields(strings.ReplaceAll(args, "GOOD", good))...)
		if code != 2 || out != "" || !strings.Contains(errs, part) || strings.Contains(errs, "s3cret") {
			t.Errorf("waybill %s: exit code %d, want 2 and %q: %s%s", args, code, part, out, errs)
		}
	}
	if code, out, _ := waybill(t, "version"); code != 0 || !strings.HasPrefix(out, "waybill ") {
		t.Errorf("version: exit code %d, %s", code, out)
	}
}

func TestAnOutputThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	says(t, "C13")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	cmd := exec.Command(binary, "validate", "-f", manifest(t, broker, inboxMailbox))
	cmd.Stdout = full
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("ended with %v", err)
	}
}

// One run in which every resource shows another thing: what the declared broker would give, what only the one that runs refuses, what is
// not mapped, and what is.
func TestDeclaredAndActualBroker(t *testing.T) {
	t.Parallel()
	says(t, "C4", "C5", "C6", "C15", "C17")
	billing := subscribe(t, nil)
	score := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"score": 7, "path": "` + r.URL.Path + `"}`)) // a broken connection fails the test elsewhere
	}))
	t.Cleanup(score.Close)
	file := manifest(t,
		"kind: Broker\nmetadata: {name: log}\nspec: {type: Kafka, kafka: {bootstrapServers: ['kafka:9092']}}",
		"kind: Broker\nmetadata: {name: queues}\nspec: {type: SQS, sqs: {region: eu-central-1}}",
		"kind: Topic\nmetadata: {name: orders}\nspec: {brokerRef: {name: log}, partitions: 12, replicas: 3}",
		"kind: Subscription\nmetadata: {name: keyed}\nspec: {topicRef: {name: orders}, ordering: Key, replicas: 3, deliverTo: {serviceRef: {name: billing, path: /events}}}",
		"kind: Subscription\nmetadata: {name: lost}\nspec: {topicRef: {name: orders}, deliverTo: {serviceRef: {name: nowhere, port: 81}}}",
		"kind: Mailbox\nmetadata: {name: keyed}\nspec: {brokerRef: {name: queues}, ordering: Key}",
		"kind: Mailbox\nmetadata: {name: scored}\nspec: {brokerRef: {name: extra}}",
		"kind: Pipeline\nmetadata: {name: score}\nspec: {from: {topicRef: {name: orders}}, steps: [{name: rate, container: {image: acme/score:1, port: 8000, path: /v1}}], to: {mailboxRef: {name: scored}}}",
		"kind: Pipeline\nmetadata: {name: unscored}\nspec: {from: {topicRef: {name: orders}}, steps: [{name: weigh, container: {image: acme/weigh:1, port: 8000}}], to: {mailboxRef: {name: scored}}}",
	)
	p := start(t, "-f", file, "--ephemeral", "--broker", "log=embedded:", "--broker", "queues=embedded:", "--broker", "extra=embedded:",
		"--service", "billing:80="+billing.URL, "--service", "biling=http://127.0.0.1:1", "--step", "rate="+score.URL+"/", "--step", "wiegh=http://127.0.0.1:1").awaitUp()

	topic := p.ready("Topic", "orders")
	if topic.Ordering != "Strict" || !strings.Contains(topic.raw, `"declared":{"guarantee":"AtLeastOnce","ordering":"Key"}`) {
		t.Errorf("both orderings are to be told: %s", topic.raw)
	}
	p.ready("Subscription", "keyed") // three replicas keep the order on Kafka; here there is one
	p.ready("Broker", "extra")       // no file declares it
	found := map[string]faultLine{}
	for _, e := range p.seen() {
		if e.Event == "ready" && (e.Name == "lost" || e.Name == "unscored" || e.Kind == "Mailbox" && e.Name == "keyed") {
			t.Errorf("is said to run: %s", e.raw)
		}
		if e.Event == "" {
			for _, f := range faults(t, e.raw) {
				found[f.Kind+"/"+f.Name+" "+f.Field] = f
			}
		}
	}
	for at, part := range map[string]string{
		"Mailbox/keyed spec.ordering":                 "not on the broker that runs here",
		"Subscription/lost spec.deliverTo.serviceRef": "--service nowhere:81=URL",
		"Pipeline/unscored spec.steps[0].container":   "--step weigh=URL",
	} {
		if f := found[at]; !strings.Contains(f.Message, part) || f.Line == 0 || f.File != file {
			t.Errorf("%s: %+v does not say %q", at, f, part)
		}
	}
	if len(found) != 3 {
		t.Errorf("more is refused than these three:\n%s", p.lines())
	}

	post(t, topic.Address, `{"n": 1}`, "Content-Type", "application/json").want(http.StatusAccepted)
	if got := billing.await(1)[0]; got.path != "/events" {
		t.Errorf("the Service was called at %s", got.path)
	}
	if got := receive(t, p.at("Mailbox", "scored", ""), "wait=20s"); len(got) != 1 || !strings.Contains(got[0].attribute(t, "data"), `"/v1"`) {
		t.Errorf("the program of the container step was not called: %v", got)
	}
	if code := p.signal(syscall.SIGTERM); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	for _, command := range []string{"validate", "compile"} {
		code, _, errs := waybill(t, command, "-f", file)
		if !strings.Contains(errs, "Pipeline default/score: spec.steps[0].container: ") || code != 1 {
			t.Errorf("%s: exit code %d, and nothing about the step that runs here: %s", command, code, errs)
		}
	}
	for _, part := range []string{"did you mean billing?", "did you mean weigh?"} {
		if !strings.Contains(p.stderr.String(), part) {
			t.Errorf("nothing says %q:\n%s", part, p.stderr.String())
		}
	}
}

func TestWhatTheDeclaredBrokerRefusesIsAnError(t *testing.T) {
	t.Parallel()
	says(t, "C5", "C13")
	file := manifest(t, "kind: Broker\nmetadata: {name: log}\nspec: {type: Kafka, kafka: {bootstrapServers: ['kafka:9092']}}",
		"kind: Mailbox\nmetadata: {name: bounded}\nspec: {brokerRef: {name: log}, retention: {maxMessages: 10}}", // Kafka cannot count, NATS can
		"kind: Topic\nmetadata: {name: orders}\nspec: {brokerRef: {name: log}}")
	code, out, _ := waybill(t, "run", "-f", file, "--ephemeral", "--port", "0", "--broker", "log=embedded:", "-o", "json")
	found := faults(t, out)
	if code != 1 || len(found) != 1 || found[0].Name != "bounded" || !strings.HasPrefix(found[0].Field, "spec.retention") {
		t.Errorf("exit code %d: %s", code, out)
	}
	// Without a driver, and with nothing in the broker's place, nothing runs.
	code, _, errs := waybill(t, "run", "-f", manifest(t, "kind: Broker\nmetadata: {name: log}\nspec: {type: Kafka, kafka: {bootstrapServers: ['kafka:9092']}}",
		"kind: Topic\nmetadata: {name: orders}\nspec: {brokerRef: {name: log}}"), "--ephemeral", "--port", "0")
	if code != 3 || !strings.Contains(errs, "--broker log=") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

// A broker that is away keeps what hangs on it from being ready; the address is told, and no password.
func TestABrokerThatIsAway(t *testing.T) {
	t.Parallel()
	says(t, "C4", "C8", "C15")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	p := start(t, "-f", manifest(t, broker, "kind: Topic\nmetadata: {name: orders}\nspec: {brokerRef: {name: away}}", inboxMailbox),
		"--ephemeral", "--broker", "away=nats://me:s3cret@"+address)
	eventually(t, "the rest to be ready", func() bool {
		return strings.Contains(p.lines(), `"inbox"`)
	})
	if code := p.signal(syscall.SIGTERM); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	all := p.lines() + p.stderr.String()
	if !strings.Contains(all, address) || strings.Contains(all, "s3cret") || strings.Contains(p.lines(), `"up"`) || strings.Contains(p.lines(), `"orders"`) {
		t.Errorf("want the address, no password, no up and no Topic ready:\n%s", all)
	}
}

func TestCompilePrintsPlans(t *testing.T) {
	t.Parallel()
	says(t, "C18")
	file := manifest(t, "kind: Broker\nmetadata: {name: main}\nspec: {type: NATS, nats: {servers: ['n:4222']}}",
		"kind: Topic\nmetadata: {name: orders}\nspec: {brokerRef: {name: main}, maxMessageBytes: 4Mi}",
		"kind: Mailbox\nmetadata: {name: inbox}\nspec: {brokerRef: {name: main}, ordering: Strict}")
	features := filepath.Join(t.TempDir(), "probed.yaml")
	if err := os.WriteFile(features, []byte("product: NATS\nflags: [AtomicBatch]\nmaxMessageBytes: 8388608\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := waybill(t, "compile", "-f", file); code != 1 || !strings.Contains(errs, "spec.maxMessageBytes") {
		t.Errorf("without features a NATS server takes 1 MiB: exit code %d, %s", code, errs)
	}
	for _, name := range []string{"main", "default/main"} {
		code, out, errs := waybill(t, "compile", "-f", file, "--features", name+"="+features)
		for _, part := range []string{"Topic/default/orders  plan ", "Mailbox/default/inbox  plan ", "guarantee  AtLeastOnce", "ordering   Strict", "by  "} {
			if code != 0 || !strings.Contains(out, part) {
				t.Errorf("--features %s: exit code %d, want %q in:\n%s%s", name, code, part, out, errs)
			}
		}
	}
	_, jsonLines, _ := waybill(t, "compile", "-f", file, "--features", "main="+features, "-o", "json")
	_, again, _ := waybill(t, "compile", "-f", file, "--features", "main="+features, "-o", "json")
	lines := strings.Split(strings.TrimSpace(jsonLines), "\n")
	if jsonLines != again || len(lines) != 2 {
		t.Errorf("the same files are to give the same two lines:\n%s\n%s", jsonLines, again)
	}
	for _, line := range lines {
		var p struct {
			Resource  struct{ Kind, Namespace, Name string }
			Effective struct{ Guarantee, Ordering string }
		}
		if err := json.Unmarshal([]byte(line), &p); err != nil || p.Resource.Kind == "" || p.Effective.Guarantee != "AtLeastOnce" || p.Effective.Ordering != "Strict" {
			t.Errorf("%v: %s", err, line)
		}
	}
	if _, yaml, _ := waybill(t, "compile", "-f", file, "--features", "main="+features, "-o", "yaml"); strings.Count(yaml, "---\n") != 2 || !strings.Contains(yaml, "kind: Mailbox") {
		t.Errorf("as YAML:\n%s", yaml)
	}

	// The features may stand in the Broker's own status, as a cluster shows them.
	probed := manifest(t, "kind: Broker\nmetadata: {name: main}\nspec: {type: NATS, nats: {servers: ['n:4222']}}\nstatus: {features: {product: NATS, maxMessageBytes: 8388608}}",
		"kind: Topic\nmetadata: {name: orders}\nspec: {brokerRef: {name: main}, maxMessageBytes: 4Mi}")
	if code, _, errs := waybill(t, "compile", "-f", probed); code != 0 {
		t.Errorf("with status.features: exit code %d, %s", code, errs)
	}
}

// What a person sees who pipes the output somewhere: plain lines, addresses, what to try.
func TestTextOutput(t *testing.T) {
	t.Parallel()
	says(t, "A1", "C9", "C17")
	p := start(t, "-f", manifest(t, broker, inboxMailbox, "kind: Topic\nmetadata: {name: orders}\nspec: {brokerRef: {name: main}}",
		"kind: Subscription\nmetadata: {name: lost}\nspec: {topicRef: {name: orders}, deliverTo: {serviceRef: {name: nowhere, port: 81}}}"), "--ephemeral", "-o", "text")
	eventually(t, "it to be up", func() bool { return strings.Contains(p.lines(), "Up after") })
	if code := p.signal(syscall.SIGTERM); code != 3 {
		t.Errorf("exit code %d", code)
	}
	out := p.lines()
	for _, part := range []string{"RESOURCE", "Mailbox/default/inbox", "AtLeastOnce", "http://127.0.0.1:", "default_inbox_mailbox_dead", "1 resource did not start:\n  Subscription/default/lost: Service nowhere, port 81, is not on this machine: add --service nowhere:81=URL", "Try:  curl http://127.0.0.1:", "Draining for up to 20s", "Drained: 0 in flight"} {
		if !strings.Contains(out, part) {
			t.Errorf("nothing says %q:\n%s", part, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("a terminal's codes where there is none: %q", out)
	}
}
