package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	ours  = "apiVersion: waybill.dev/v1alpha1\n"
	queue = "kind: Mailbox\nmetadata: {name: %s}\nspec: {brokerRef: {name: main}}"
)

// folder writes files, by their paths in it.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for path, content := range files {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func mailboxNamed(name string) string { return ours + fmt.Sprintf(queue, name) + "\n" }

// piped is waybill with something on its standard input.
func piped(t *testing.T, stdin string, args ...string) (code int, out string) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Stdin = strings.NewReader(stdin)
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

func TestWhatIsReadOfAFolder(t *testing.T) {
	t.Parallel()
	says(t, "C1", "C2", "C3")
	list := `{"apiVersion": "v1", "kind": "List", "items": [` +
		`{"apiVersion": "waybill.dev/v1alpha1", "kind": "Mailbox", "metadata": {"name": "d"}, "spec": {"brokerRef": {"name": "main"}}},` +
		`{"apiVersion": "waybill.dev/v1alpha1", "kind": "Mailbox", "metadata": {"name": "e"}, "spec": {"brokerRef": {"name": "main"}}}]}`
	dir := folder(t, map[string]string{
		"a.yaml":      strings.TrimLeft(broker, "\n") + "---\n# nothing in between\n---\n" + mailboxNamed("a"),
		"b.yml":       "\xef\xbb\xbf" + strings.ReplaceAll(mailboxNamed("b"), "\n", "\r\n"), // as an editor of another system writes it
		"c.JSON":      `{"apiVersion": "waybill.dev/v1alpha1", "kind": "Mailbox", "metadata": {"name": "c"}, "spec": {"brokerRef": {"name": "main"}}}`,
		"d.json":      list,
		"notes.txt":   "not: [a manifest",
		".hidden.yml": "not: [a manifest",
		"empty.yaml":  "# commented out\n",
		"others.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: y}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: z}\n",
		"sub/f.yaml":  mailboxNamed("f"),
	})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"without subfolders":    {[]string{"-f", dir}, 6},
		"with subfolders":       {[]string{"-R", "-f", dir}, 7},
		"a link to it":          {[]string{"-f", link}, 6},
		"and one of it twice":   {[]string{"-f", filepath.Join(link, "a.yaml"), "-f", dir, "-f", dir}, 6},
		"files, and a folder":   {[]string{"-f", filepath.Join(dir, "a.yaml"), "-f", filepath.Join(dir, "sub")}, 3},
		"a List, with a Broker": {[]string{"-f", filepath.Join(dir, "a.yaml"), "-f", filepath.Join(dir, "d.json")}, 4},
	} {
		code, out, errs := waybill(t, append([]string{"validate"}, c.args...)...)
		if code != 0 || !strings.HasPrefix(out, fmt.Sprintf("%d resources in ", c.want)) {
			t.Errorf("%s: exit code %d, %s%s", name, code, out, errs)
		}
	}

	_, _, errs := waybill(t, "validate", "-f", dir)
	if strings.Count(errs, "Deployment") != 1 || strings.Count(errs, "ConfigMap") != 1 || !strings.Contains(errs, "others.yaml:1: skipped apps/v1 Deployment") || !strings.Contains(errs, "(and 1 more)") {
		t.Errorf("others' kinds are to be named once, with where the first stands:\n%s", errs)
	}
	_, out, _ := waybill(t, "compile", "-f", dir, "-o", "json")
	if n := strings.Count(out, `"resource":{"kind":"Mailbox","name":"`); n != 0 {
		t.Errorf("%d plans without a namespace", n)
	}
	if !strings.Contains(out, `"namespace":"default"`) {
		t.Errorf("no plan of the namespace default:\n%s", out)
	}
}

func TestManifestsFromStandardInput(t *testing.T) {
	t.Parallel()
	says(t, "C1")
	if code, out := piped(t, broker+"---\n"+mailboxNamed("a"), "validate", "-f", "-"); code != 0 || !strings.Contains(out, "2 resources in 1 file: valid") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if code, out := piped(t, mailboxNamed("a"), "validate", "-f", "-"); code != 1 || !strings.Contains(out, "<stdin>:4: Mailbox default/a: spec.brokerRef") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if code, out := piped(t, "", "validate", "-f", "-"); code != 1 || !strings.Contains(out, "<stdin>: no object in it") {
		t.Errorf("nothing: exit code %d: %s", code, out)
	}
}

