package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// probeIdle is how long the consumer lives that resolves a time.
const probeIdle = 10 * time.Second

// replicas is how many copies of a stream a server keeps: three where it is a cluster.
func (c *conn) replicas() int {
	if c.nc.ConnectedClusterName() != "" {
		return 3
	}
	return 1
}

func (a admin) Ensure(ctx context.Context, o driver.Object) (driver.Outcome, error) {
	switch o.Kind {
	case driver.Topic, driver.Queue:
		if err := validStream(o.Name); err != nil {
			return "", err
		}
		return a.ensureStream(ctx, o)
	case driver.Group:
		if err := errors.Join(validStream(o.Name), validStream(o.Of)); err != nil {
			return "", err
		}
		return a.ensureGroup(ctx, o)
	}
	return "", fmt.Errorf("object %s: %w: kind %q", o.Name, driver.ErrInvalid, o.Kind)
}

// streamConfig is the stream of a Topic or Queue.
func (c *conn) streamConfig(o driver.Object) jetstream.StreamConfig {
	cfg := jetstream.StreamConfig{
		Name:               o.Name,
		Subjects:           []string{o.Name},
		Storage:            jetstream.FileStorage,
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardOld,
		MaxAge:             o.MaxAge,
		MaxBytes:           limit(o.MaxBytes),
		MaxMsgs:            limit(o.MaxMessages),
		MaxMsgSize:         -1,
		MaxMsgsPerSubject:  -1,
		MaxConsumers:       -1,
		Replicas:           c.replicas(),
		Duplicates:         dedupWindow,
		AllowAtomicPublish: c.features.AtomicBatch,
		Metadata:           map[string]string{metaKind: string(o.Kind), metaOwner: o.Owner},
	}
	if o.Kind == driver.Topic && c.features.AtomicBatch {
		cfg.Subjects, cfg.AllowRollup = append(cfg.Subjects, placesOf(o.Name)), true // for those who publish to it exactly once
	}
	if o.MaxMessageBytes > 0 {
		// The declared limit is one on data. What a stream limits includes headers, and dead letters need room for theirs.
		cfg.MaxMsgSize = int32(min(o.MaxMessageBytes+maxHeader, c.features.MaxMessageBytes))
	}
	if o.MaxAge > 0 {
		cfg.Duplicates = min(dedupWindow, o.MaxAge)
	}
	if o.Kind == driver.Queue {
		cfg.Discard = jetstream.DiscardNew
		cfg.Metadata[metaOrdering] = string(ordering(o.Ordering))
		if !positional(o.Kind, o.Ordering) {
			cfg.Retention = jetstream.WorkQueuePolicy
		}
	}
	return cfg
}

func ordering(o driver.Ordering) driver.Ordering {
	if o == "" {
		return driver.None
	}
	return o
}

func limit(n int64) int64 {
	if n <= 0 {
		return -1
	}
	return n
}

func (a admin) ensureStream(ctx context.Context, o driver.Object) (driver.Outcome, error) {
	want := a.conn.streamConfig(o)
	info, err := a.conn.streamInfo(ctx, o.Name)
	outcome := driver.Unchanged
	switch {
	case errors.Is(err, driver.ErrMissing) && o.External:
		return "", err
	case errors.Is(err, driver.ErrMissing):
		if _, err := a.conn.js.CreateStream(ctx, want); err != nil {
			return "", fmt.Errorf("stream %s: %w", o.Name, asConflict(err))
		}
		outcome = driver.Created
	case err != nil:
		return "", err
	case o.External:
		if err := checkExternal(&info.Config, o); err != nil {
			return "", err
		}
	default:
		changed, err := a.update(ctx, &info.Config, want)
		if err != nil {
			return "", err
		}
		if changed {
			outcome = driver.Updated
		}
	}
	if o.Kind == driver.Topic {
		return outcome, nil
	}
	return a.ensureQueuePosition(ctx, o, outcome)
}

