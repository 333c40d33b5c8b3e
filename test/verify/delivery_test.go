package verify_test

import (
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/test/servers"
	"github.com/waybill-dev/waybill/test/verify"
)

// maxMessageBytes is what every fortieth message has, to the byte.
const maxMessageBytes = 64 << 10

const common = `
kind: Topic
metadata: {name: orders}
spec: {brokerRef: {name: main}, maxMessageBytes: %[1]d, retention: {maxAge: 15m}}
---
kind: Subscription
metadata: {name: loose}
spec:
  topicRef: {name: orders}
  startFrom: {position: Earliest}
  deliverTo: {uri: %[2]q}
  ackWait: 1s
  timeout: 2s
  retry: {maxAttempts: 8, backOff: {initial: 50ms, max: 400ms}}
  deadLetter: {mailboxRef: {name: dead-loose}}
---
kind: Mailbox
metadata: {name: dead-loose}
spec: {brokerRef: {name: main}, ackWait: 10s, maxMessageBytes: %[1]d, retry: {maxAttempts: 100}}
---
kind: Subscription
metadata: {name: kept}
spec:
  topicRef: {name: orders}
  startFrom: {position: Earliest}
  deliverTo: {mailboxRef: {name: kept}}
---
kind: Mailbox
metadata: {name: kept}
spec: {brokerRef: {name: main}, ackWait: 10s, maxMessageBytes: %[1]d, retry: {maxAttempts: 100}}
---
kind: Topic
metadata: {name: shaped}
spec: {brokerRef: {name: main}, maxMessageBytes: %[1]d, retention: {maxAge: 15m}}
---
kind: Pipeline
metadata: {name: shape}
spec:
  from: {topicRef: {name: orders}}
  startFrom: {position: Earliest}
  ordering: Key
  steps:
  - name: shape
    transform: {cel: '{"run": data.run, "key": data.key, "seq": data.seq}'}
  to: {topicRef: {name: shaped}}
---
kind: Subscription
metadata: {name: shaped}
spec:
  topicRef: {name: shaped}
  startFrom: {position: Earliest}
  ordering: Key
  deliverTo: {uri: %[3]q}
  ackWait: 1s
  timeout: 2s
  retry: {backOff: {initial: 50ms, max: 400ms}}
---
kind: Mailbox
metadata: {name: strict}
spec: {brokerRef: {name: main}, ordering: Strict, ackWait: 5s}
`

// pushed is the Subscription that is removed and added again.
const pushed = `
---
kind: Subscription
metadata: {name: pushed}
spec:
  topicRef: {name: orders}
  startFrom: {position: Earliest}
  ordering: Key
  deliverTo: {uri: %[2]q}
  ackWait: 1s
  timeout: 2s
  retry: {maxAttempts: 8, backOff: {initial: 50ms, max: 400ms}}
  deadLetter: {mailboxRef: {name: dead-pushed}}
---
kind: Mailbox
metadata: {name: dead-pushed}
spec: {brokerRef: {name: main}, ackWait: 10s, maxMessageBytes: %[1]d, retry: {maxAttempts: 100}}
`

// Poison in the middle of keys: some messages are refused for good, some fail whenever they are tried. Some of both kinds are as large as
// messages may be.
func refused(m verify.Mark) bool  { return ordinary(m) && m.Seq%50 == 25 }
func hopeless(m verify.Mark) bool { return ordinary(m) && m.Seq%1600 == 5+200*int(m.Key[1]-'0') } // of all keys at once it would be an outage
func poison(m verify.Mark) bool   { return refused(m) || hopeless(m) }

func size(m verify.Mark) int {
	if m.Seq%40 == 5 {
		return maxMessageBytes
	}
	return 0
}

// poisoned makes a destination fail on poison.
func poisoned(w http.ResponseWriter, _ *http.Request, m verify.Mark, _ func()) bool {
	switch {
	case refused(m):
		w.WriteHeader(http.StatusUnprocessableEntity)
	case hopeless(m):
		w.WriteHeader(http.StatusInternalServerError)
	default:
		return true
	}
	return false
}

// What goes to the Topic orders has other keys than what goes to the Mailbox strict.
func ordinary(m verify.Mark) bool { return strings.HasPrefix(m.Key, "k") }
func onTopic(m verify.Mark) bool  { return !onStrict(m) }
func onStrict(m verify.Mark) bool { return strings.HasPrefix(m.Key, "s") }
func healthy(m verify.Mark) bool  { return onTopic(m) && !poison(m) }