// Whatever is named by -f, the answer says what is wrong with it.
func TestPathsAndFilesThatAreNoManifests(t *testing.T) {
	t.Parallel()
	says(t, "C1", "C13", "C14")
	dir := folder(t, map[string]string{
		"good.yaml":       strings.TrimLeft(broker, "\n"),
		"again.yaml":      strings.TrimLeft(broker, "\n"),
		"empty.yaml":      "",
		"comment.yaml":    "# nothing\n---\n",
		"binary.yaml":     "\x7fELF\x02\x01\x01\x00\xff\xfe",
		"text.yaml":       "hello\n",
		"tab.yaml":        ours + "kind: Broker\nmetadata:\n\tname: main\n",
		"cut.json":        `{"apiVersion": `,
		"kind.yaml":       ours + "kind: Borker\nmetadata: {name: main}\n",
		"version.yaml":    "apiVersion: waybill.dev/v1\nkind: Broker\nmetadata: {name: main}\n",
		"others.yaml":     "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: z}\n",
		"nothing/a.txt":   "x",
		"below/deep/a.md": "x",
	})
	if err := os.Symlink(filepath.Join(dir, "gone"), filepath.Join(dir, "dangling.yaml")); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	unreadable := []string{"binary.yaml", "text.yaml", "tab.yaml", "cut.json", "kind.yaml", "version.yaml"}
	args := []string{"validate", "-f", "/dev/zero", "-f", at("empty.yaml")}
	for _, name := range unreadable {
		args = append(args, "-f", at(name))
	}
	code, out, errs := waybill(t, args...)
	if code != 1 || out != "" {
		t.Errorf("exit code %d, %s", code, out)
	}
	for _, part := range append(unreadable, "/dev/zero:1: cannot be read: ", "MiB", "tab.yaml:4: ", "did you mean Broker?", "use waybill.dev/v1alpha1", "is no Kubernetes object") {
		if !strings.Contains(errs, part) {
			t.Errorf("nothing says %q:\n%s", part, errs)
		}
	}
	for _, path := range []string{at("empty.yaml"), at("comment.yaml"), "/dev/null"} {
		if code, _, errs := waybill(t, "validate", "-f", path); code != 1 || !strings.Contains(errs, path+": no object in it") {
			t.Errorf("validate -f %s: exit code %d, %s", path, code, errs)
		}
	}
	for path, part := range map[string]string{at("nothing"): "no .yaml, .yml or .json file", at("below"): "-R"} {
		if code, out, errs := waybill(t, "validate", "-f", path); code != 1 || !strings.Contains(errs, part) || out != "" {
			t.Errorf("validate -f %s: exit code %d, want 1 and %q in:\n%s%s", path, code, part, out, errs)
		}
	}
	for path, part := range map[string]string{
		at("gone.yaml"):                         "no such file",
		at("dangling.yaml"):                     "no such file",
		at("*.yaml"):                            "patterns are not expanded",
		at("good.yaml") + "," + at("text.yaml"): "not in a list with commas",
		"https://example.com/a.yaml":            "only files are read",
		"":                                      "name a file or a folder",
	} {
		if code, out, errs := waybill(t, "validate", "-f", path); code != 2 || !strings.Contains(errs, part) || out != "" {
			t.Errorf("validate -f %s: exit code %d, want 2 and %q in:\n%s%s", path, code, part, out, errs)
		}
	}
	if code, _, errs := waybill(t, "validate", "-f", at("good.yaml"), "-f", at("again.yaml")); code != 1 || !strings.Contains(errs, "again.yaml:3: Broker default/main: metadata.name:") || !strings.Contains(errs, "good.yaml:3") {
		t.Errorf("the same resource twice: exit code %d, %s", code, errs)
	}
	if code, out, _ := waybill(t, "validate", "-f", at("others.yaml")); code != 0 || !strings.Contains(out, "nothing there is Waybill's") {
		t.Errorf("others' kinds alone: exit code %d, %s", code, out)
	}
	if code, _, errs := waybill(t, "run", "-f", at("others.yaml"), "--ephemeral", "--port", "0"); code != 1 || !strings.Contains(errs, "nothing to run") {
		t.Errorf("run of others' kinds alone: exit code %d, %s", code, errs)
	}
}