func asConflict(err error) error {
	if code := apiCode(err); code == jetstream.JSErrCodeStreamNameInUse || code == codeSubjectOverlap {
		return fmt.Errorf("%w: subjects: another stream takes this name's messages: %w", driver.ErrConflict, err)
	}
	return err
}

// codeSubjectOverlap: the subject belongs to another stream.
const codeSubjectOverlap jetstream.ErrorCode = 10065

func conflict(stream, field, format string, args ...any) error {
	return fmt.Errorf("stream %s: %w: %s: %s", stream, driver.ErrConflict, field, fmt.Sprintf(format, args...))
}

// checkExternal holds a stream that someone else made against what it shall be used for.
func checkExternal(cfg *jetstream.StreamConfig, o driver.Object) error {
	if o.Kind == driver.Topic && cfg.Retention != jetstream.LimitsPolicy {
		return conflict(o.Name, "retention", "it is %s; a topic needs Limits, or what one group has read is gone for the others", cfg.Retention)
	}
	if o.Kind == driver.Queue && cfg.Retention == jetstream.InterestPolicy {
		return conflict(o.Name, "retention", "it is %s; a queue needs WorkQueue or Limits", cfg.Retention)
	}
	if o.Kind == driver.Queue && positional(o.Kind, o.Ordering) && cfg.Retention != jetstream.LimitsPolicy {
		return conflict(o.Name, "retention", "it is %s; a queue with ordering Key is read from a stream with Limits", cfg.Retention)
	}
	if had := cfg.Metadata[metaOrdering]; o.Kind == driver.Queue && had != "" && had != string(ordering(o.Ordering)) {
		return conflict(o.Name, "ordering", "it was made with %s", had)
	}
	_, err := publishSubject(cfg)
	return err
}

// update makes a stream of ours as wanted. What cannot be changed is a conflict.
func (a admin) update(ctx context.Context, have *jetstream.StreamConfig, want jetstream.StreamConfig) (bool, error) {
	name := want.Name
	switch {
	case have.Metadata[metaKind] == "":
		return false, conflict(name, "owner", "it was not made by Waybill; name it as an external object to use it")
	case have.Metadata[metaKind] != want.Metadata[metaKind]:
		return false, conflict(name, "kind", "it is a %s", have.Metadata[metaKind])
	case have.Metadata[metaOwner] != want.Metadata[metaOwner]:
		return false, conflict(name, "owner", "it belongs to %q", have.Metadata[metaOwner])
	case have.Metadata[metaOrdering] != want.Metadata[metaOrdering]:
		return false, conflict(name, "ordering", "it was made with %s", have.Metadata[metaOrdering])
	case have.Retention != want.Retention:
		return false, conflict(name, "retention", "it is %s", have.Retention)
	case have.Storage != want.Storage:
		return false, conflict(name, "storage", "it is %s", have.Storage)
	}
	next := *have
	next.Discard, next.MaxAge, next.MaxBytes, next.MaxMsgs = want.Discard, want.MaxAge, want.MaxBytes, want.MaxMsgs
	next.MaxMsgSize, next.Duplicates = want.MaxMsgSize, want.Duplicates
	next.AllowAtomicPublish = have.AllowAtomicPublish || want.AllowAtomicPublish
	next.AllowRollup = have.AllowRollup || want.AllowRollup
	next.Subjects = want.Subjects
	if next.Discard == have.Discard && next.MaxAge == have.MaxAge && next.MaxBytes == have.MaxBytes && next.MaxMsgs == have.MaxMsgs &&
		next.MaxMsgSize == have.MaxMsgSize && next.Duplicates == have.Duplicates && next.AllowAtomicPublish == have.AllowAtomicPublish &&
		next.AllowRollup == have.AllowRollup && slices.Equal(have.Subjects, want.Subjects) {
		return false, nil
	}
	if _, err := a.conn.js.UpdateStream(ctx, next); err != nil {
		return false, fmt.Errorf("stream %s: %w", name, asConflict(err))
	}
	return true, nil
}

