package outbound

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
)

// Guard says which addresses are not called. Loopback, link-local, multicast and unspecified addresses never are: they are the Pod itself,
// its node, or the metadata service of a cloud.
type Guard struct {
	// Refuse are more of them: the API server's address, for one.
	Refuse []netip.Prefix
}

// control runs when the address is known and before anything is sent to it.
func (g *Guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%q is not an address", address)
	}
	return g.check(ap.Addr())
}

// nat64 is the prefix under which an IPv6 network reaches IPv4 addresses (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func (g *Guard) check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	var kind string
	switch {
	case a.IsLoopback():
		kind = "loopback"
	case a.IsLinkLocalUnicast():
		kind = "link-local"
	case a.IsMulticast():
		kind = "multicast"
	case a.IsUnspecified():
		kind = "unspecified"
	default:
		for _, p := range g.Refuse {
			if p.Contains(a) {
				return fmt.Errorf("the address lies in %s, which must not be called from here", p)
			}
		}
		return nil
	}
	return fmt.Errorf("it is a %s address, and those must not be called from here", kind)
}