// A fault is one line of -o json.
type faultLine struct {
	File, Kind, Namespace, Name, Field, Reason, Message string
	Line                                                int
}

func faults(t *testing.T, out string) (all []faultLine) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(out))
	dec.DisallowUnknownFields()
	for dec.More() {
		var f faultLine
		if err := dec.Decode(&f); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		all = append(all, f)
	}
	return all
}

func TestDiagnosticsAreLinesOfJSON(t *testing.T) {
	t.Parallel()
	says(t, "C10", "C11", "C13")
	path := manifest(t, broker, `
kind: Pipeline
metadata:
  name: enrich
  namespace: shop
spec:
  from:
    topicRef: {name: orders}
  steps:
  - name: big
    filter:
      cel: data.total >
  to:
    topicRef: {name: out}
`, "kind: Topic\nmetadata: {name: orders, namespace: shop}\nspec: {brokerRef: {name: main, namespace: nowhere}}")
	var before string
	for _, command := range [][]string{{"validate"}, {"run", "--ephemeral", "--port", "0"}, {"compile"}} {
		code, out, _ := waybill(t, append(command, "-f", path, "-o", "json")...)
		if code != 1 {
			t.Errorf("%v: exit code %d", command, code)
		}
		if before != "" && out != before {
			t.Errorf("%v says something else than validate:\n%s\n%s", command, out, before)
		}
		before = out
		found := map[string]faultLine{}
		for _, f := range faults(t, out) {
			if f.File != path || f.Reason == "" || f.Message == "" || f.Line == 0 {
				t.Errorf("%v: %+v", command, f)
			}
			found[f.Kind+" "+f.Namespace+"/"+f.Name+" "+f.Field] = f
		}
		for at, line := range map[string]int{
			"Pipeline shop/enrich spec.steps[0].filter.cel": 19,
			"Pipeline shop/enrich spec.to.topicRef":         21,
			"Topic shop/orders spec.brokerRef":              27,
		} {
			if f, ok := found[at]; !ok || f.Line != line {
				t.Errorf("%v: %s: line %d, want %d\n%s", command, at, f.Line, line, out)
			}
		}
	}
	if _, _, errs := waybill(t, "validate", "-f", path); !strings.Contains(errs, path+":27: Topic shop/orders: spec.brokerRef: ") {
		t.Errorf("as text:\n%s", errs)
	}

	good := manifest(t, broker)
	if code, out, errs := waybill(t, "validate", "-f", good, "-o", "json"); code != 0 || out != "" || errs != "" {
		t.Errorf("what is valid is to print no line: exit code %d, %q, %q", code, out, errs)
	}
}

// secretFor makes a Secret with these keys.
func secretFor(name string, keys ...string) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData:\n", name)
	for _, k := range keys {
		fmt.Fprintf(&b, "  %s: x\n", k)
	}
	return b.String()
}

