package outbound

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/runtime/flow"
)

func TestGuardAddresses(t *testing.T) {
	g := &Guard{Refuse: []netip.Prefix{netip.MustParsePrefix("10.96.0.1/32"), netip.MustParsePrefix("fd00:1::/32")}}
	for addr, refused := range map[string]bool{
		"127.0.0.1": true, "127.8.8.8": true, "::1": true, "::ffff:127.0.0.1": true, "0.0.0.0": true, "::": true,
		"169.254.169.254": true, "fe80::1%eth0": true, "::ffff:169.254.1.1": true, "64:ff9b::a9fe:a9fe": true, "224.0.0.1": true, "ff02::1": true,
		"10.96.0.1": true, "::ffff:10.96.0.1": true, "64:ff9b::a60:1": true, "fd00:1::5": true,
		"10.96.0.2": false, "192.168.1.1": false, "8.8.8.8": false, "2001:db8::1": false, "fd00:2::5": false, "64:ff9b::808:808": false,
	} {
		if err := g.check(netip.MustParseAddr(addr)); (err != nil) != refused {
			t.Errorf("%s: %v; refused should be %v", addr, err, refused)
		}
	}
}

// The guard looks at the address that is dialled and not at the name that led there.
func TestGuardStopsADial(t *testing.T) {
	u := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the server was called") })
	u.Host = strings.Replace(u.Host, "127.0.0.1", "localhost", 1)
	_, err := newClient(t, Config{Guard: &Guard{}}).Send(t.Context(), &Target{URL: u}, event())
	f := fault(t, err)
	if f.Blame != flow.Unreachable || !strings.Contains(f.Error(), "loopback") {
		t.Errorf("blame %d: %v", f.Blame, f)
	}
}
