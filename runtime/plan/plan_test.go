package plan

import (
	"strings"
	"testing"
	"time"
)

func TestAPlanIsReadAsItWasWritten(t *testing.T) {
	p := &Plan{Version: Version, Resource: Resource{"Poller", "shop", "rates"}, Brokers: []Broker{{Name: "shop/main", Protocol: "NATS"}},
		Objects: []Object{{Ref: Ref{Broker: "shop/main", Kind: "Topic", Name: "shop_rates"}, Owner: "Topic/shop/rates", MaxAge: Duration(36 * time.Hour)}},
		Poller: &Poller{Schedule: Schedule{Every: Duration(90 * time.Second)}, Items: &Expr{CEL: `body.results.filter(r, r.a < 1 && r.b > "&")`},
			To: Ref{Broker: "shop/main", Kind: "Topic", Name: "shop_rates"}}}
	first, err := Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(first), `"maxAge":"36h0m0s"`) || !strings.Contains(string(first), `r.a < 1 && r.b`) {
		t.Errorf("not as a person would read it: %s", first)
	}
	again, err := Unmarshal(first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Marshal(again)
	if err != nil || string(second) != string(first) {
		t.Errorf("%v: %s became %s", err, first, second)
	}
	if Hash(first) != Hash(second) || len(Hash(first)) != 10 {
		t.Errorf("hash %s and %s", Hash(first), Hash(second))
	}
}

func TestAPlanOfAnotherVersionOrWithAnUnknownFieldIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"version":2,"resource":{"kind":"Topic","namespace":"a","name":"b"},"effective":{},"brokers":[]}`:                "version 2",
		`{"version":1,"resource":{"kind":"Topic","namespace":"a","name":"b"},"effective":{},"brokers":[],"colour":"red"}`: "colour",
		`{"version":1`: "unexpected EOF",
	} {
		if _, err := Unmarshal([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestNamesAndPaths(t *testing.T) {
	for kind, want := range map[string][2]string{
		"Topic": {"orders-topic", "/shop/topics/orders"}, "Mailbox": {"orders-mailbox", "/shop/mailboxes/orders"}, "Endpoint": {"orders-endpoint", "/shop/endpoints/orders"},
	} {
		r := Resource{kind, "shop", "orders"}
		if r.Child() != want[0] || r.Path() != want[1] {
			t.Errorf("%s: %s %s", r, r.Child(), r.Path())
		}
	}
}
