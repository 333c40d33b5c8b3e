package secret

import "testing"

func TestAGenerationNamesTheContent(t *testing.T) {
	data := func(kv ...string) map[string][]byte {
		m := map[string][]byte{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = []byte(kv[i+1])
		}
		return m
	}
	base := Generation("shop", "nats", data("username", "worker", "password", "one"))
	if len(base) != 8 || base != Generation("shop", "nats", data("password", "one", "username", "worker")) {
		t.Errorf("the same content: %q and another", base)
	}
	for what, other := range map[string]string{
		"value":      Generation("shop", "nats", data("username", "worker", "password", "two")),
		"key":        Generation("shop", "nats", data("username", "worker", "token", "one")),
		"one less":   Generation("shop", "nats", data("username", "worker")),
		"boundary":   Generation("shop", "nats", data("username", "workerp", "assword", "one")),
		"secret":     Generation("shop", "other", data("username", "worker", "password", "one")),
		"namespace":  Generation("other", "nats", data("username", "worker", "password", "one")),
		"no content": Generation("shop", "nats", nil),
	} {
		if other == base {
			t.Errorf("another %s has the same generation", what)
		}
	}
}
