package nats_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/message"
)

// payload is 300 bytes.
var payload = func() []byte {
	b := make([]byte, 300)
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return b
}()

func benchMessages(n, from int) []message.Message {
	ms := make([]message.Message, n)
	for i := range ms {
		ms[i] = message.Message{ID: fmt.Sprintf("id-%08d", from+i), Source: "/bench", Type: "order.created", Key: fmt.Sprint(i % 50),
			DataContentType: "application/json", Data: payload}
	}
	return ms
}

type benchEnv struct {
	conn driver.Conn
	raw  *natsgo.Conn
	js   jetstream.JetStream
}

// benchOn gives the same server to the driver and to a plain client: embedded (synced to disk) or a process of its own.
func benchOn(b *testing.B, embedded bool) benchEnv {
	var cfg driver.Config
	if embedded {
		e := startEmbedded(b, nats.EmbeddedConfig{Listen: "127.0.0.1:0"})
		cfg.Addresses = []string{e.Addr()}
	} else {
		cfg.Addresses = []string{startProcess(b, serverConfig{SyncOnTimer: true}).addr}
	}
	c, err := nats.Open(within(b), cfg)
	if err != nil {
		b.Fatal(err)
	}
	raw, err := natsgo.Connect(cfg.Addresses[0])
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { raw.Close(); c.Close(within(b)) })
	js, err := jetstream.New(raw, jetstream.WithPublishAsyncMaxPending(256))
	if err != nil {
		b.Fatal(err)
	}
	return benchEnv{c, raw, js}
}

func (e benchEnv) topic(b *testing.B) driver.Ref {
	r := driver.Ref{Kind: driver.Topic, Name: "bench"}
	if _, err := e.conn.Admin().Ensure(within(b), driver.Object{Ref: r}); err != nil {
		b.Fatal(err)
	}
	return r
}

var benchServers = []struct {
	name     string
	embedded bool
}{{"synced", true}, {"unsynced", false}}

func BenchmarkPublish(b *testing.B) {
	for _, s := range benchServers {
		b.Run(s.name+"/raw-async", func(b *testing.B) {
			e := benchOn(b, s.embedded)
			topic := e.topic(b)
			b.ReportAllocs()
			for i := range b.N {
				m := &natsgo.Msg{Subject: topic.Name, Data: payload, Header: natsgo.Header{jetstream.MsgIDHeader: {fmt.Sprint(i)}}}
				if _, err := e.js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
					b.Fatal(err)
				}
			}
			<-e.js.PublishAsyncComplete()
		})
		for _, size := range []int{1, 4, 16, 100, 500} {
			b.Run(fmt.Sprintf("%s/driver-batch-%d", s.name, size), func(b *testing.B) {
				e := benchOn(b, s.embedded)
				p, err := e.conn.Publisher(within(b), driver.PublisherSpec{Object: e.topic(b)})
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close(within(b))
				b.ReportAllocs()
				for i := 0; i < b.N; i += size {
					for _, err := range p.Publish(within(b), benchMessages(min(size, b.N-i), i)) {
						if err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
		b.Run(s.name+"/driver-64-callers-of-1", func(b *testing.B) {
			e := benchOn(b, s.embedded)
			p, err := e.conn.Publisher(within(b), driver.PublisherSpec{Object: e.topic(b)})
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close(within(b))
			ms := benchMessages(b.N, 0)
			var wg sync.WaitGroup
			for w := range 64 {
				wg.Go(func() {
					for i := w; i < b.N; i += 64 {
						if err := p.Publish(within(b), ms[i:i+1])[0]; err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func BenchmarkReceiveSettle(b *testing.B) {
	for _, s := range benchServers {
		b.Run(s.name+"/raw-ack", func(b *testing.B) {
			e := benchOn(b, s.embedded)
			fill(b, e, e.topic(b))
			cons, err := e.js.CreateConsumer(within(b), "bench", jetstream.ConsumerConfig{Durable: "raw", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			it, err := cons.Messages(jetstream.PullMaxMessages(4096))
			if err != nil {
				b.Fatal(err)
			}
			for i := range b.N {
				m, err := it.Next()
				if err != nil {
					b.Fatal(err)
				}
				if i == b.N-1 {
					err = m.DoubleAck(within(b))
				} else {
					err = m.Ack()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			it.Stop()
		})
		for _, o := range []driver.Ordering{driver.None, driver.Key} {
			b.Run(fmt.Sprintf("%s/driver-%s", s.name, o), func(b *testing.B) {
				e := benchOn(b, s.embedded)
				topic := e.topic(b)
				g := driver.Ref{Kind: driver.Group, Name: "driver", Of: topic.Name}
				if _, err := e.conn.Admin().Ensure(within(b), driver.Object{Ref: g, Ordering: o, Start: driver.Start{Position: driver.Earliest}}); err != nil {
					b.Fatal(err)
				}
				fill(b, e, topic)
				src, err := e.conn.Source(within(b), driver.SourceSpec{Object: topic, Group: g.Name, Ordering: o, Window: driver.Window{Messages: 4096, Bytes: 64 << 20}})
				if err != nil {
					b.Fatal(err)
				}
				defer src.Close(within(b))
				into := make([]driver.Delivery, 500)
				settlements := make([]driver.Settlement, 0, 500)
				b.ReportAllocs()
				b.ResetTimer()
				for i := 0; i < b.N; {
					n, err := src.Receive(within(b), into)
					if err != nil || n == 0 {
						b.Fatal(n, err)
					}
					settlements = settlements[:0]
					for j := range into[:n] {
						settlements = append(settlements, driver.Settlement{D: &into[j]})
					}
					for _, err := range src.Settle(within(b), settlements) {
						if err != nil {
							b.Fatal(err)
						}
					}
					i += n
				}
				b.StopTimer()
			})
		}
	}
}

// fill publishes b.N messages.
func fill(b *testing.B, e benchEnv, topic driver.Ref) {
	p, err := e.conn.Publisher(within(b), driver.PublisherSpec{Object: topic})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close(within(b))
	for i := 0; i < b.N; i += 500 {
		for _, err := range p.Publish(within(b), benchMessages(min(500, b.N-i), i)) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkEmbeddedStart is what a laptop waits for before anything can run: the server and a connection to it.
func BenchmarkEmbeddedStart(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		e, err := nats.StartEmbedded(within(b), nats.EmbeddedConfig{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		c, err := e.Open(within(b), driver.Config{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := errors.Join(c.Close(within(b)), e.Shutdown(within(b))); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
