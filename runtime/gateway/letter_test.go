package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/runtime/plan"
)

func TestAMessageAtTheLimitCanBeDeadLettered(t *testing.T) {
	const size = 1<<20 - 24<<10 // with the encoded subject just within what the broker takes
	r := newRig(t)
	dead := r.mailbox("m-dead")
	m := r.mailbox("m", withDeadLetter(5), func(p *plan.Mailbox) { p.MaxMessageBytes = size })
	m.post("/messages", strings.Repeat("x", size), "Content-Type", "text/plain", "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "/s", "Ce-Type", "t",
		"Ce-Subject", strings.Repeat("é", 3950)).want(http.StatusAccepted)
	m.post("/leases/"+m.one().Lease+"/reject?reason="+strings.Repeat("bad", 200), "").want(http.StatusNoContent)
	if e := dead.one().event(t); e.ID != "1" || len(e.Data) != size || e.Attribute("wbreason") != "Rejected" || e.Attribute("wblasterror") != "" {
		t.Fatalf("got %d bytes, %v", len(e.Data), e.Attributes)
	}
}
