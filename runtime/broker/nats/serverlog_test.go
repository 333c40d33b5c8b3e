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

func TestAFailedWriteIsTold(t *testing.T) {
	told := 0
	l := &serverLog{sick: func() { told++ }}
	l.Errorf("Filestore [%s] Critical write error: %v", "default_orders", "no space left on device")
	l.Errorf("JetStream stream '%s' critical write error: %v", "$G > default_orders", "no space left on device")
	l.Errorf("JetStream out of %s resources, will be DISABLED", "File")
	if told != 3 {
		t.Errorf("%d of three were told", told)
	}
	if l.Errorf("A client was slow"); told != 3 {
		t.Error("what is no failed write was told as one")
	}
}
