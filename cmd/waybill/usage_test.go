package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever is wrong with the flags, the answer is exit code 2, on standard error, and says what would be right. None repeats a password.
func TestWrongUsage(t *testing.T) {
	good := write(t, embedded)
	features := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(features, []byte("flags: [AtomicBatsch]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, parts := range map[string][]string{
		"walk":                                         {`no command "walk"`},
		"vlidate":                                      {"did you mean validate?"},
		"--verson":                                     {"did you mean --version?"},
		"start -f GOOD":                                {`no command "start"`, "did you mean run?"},
		"lint":                                         {"did you mean validate?"},
		"-f GOOD":                                      {"behind its command", "waybill run -f"},
		"version 2":                                    {"takes none"},
		"run":                                          {"-f", "nothing to read"},
		"validate":                                     {"-f"},
		"compile":                                      {"-f"},
		"run -f GOOD --prot 1":                         {"did you mean --port?"},
		"run -f GOOD -x":                               {"-x"},
		"run -f GOOD --port":                           {"--port needs a value"},
		"run -f GOOD --port abc":                       {"--port abc", "whole number"},
		"run -f GOOD --port 70000":                     {"0 to 65535"},
		"run -f GOOD --port -1":                        {"0 to 65535"},
		"run -f GOOD --listen=":                        {"--listen: want an address", "127.0.0.1"},
		"run -f GOOD --listen 127.0.0.1:80":            {"--listen 127.0.0.1 --port 80"},
		"run -f GOOD --listen [::1]:80":                {"--listen ::1 --port 80"},
		"run -f GOOD --listen :80":                     {"--listen 0.0.0.0 --port 80"},
		"run -f GOOD --listen 127.1":                   {"--listen 127.1: want an address"},
		"run -f GOOD --listen [::1":                    {"--listen [::1: want an address"},
		"run -f GOOD --listen a\x1bb":                  {`--listen "a\x1bb": want an address`},
		"run -f GOOD --listen http://h":                {"want an address"},
		"run -f GOOD --drain 5":                        {"--drain 5", "20s"},
		"run -f GOOD --drain -5s":                      {"0s or more"},
		"run -f GOOD --ephemeral=maybe":                {"true or false"},
		"run -f GOOD --ephemeral --data x":             {"--data and --ephemeral"},
		"run -f GOOD -o yaml":                          {"text or json"},
		"validate -f GOOD -o xml":                      {"text or json"},
		"validate -f GOOD OTHER.yaml":                  {`"OTHER.yaml"`, "a -f of its own"},
		"validate -f GOOD --drain 5s":                  {"--drain"},
		"compile -f GOOD -o xml":                       {"text or json or yaml"},
		"compile -f GOOD --features main":              {"NAME=FILE"},
		"compile -f GOOD --features main=/nowhere":     {"/nowhere", "no such file"},
		"compile -f GOOD --features man=FEATURES":      {"did you mean default/main?"},
		"compile -f GOOD --features main=FEATURES":     {"did you mean AtomicBatch?"},
		"run -f GOOD --broker main":                    {"NAME=URL", "nats://"},
		"run -f GOOD --broker =nats://n:1":             {"NAME=URL"},
		"run -f GOOD --broker main=n:4222":             {"embedded:"},
		"run -f GOOD --broker main=http://n:4222":      {`"http"`, "embedded:"},
		"run -f GOOD --broker main=nats://":            {"nats://HOST:PORT"},
		"run -f GOOD --broker main=nats://n:abc":       {"HOST:PORT"},
		"run -f GOOD --broker main=nats://n:4222/path": {"path"},
		"run -f GOOD --broker main=embedded:x":         {"takes no address"},
		"run -f GOOD --broker main=embedded: --broker main=nats://n:1": {"given twice"},
		"run -f GOOD --broker main=nats://me:s3cret@":                  {"nats://HOST:PORT"},
		"run -f GOOD --broker me:s3cret@n:4222":                        {"NAME=URL"},
		"run -f GOOD --broker main=me:s3cret@n:4222":                   {"embedded:"},
		"run -f GOOD --broker main=nats://me:s3cret":                   {"HOST:PORT"},
		"run -f GOOD --broker main=nats://me:s3cret%@n":                {"%XX"},
		"run -f GOOD --broker main=kafka://a:9092,b:9092":              {"no driver for Kafka"},
		"run -f GOOD --broker main=amqp://me:s3cret@r:5672":            {"no driver for RabbitMQ"},
		"run -f GOOD --broker main=amqps://r":                          {"no driver for RabbitMQ"},
		"run -f GOOD --broker main=sqs://eu-central-1":                 {"no driver for SQS"},
		"run -f GOOD --broker main=sqs://127.0.0.1:9324":               {"no driver for SQS"},
		"run -f GOOD --service billing":                                {"NAME[.NAMESPACE][:PORT]=URL"},
		"run -f GOOD --service billing=127.0.0.1:9000":                 {"http://127.0.0.1:9000"},
		"run -f GOOD --service billing:http=http://h":                  {"no port"},
		"run -f GOOD --service billing:0=http://h":                     {"no port"},
		"run -f GOOD --service a.b.c=http://h":                         {"billing.shop:80"},
		"run -f GOOD --service b=http://me:s3cret@h":                   {"credentials"},
		"run -f GOOD --service b=http://h --service b=http://i":        {"given twice"},
		"run -f GOOD --step score":                                     {"NAME=URL"},
		"run -f GOOD --step score=ftp://h":                             {"http://"},
	} {
		words := strings.Fields(strings.NewReplacer("GOOD", good, "FEATURES", features).Replace(args))
		code, out, errs := call(t, words...)
		if code != exitUsage || out != "" {
			t.Errorf("waybill %s: exit code %d, want 2 and nothing on standard output: %s%s", args, code, out, errs)
		}
		for _, part := range parts {
			if !strings.Contains(errs, part) {
				t.Errorf("waybill %s does not say %q: %s", args, part, errs)
			}
		}
		if strings.Contains(errs, "s3cret") || strings.Contains(errs, "strconv") || strings.Contains(errs, "required flag") {
			t.Errorf("waybill %s says what it should not: %s", args, errs)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for args, part := range map[string]string{
		"":                "waybill run -f",
		"--help":          "waybill validate -f",
		"run --help":      "--broker main=embedded:",
		"validate --help": "kustomize build",
		"compile --help":  "maxMessageBytes",
		"--version":       "waybill ",
		"version":         "go1",
		"completion bash": "complete",
		"help run":        "Exit codes",
	} {
		if code, out, errs := call(t, strings.Fields(args)...); code != exitDone || !strings.Contains(out, part) || errs != "" {
			t.Errorf("waybill %s: exit code %d, want %q in:\n%s%s", args, code, part, out, errs)
		}
	}
}

func TestServicesAreMappedByNameNamespaceAndPort(t *testing.T) {
	mapped, err := parseServices([]string{"billing=http://h", "billing:81=http://i/base/", "billing.shop.svc.cluster.local:80=https://j"})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"default/billing:": "http://h", "default/billing:81": "http://i/base", "shop/billing:80": "https://j"} {
		if mapped[key] != want {
			t.Errorf("%s is at %q, want %q", key, mapped[key], want)
		}
	}
}