func TestKeysOfSecrets(t *testing.T) {
	t.Parallel()
	says(t, "F1", "F2")
	const poller = "kind: Poller\nmetadata: {name: NAME}\nspec: {schedule: {every: 1m}, http: {url: 'http://127.0.0.1:1/', auth: {%s: {%ssecretRef: {name: NAME}}}}, to: {topicRef: {name: t}}}"
	const nats = "kind: Broker\nmetadata: {name: NAME}\nspec: {type: NATS, nats: {servers: ['NAME:4222']%s}%s}"
	cases := map[string]struct {
		document string
		right    []string // keys with which it is valid
		wrong    []string // keys with which it is not
		names    string   // what the fault names
	}{
		"bearer":  {"kind: Mailbox\nmetadata: {name: NAME}\nspec: {brokerRef: {name: main}, auth: {bearer: {secretRef: {name: NAME}}}}", []string{"token"}, []string{"tokn"}, "token"},
		"own-key": {"kind: Mailbox\nmetadata: {name: NAME}\nspec: {brokerRef: {name: main}, auth: {bearer: {secretRef: {name: NAME, key: mine}}}}", []string{"mine"}, []string{"token"}, "mine"},
		"basic":   {fmt.Sprintf(poller, "basic", ""), []string{"username", "password"}, []string{"username"}, "password"},
		"header":  {fmt.Sprintf(poller, "header", "name: X-Key, "), []string{"token"}, []string{"password"}, "token"},
		"login":   {fmt.Sprintf(nats, "", ", secretRef: {name: NAME}"), []string{"username", "password"}, []string{"username"}, "password"},
		"token":   {fmt.Sprintf(nats, "", ", secretRef: {name: NAME}"), []string{"token"}, []string{"key"}, "token"},
		"ca":      {fmt.Sprintf(nats, ", tls: {caSecretRef: {name: NAME}}", ""), []string{"ca.crt"}, []string{"tls.crt"}, "ca.crt"},
		"client":  {fmt.Sprintf(nats, ", tls: {clientSecretRef: {name: NAME}}", ""), []string{"tls.crt", "tls.key"}, []string{"tls.crt"}, "tls.key"},
		"rabbit":  {"kind: Broker\nmetadata: {name: NAME}\nspec: {type: RabbitMQ, rabbitmq: {addresses: ['r:5672']}, secretRef: {name: NAME}}", []string{"username", "password"}, []string{"password"}, "username"},
	}
	base := []string{broker, "kind: Topic\nmetadata: {name: t}\nspec: {brokerRef: {name: main}}"}
	for name, c := range cases {
		base = append(base, strings.ReplaceAll(c.document, "NAME", name))
	}
	right, wrong := slices.Clip(base), slices.Clip(base)
	for name, c := range cases {
		right, wrong = append(right, secretFor(name, c.right...)), append(wrong, secretFor(name, c.wrong...))
	}
	if code, _, errs := waybill(t, "validate", "-f", manifest(t, right...)); code != 0 {
		t.Errorf("with all keys: exit code %d, %s", code, errs)
	}
	blank := slices.Clip(base)
	for name, c := range cases {
		blank = append(blank, strings.ReplaceAll(secretFor(name, c.right...), ": x\n", ": \" \"\n"))
	}
	for what, documents := range map[string][]string{"without the key": wrong, "without the Secret": base, "without a value": blank} {
		code, out, _ := waybill(t, "validate", "-f", manifest(t, documents...), "-o", "json")
		if code != 1 {
			t.Errorf("%s: exit code %d", what, code)
		}
		found := map[string]string{}
		for _, f := range faults(t, out) {
			found[f.Name] = f.Message
		}
		for name, c := range cases {
			part := c.names
			switch what {
			case "without the Secret":
				part = "Secret"
			case "without a value":
				part = "is empty"
			}
			if !strings.Contains(found[name], part) {
				t.Errorf("%s: of %s it says %q, which does not name %q", what, name, found[name], part)
			}
		}
	}

	// A Secret is of its resource's own namespace.
	code, _, errs := waybill(t, "validate", "-f", manifest(t, "kind: Broker\nmetadata: {name: own, namespace: other}\nspec: {type: Embedded}",
		"kind: Mailbox\nmetadata: {name: m, namespace: other}\nspec: {brokerRef: {name: own}, auth: {bearer: {secretRef: {name: s}}}}", secretFor("s", "token")))
	if code != 1 || !strings.Contains(errs, "Secret") || !strings.Contains(errs, "other") {
		t.Errorf("a Secret of another namespace: exit code %d, %s", code, errs)
	}
}

