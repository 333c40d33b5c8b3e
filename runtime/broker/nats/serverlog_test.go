package nats

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestARecoveryIsNoWarning(t *testing.T) {
	var out bytes.Buffer
	l := &serverLog{to: slog.New(slog.NewTextHandler(&out, nil))}
	l.Warnf("Filestore [default_orders] Stream state outdated, last block has additional entries, will rebuild")
	l.Warnf("Filestore [default_orders] Recovering stream state from index errored: %v", "prior state file")
	if out.Len() > 0 {
		t.Errorf("a start after a crash warns: %s", &out)
	}
	l.Warnf("Filestore [default_orders] Recovering stream state from index errored: %v", "corrupt state file")
	l.Warnf("Filestore [default_orders] Stream state checksum did not match")
	if n := strings.Count(out.String(), "level=WARN"); n != 2 {
		t.Errorf("%d of two warnings about damage were passed on: %s", n, &out)
	}
}