// ensureQueuePosition makes the consumer, or the cursor, that a queue is read by.
func (a admin) ensureQueuePosition(ctx context.Context, o driver.Object, outcome driver.Outcome) (driver.Outcome, error) {
	if positional(o.Kind, o.Ordering) {
		_, err := a.conn.loadCursor(ctx, o.Name, "")
		if !errors.Is(err, driver.ErrPositionLost) {
			return outcome, err
		}
		return worse(outcome, driver.Updated), a.createCursor(ctx, o.Name, "", record{Owner: o.Owner})
	}
	cfg := durableConfig(queueConsumer, o)
	if o.Ordering == driver.Strict {
		cfg.MaxAckPending = 1
	}
	changed, err := a.ensureDurable(ctx, o.Name, cfg)
	if err != nil {
		return "", err
	}
	return worse(outcome, changed), nil
}

// worse is the outcome of two steps.
func worse(a, b driver.Outcome) driver.Outcome {
	switch {
	case a == driver.Created:
		return a
	case b != driver.Unchanged:
		return driver.Updated
	}
	return a
}

func durableConfig(name string, o driver.Object) jetstream.ConsumerConfig {
	wait := o.AckWait
	if wait <= 0 {
		wait = 30 * time.Second
	}
	return jetstream.ConsumerConfig{
		Durable:       name,
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       wait,
		MaxDeliver:    -1, // attempts are counted where messages are handled
		MaxAckPending: -1, // it would be shared by all replicas; each one's window bounds it
		Metadata:      map[string]string{metaKind: string(o.Kind), metaOwner: o.Owner},
	}
}

// ensureDurable makes a durable consumer, or alters what may be altered. Its position stays as it is.
func (a admin) ensureDurable(ctx context.Context, stream string, want jetstream.ConsumerConfig) (driver.Outcome, error) {
	info, err := a.conn.consumerInfo(ctx, stream, want.Durable)
	if errors.Is(err, driver.ErrPositionLost) {
		if _, err := a.conn.js.CreateConsumer(ctx, stream, want); err != nil {
			return "", fmt.Errorf("consumer %s of stream %s: %w", want.Durable, stream, err)
		}
		return driver.Created, nil
	}
	if err != nil {
		return "", err
	}
	have := info.Config
	if have.AckPolicy != jetstream.AckExplicitPolicy || have.DeliverSubject != "" {
		return "", conflict(stream, "consumer "+want.Durable, "it must be a pull consumer with explicit acknowledgement")
	}
	if owner := have.Metadata[metaOwner]; have.Metadata[metaKind] == "" || owner != want.Metadata[metaOwner] && want.Metadata[metaKind] == string(driver.Group) {
		return "", conflict(stream, "owner", "consumer %s belongs to %q", want.Durable, owner)
	}
	if have.AckWait == want.AckWait && have.MaxAckPending == want.MaxAckPending && have.MaxDeliver == want.MaxDeliver {
		return driver.Unchanged, nil
	}
	have.AckWait, have.MaxAckPending, have.MaxDeliver = want.AckWait, want.MaxAckPending, want.MaxDeliver
	have.Metadata = maps.Clone(have.Metadata)
	if _, err := a.conn.js.UpdateConsumer(ctx, stream, have); err != nil {
		return "", fmt.Errorf("consumer %s of stream %s: %w", want.Durable, stream, err)
	}
	return driver.Updated, nil
}