// What a file holds neither moves a terminal's cursor nor fills it.
func TestDiagnosticsStayReadable(t *testing.T) {
	t.Parallel()
	says(t, "C10")
	file := manifest(t, broker, "kind: Topic\nmetadata: {name: \"a\\e[31m\\nb\"}\nspec: {brokerRef: {name: main}}",
		"kind: Mailbox\nmetadata: {name: long}\nspec: {brokerRef: {name: main}, ordering: "+strings.Repeat("x", 1<<20)+", \"c\\e[2J\": 1}")
	code, _, errs := waybill(t, "validate", "-f", file)
	for _, part := range []string{`Topic default/a\x1b[31m\nb: `, `spec.c\x1b[2J: unknown field`, "…", "it must be None, Key or Strict"} {
		if code != 1 || !strings.Contains(errs, part) {
			t.Errorf("exit code %d, want %q in %.3000q", code, part, errs)
		}
	}
	if strings.Contains(errs, "\x1b") || len(errs) > 10_000 {
		t.Errorf("a terminal's codes, or %d bytes: %.3000q", len(errs), errs)
	}
	if _, out, _ := waybill(t, "validate", "-f", file, "-o", "json"); len(out) > 10_000 || !strings.Contains(out, "…") {
		t.Errorf("%d bytes: %.3000q", len(out), out)
	}
}

func TestBrokersAreDeclaredAsThePageSays(t *testing.T) {
	t.Parallel()
	says(t, "F3")
	right := []string{
		"{type: Embedded}",
		"{type: Embedded, embedded: {storage: 1Gi}}",
		"{type: NATS, nats: {servers: ['n:4222', 'nats://m:4222'], tls: {caSecretRef: {name: ca}}, jetStreamDomain: hub}}",
		"{type: Kafka, kafka: {bootstrapServers: ['k:9092'], tls: {}, sasl: {mechanism: SCRAM-SHA-512}}, secretRef: {name: u}}",
		"{type: Redpanda, kafka: {bootstrapServers: ['p:9092']}}",
		"{type: RabbitMQ, rabbitmq: {addresses: ['r:5672'], vhost: shop, tls: {}, managementUrl: 'http://r:15672'}}",
		"{type: SQS, sqs: {region: eu-central-1, endpoint: 'http://127.0.0.1:9324', sns: Enabled}}",
		"{type: SQS, sqs: {region: eu-central-2, sns: Disabled}}",
	}
	wrong := []struct{ spec, field string }{
		{"{type: Kafka, nats: {servers: ['n:4222']}}", "spec"},
		{"{type: NATS}", "spec"},
		{"{type: Pulsar}", "spec.type"},
		{"{type: NATS, nats: {servers: []}}", "spec.nats.servers"},
		{"{type: NATS, nats: {servers: ['me:s3cret@n:4222']}}", "spec.nats.servers[0]"},
		{"{type: Kafka, kafka: {bootstrapServers: ['kafka://k:9092']}}", "spec.kafka.bootstrapServers[0]"},
		{"{type: Kafka, kafka: {bootstrapServers: ['k:9092'], sasl: {mechanism: MAGIC}}, secretRef: {name: u}}", "spec.kafka.sasl.mechanism"},
		{"{type: Embedded, embedded: {storage: 0}}", "spec.embedded.storage"},
	}
	secrets := []string{secretFor("ca", "ca.crt"), secretFor("u", "username", "password")}
	documents := secrets
	for i, spec := range right {
		documents = append(documents, fmt.Sprintf("kind: Broker\nmetadata: {name: b%d}\nspec: %s", i, spec))
	}
	if code, out, _ := waybill(t, "validate", "-f", manifest(t, documents...), "-o", "json"); code != 0 {
		t.Errorf("exit code %d, %s", code, out)
	}
	// What the schema refuses keeps the compiler from looking at that object only.
	documents = secrets
	for i, w := range wrong {
		documents = append(documents, fmt.Sprintf("kind: Broker\nmetadata: {name: b%d}\nspec: %s", i, w.spec))
	}
	code, out, _ := waybill(t, "validate", "-f", manifest(t, documents...), "-o", "json")
	found := map[string]string{}
	for _, f := range faults(t, out) {
		found[f.Name] += f.Field + " "
	}
	for i, w := range wrong {
		if !strings.Contains(found[fmt.Sprintf("b%d", i)], w.field) {
			t.Errorf("%s: faults at %q, want one at %s", w.spec, found[fmt.Sprintf("b%d", i)], w.field)
		}
	}
	if code != 1 || strings.Contains(out, "s3cret") {
		t.Errorf("exit code %d, or a password is told:\n%s", code, out)
	}
}
