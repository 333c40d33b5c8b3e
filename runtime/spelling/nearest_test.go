package spelling

import "testing"

func TestNearest(t *testing.T) {
	fields := []string{"brokerRef", "deletionPolicy", "retention", "schema", "to"}
	for word, want := range map[string]string{
		"brokerReff": "brokerRef", "BrokerRef": "brokerRef", "retnetion": "retention", "schmea": "schema", // one swap is one fault
		"colour": "", "": "", "x": "", "deletePolicy": "deletionPolicy", "tpo": "to",
		"broker": "brokerRef", "sche": "schema", "rete": "retention", "sch": "",
	} {
		if got := Nearest(word, fields); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
	if got := Nearest("cat", []string{"hat", "bat"}); got != "bat" {
		t.Errorf("of equally near ones: got %q, want the first in the alphabet", got)
	}
}