// delivery is the scenario: messages of many keys go through a Topic to subscribers that are pushed to, in order and without, to a mailbox,
// to live readers and through a pipeline to another Topic and its subscriber; others go through a strict mailbox. pushed is removed and
// declared again by the fault that is about that.
type delivery struct {
	*rig
	with, without string // the manifests
}

func newDelivery(t *testing.T, broker string, args ...string) *delivery {
	d := &delivery{rig: newRig(t)}
	at := d.destination("pushed", verify.Promise{Ordered: true, Wants: healthy}, poisoned).URL()
	loose := d.destination("loose", verify.Promise{Wants: healthy}, poisoned).URL()
	shaped := d.destination("shaped", verify.Promise{Ordered: true, Wants: onTopic}, nil).URL()
	d.without = broker + "\n---\n" + fmt.Sprintf(common, maxMessageBytes, loose, shaped)
	d.with = d.without + fmt.Sprintf(pushed, maxMessageBytes, at)
	d.start(d.with, append(args, "--drain", "3s")...)
	d.receive("kept", "kept", verify.Promise{Wants: onTopic})
	d.receive("strict", "strict", verify.Promise{Ordered: true, Wants: onStrict})
	d.receive("dead letter of pushed", "dead-pushed", verify.Promise{Wants: poison})
	d.receive("dead letter of loose", "dead-loose", verify.Promise{Wants: poison})
	d.live("live", "orders", verify.Promise{Ordered: true, Wants: onTopic})
	d.publish(verify.Traffic{Keys: 8, Pause: 100 * time.Millisecond, Size: size, To: d.address("Topic", "orders", "")})
	d.publish(verify.Traffic{Prefix: "s", Keys: 2, Pause: 500 * time.Millisecond, To: d.address("Mailbox", "strict", "/messages")})
	return d
}

// removed ends the process, runs for a while without the Subscription and then with it again: it goes on where it was.
func (d *delivery) removed(f verify.Fault) {
	d.end()
	d.rewrite(d.without)
	d.laptop.Up()
	<-time.After(f.For)
	d.end()
	d.rewrite(d.with)
	d.laptop.Up()
}

// run injects the faults and settles.
func (d *delivery) run(n int, more []verify.Kind, by map[string]injector) {
	d.t.Helper()
	kinds := append([]verify.Kind{
		{Name: "kill -9"}, {Name: "SIGTERM"}, {Name: "stop and go on", Least: 100 * time.Millisecond, Most: 4 * time.Second},
		{Name: "Subscription removed and added", Least: 0, Most: time.Second},
	}, more...)
	all := map[string]injector{"kill -9": d.kill, "SIGTERM": d.drain, "stop and go on": d.stall, "Subscription removed and added": d.removed}
	maps.Copy(all, d.sinks())
	maps.Copy(all, by)
	d.inject(n, append(kinds, sinkKinds...), all)
	if !d.t.Failed() {
		d.settle(verify.Traffic{To: d.address("Topic", "orders", "")})
	}
}

// share is this scenario's part of the faults.
func share(short int) int {
	if *faults > 0 {
		return (*faults + 1) / 2
	}
	return short
}

func TestDeliveryOnTheEmbeddedBroker(t *testing.T) {
	dir, kinds, by := filepath.Join(t.TempDir(), "data"), []verify.Kind(nil), map[string]injector{}
	if disk := servers.MountDisk(t, 2048); disk != nil {
		dir = disk.Dir()
		kinds = append(kinds, verify.Kind{Name: "disk full", Least: 100 * time.Millisecond, Most: 2 * time.Second})
		by["disk full"] = func(f verify.Fault) {
			disk.Fill()
			<-time.After(f.For)
			disk.Free()
		}
	}
	d := newDelivery(t, "kind: Broker\nmetadata: {name: main}\nspec: {type: Embedded}", "--data", dir)
	d.run(share(14), kinds, by)
}

func TestDeliveryOnAnExternalNATS(t *testing.T) {
	server := servers.StartNATS(t)
	d := newDelivery(t, fmt.Sprintf("kind: Broker\nmetadata: {name: main}\nspec: {type: NATS, nats: {servers: [%q]}}", server.URL()), "--data", t.TempDir())
	d.run(share(15), []verify.Kind{{Name: "kill -9 of the broker", Least: 0, Most: 2 * time.Second}, {Name: "kill -9 of both"}}, map[string]injector{
		"kill -9 of the broker": func(f verify.Fault) {
			server.Kill()
			<-time.After(f.For)
			server.Start()
		},
		"kill -9 of both": func(f verify.Fault) {
			server.Kill()
			d.laptop.Kill()
			server.Start()
			d.laptop.Up()
		},
	})
}