// ensureGroup makes a group's position, or turns one kind of position into the other when the ordering has changed.
func (a admin) ensureGroup(ctx context.Context, o driver.Object) (driver.Outcome, error) {
	stream, err := a.conn.streamInfo(ctx, o.Of)
	if err != nil {
		return "", err
	}
	have, err := a.conn.position(ctx, o.Of, o.Name)
	missing := errors.Is(err, driver.ErrPositionLost)
	if err != nil && !missing {
		return "", err
	}
	if !missing && have.owner != o.Owner {
		return "", fmt.Errorf("group %s of stream %s: %w: owner: it belongs to %q", o.Name, o.Of, driver.ErrConflict, have.owner)
	}
	if positional(o.Kind, o.Ordering) {
		return a.ensureGroupCursor(ctx, o, have, missing)
	}
	if have.cursor != nil {
		if err := have.cursor.checkStream(o.Of, o.Name, stream); err != nil {
			return "", err
		}
	}
	if have.cursor != nil && have.cursor.Open {
		if err := a.conn.settlePlace(ctx, o.Of, o.Name, have.cursor); err != nil {
			return "", err
		}
		have.done = have.cursor.Position
	}
	want := durableConfig(o.Name, o)
	switch {
	case missing:
		if err := setStart(&want, o.Start); err != nil {
			return "", err
		}
	case have.cursor != nil:
		want.DeliverPolicy, want.OptStartSeq = jetstream.DeliverByStartSequencePolicy, have.done+1
	}
	outcome, err := a.ensureDurable(ctx, o.Of, want)
	if err == nil && have.cursor != nil {
		outcome, err = driver.Updated, a.conn.purgeCursor(ctx, o.Of, o.Name)
	}
	return outcome, err
}

func (a admin) ensureGroupCursor(ctx context.Context, o driver.Object, have position, missing bool) (driver.Outcome, error) {
	if have.cursor != nil {
		return driver.Unchanged, nil
	}
	r := record{Owner: o.Owner}
	var err error
	if missing {
		r.mark, err = a.conn.resolve(ctx, o.Of, o.Start)
	} else {
		r.Position = have.done
	}
	if err != nil {
		return "", err
	}
	if err := a.createCursor(ctx, o.Of, o.Name, r); err != nil {
		return "", err
	}
	if missing {
		return driver.Created, nil
	}
	if err := a.conn.js.DeleteConsumer(ctx, o.Of, o.Name); err != nil && !notFound(err) {
		return "", fmt.Errorf("group %s of stream %s: %w", o.Name, o.Of, err)
	}
	return driver.Updated, nil
}

// createCursor writes the first record of a cursor. Another that was quicker has made it just as well.
func (a admin) createCursor(ctx context.Context, stream, group string, r record) error {
	info, err := a.conn.streamInfo(ctx, stream)
	if err != nil {
		return err
	}
	r.Stream = info.Created.UnixNano()
	if err := a.conn.ensureCursorStream(ctx); err != nil {
		return err
	}
	err = a.conn.storeCursor(ctx, stream, group, &cursor{}, r)
	if errors.Is(err, driver.ErrStale) {
		return nil
	}
	return err
}

// setStart makes a new consumer begin at start.
func setStart(cfg *jetstream.ConsumerConfig, start driver.Start) error {
	cfg.OptStartSeq, cfg.OptStartTime = 0, nil
	switch start.Position {
	case driver.Earliest:
		cfg.DeliverPolicy = jetstream.DeliverAllPolicy
	case driver.Latest, "":
		cfg.DeliverPolicy = jetstream.DeliverNewPolicy
	case driver.AtTime:
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &start.Time
	default:
		return fmt.Errorf("start: %w: position %q; it is Earliest, Latest or Time", driver.ErrInvalid, start.Position)
	}
	return nil
}

// resolve says after which sequence of a stream a start begins.
func (c *conn) resolve(ctx context.Context, stream string, start driver.Start) (mark, error) {
	info, err := c.streamInfo(ctx, stream)
	if err != nil {
		return mark{}, err
	}
	switch start.Position {
	case driver.Earliest:
		return mark{Position: max(info.State.FirstSeq, 1) - 1}, nil
	case driver.Latest, "":
		return endOf(&info.State), nil
	}
	cfg := jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: probeIdle}
	if err := setStart(&cfg, start); err != nil {
		return mark{}, err
	}
	probe, err := c.js.CreateConsumer(ctx, stream, cfg) // the server finds the sequence of a time
	if err != nil {
		return mark{}, missing("stream "+stream, err)
	}
	at := probe.CachedInfo()
	_ = c.js.DeleteConsumer(ctx, stream, at.Name) // it would go by itself
	return mark{Position: at.Delivered.Stream}, nil
}
