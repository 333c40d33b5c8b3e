package servers_test

import (
	"os"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/test/laptop"
	"github.com/waybill-dev/waybill/test/servers"
)

func TestMain(m *testing.M) { os.Exit(laptop.Main(m)) }

func TestNATSKeepsItsDataOverAKill(t *testing.T) {
	n := servers.StartNATS(t)
	js := connect(t, n)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	n.Kill()
	n.Start()
	s, err := connect(t, n).Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().State.Msgs; got != 1 {
		t.Errorf("%d messages are left of 1", got)
	}
}

func connect(t *testing.T, n *servers.NATS) jetstream.JetStream {
	t.Helper()
	c, err := nats.Connect(n.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestADiskIsFullAndFreeAgain(t *testing.T) {
	d := servers.MountDisk(t, 4)
	if d == nil {
		return
	}
	write := func() error { return os.WriteFile(d.Dir(), []byte("hello"), 0o600) }
	d.Fill()
	if write() == nil {
		t.Error("a full disk takes more")
	}
	d.Free()
	if err := write(); err != nil {
		t.Error(err)
	}
}
