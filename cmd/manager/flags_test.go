package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func none(string) string { return "" }

func TestFlags(t *testing.T) {
	inPod := func(name string) string {
		return map[string]string{"WORKER_IMAGE": "worker:1", "POD_NAMESPACE": "waybill-system"}[name]
	}
	c, err := readFlags([]string{"--watch-namespaces", "a,b"}, inPod, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	if c.image != "worker:1" || c.namespace != "waybill-system" || !c.leaderElection || len(c.watch) != 2 || c.lease != 15*time.Second {
		t.Errorf("%+v", c)
	}
	if c, err = readFlags([]string{"--worker-env", "OTEL_RESOURCE_ATTRIBUTES=team=a,stage=b", "--worker-env=EMPTY="}, inPod, new(bytes.Buffer)); err != nil ||
		len(c.env) != 2 || c.env["OTEL_RESOURCE_ATTRIBUTES"] != "team=a,stage=b" {
		t.Errorf("%v, %v", c.env, err)
	}
	if c, err = readFlags([]string{"--worker-image", "x:2", "--leader-election=false"}, none, new(bytes.Buffer)); err != nil || c.image != "x:2" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestWrongFlags(t *testing.T) {
	valid := []string{"--worker-image", "x", "--namespace", "n"}
	for _, c := range []struct{ args, want string }{
		{"--worker-image=", "--worker-image is missing"},
		{"--namespace=", "--namespace is missing"},
		{"--worker-pull-policy never", "it must be Always, IfNotPresent or Never"},
		{"--worker-drain -1s", "it must be 0s or longer"},
		{"--concurrency 0", "it must be 1 or more"},
		{"--lease 1s", "it must be 2s or longer"},
		{"--worker-env OTEL_SDK_DISABLED", "it must be NAME=VALUE"},
		{"--worker-env =x", "it must be NAME=VALUE"},
		{"--worker-env API:TOKEN=s3cret", "number 1 of them: it must be NAME=VALUE"},
		{"--worker-env A=1 --worker-env https://user:s3cret@example.com/?a=b", "number 2 of them: it must be NAME=VALUE"},
		{"--worker-env s3cret", "it must be NAME=VALUE"},
		{"--worker-env KUBERNETES_SERVICE_HOST=s3cret", "KUBERNETES_SERVICE_HOST: by KUBERNETES_*"},
		{"--worker-env A=s3cret --worker-env A=2", "has A twice"},
		{"--worker-env A=1 --worker-env A=2", "has A twice"},
		{"--worker-env OTEL_EXPORTER_OTLP_TRACES_HEADERS=api-key=x", "mostly holds a token"},
		{"--watch-namespaces a,,b", "one of the names is empty"},
		{"run", `"run" is one argument too many`},
		{"--no-such-flag", "unknown flag"},
	} {
		if _, err := readFlags(append(valid, strings.Fields(c.args)...), none, new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q and no value", c.args, err, c.want)
		}
	}
	var help bytes.Buffer
	if _, err := readFlags([]string{"--help"}, none, &help); !errors.Is(err, pflag.ErrHelp) || !strings.Contains(help.String(), "--worker-image image") {
		t.Errorf("%v: %s", err, help.String())
	}
}
