package servers_test

import (
	"testing"

	"github.com/waybill-dev/waybill/test/servers"
)

func TestPostgresStartsAgainAfterACrash(t *testing.T) {
	p := servers.StartPostgres(t)
	if p == nil {
		return
	}
	for range 3 {
		p.Kill()
		p.Start()
	}
}
