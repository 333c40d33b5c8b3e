package flow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

const (
	firstReopen = 100 * time.Millisecond
	lastReopen  = 30 * time.Second
	// receiveMost is how many deliveries one Receive asks for.
	receiveMost = 512
	// cancelGrace is how long a cancelled attempt has to return.
	cancelGrace  = 2 * time.Second
	closeTimeout = 10 * time.Second
)

// A Flow moves messages from one source through its stages. One receiver fills the window, workers empty it; a single lock guards the
// schedule between them and is taken once a batch.
type Flow struct {
	cfg        Config
	p          Policy
	log        *slog.Logger
	committers []Committer
	panicked   atomic.Bool // one was logged with its stack

	// stop ends with the receiving of messages, attempts with the handling, settling with the acknowledging.
	stop, attempts, settling                   context.Context
	cancelStop, cancelAttempts, cancelSettling context.CancelFunc
	helpers                                    sync.WaitGroup
	ended                                      chan struct{} // Run has returned

	mu    sync.Mutex
	work  sync.Cond // workers wait for something to do
	space sync.Cond // the receiver waits for room
	quiet sync.Cond // drain and revoke wait for workers

	in             *intake
	oldest, newest *item
	freeItems      *item
	freeLanes      *lane
	lanes          map[string]*lane
	strict         lane
	ready, dead    queue
	suspects       queue // one of them is handled at a time
	waiting        waitingLanes
	mended         []*lane // scratch

	held, heldBytes, largest int
	unstarted                int       // of lanes that do not wait
	inHands, blocked, dying  int       // dying: the dead letter does not have them yet
	doubts                   int       // items in doubt
	suspected                bool      // a worker has a suspect
	full                     bool      // the receiver waits for room: there may be more to receive
	cameAt                   time.Time // as much was received as was asked for, or there was room again
	idle, workers            int
	watched                  bool // somebody waits on quiet

	breaker   breaker
	run       run
	successes uint64
	timer     *time.Timer
	tickAt    time.Time

	started, draining, over, finished bool
	drainCtx                          context.Context
	drained                           Drained
	sourceErr, positionLost, unparked error
	stats                             Stats
}

// New makes a flow; Run runs it.
func New(cfg Config) *Flow {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &Flow{
		cfg: cfg, p: cfg.Policy.normal(), log: log.With("flow", cfg.Name),
		ended: make(chan struct{}), lanes: map[string]*lane{}, run: run{id: 1},
	}
	f.work.L, f.space.L, f.quiet.L = &f.mu, &f.mu, &f.mu
	for _, s := range cfg.Stages {
		if c, ok := s.(Committer); ok {
			f.committers = append(f.committers, c)
		}
	}
	f.stop, f.cancelStop = context.WithCancel(context.Background())
	f.attempts, f.cancelAttempts = context.WithCancel(context.Background())
	f.settling, f.cancelSettling = context.WithCancel(context.Background())
	return f
}

// Drained says what a drain did.
type Drained struct {
	Finished  int // were done, dropped or dead-lettered after it began, or had failed in their one attempt
	Cancelled int // were in handling when the time was up, and were told to stop
	Released  int // were given back, unattempted, cancelled or between two attempts; nothing was counted
	Lost      int // AtMostOnce: had been acknowledged, and there was no time left to handle them to the end
}

// Run runs the flow until it is drained or ctx ends, which is a drain without time. A broken source is opened again for ever; only a lost
// position ends the flow by itself, with an error that wraps driver.ErrPositionLost. Run may be called once.
func (f *Flow) Run(ctx context.Context) error {
	f.mu.Lock()
	if f.started {
		f.mu.Unlock()
		return errors.New("a flow runs once")
	}
	f.started = true
	f.timer = time.AfterFunc(time.Hour, f.tick)
	f.timer.Stop()
	f.mu.Unlock()
	defer close(f.ended)
	defer context.AfterFunc(ctx, f.cancelStop)()
	defer context.AfterFunc(f.stop, func() {
		f.mu.Lock()
		f.space.Broadcast()
		f.mu.Unlock()
	})()
	err := f.feed()
	f.mu.Lock()
	limit := f.drainCtx
	f.mu.Unlock()
	switch {
	case err != nil:
		c, cancel := context.WithTimeout(ctx, f.p.AckWait)
		defer cancel()
		limit = c
	case limit == nil:
		limit = ctx
	default:
		c, cancel := context.WithCancel(limit)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		limit = c
	}
	f.shutdown(limit)
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// Drain receives no more, finishes what is in handling until ctx ends, cancels the rest, and gives everything else back; nothing of that
// counts as an attempt. Waiting retries are given back, not waited for. It returns when Run is about to.
func (f *Flow) Drain(ctx context.Context) Drained {
	f.mu.Lock()
	if f.drainCtx == nil {
		f.drainCtx = ctx
	}
	started := f.started
	f.mu.Unlock()
	f.cancelStop()
	if started {
		<-f.ended
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.drained
}

// feed keeps a source open and receives from it until the flow is stopped or the position lost.
func (f *Flow) feed() error {
	pause := firstReopen
	for f.stop.Err() == nil {
		in := new(intake)
		err := f.open(in)
		if err == nil {
			var got bool
			got, err = f.receive(in)
			if got {
				pause = firstReopen
			}
		}
		switch {
		case f.stop.Err() != nil:
			return nil
		case errors.Is(err, driver.ErrPositionLost):
			f.log.Error("The position is lost and the flow stops; it never jumps", "error", err)
			f.mu.Lock()
			f.positionLost = err
			f.mu.Unlock()
			return fmt.Errorf("%s: %w", f.cfg.Name, err)
		}
		f.log.Warn("The source is opened again", "error", err, "in", pause)
		f.mu.Lock()
		f.sourceErr = err
		f.mu.Unlock()
		if in.src != nil {
			f.abandon(in)
		}
		sleep(f.stop, f.jitter(pause))
		pause = min(2*pause, lastReopen)
	}
	return nil
}

func (f *Flow) open(in *intake) error {
	src, err := f.cfg.Open(f.stop,
		func(ctx context.Context, c []driver.Claim) { f.revoke(ctx, in, c) },
		func(c []driver.Claim) { f.lost(in, c) })
	if err != nil {
		return err
	}
	f.mu.Lock()
	in.src, f.in, f.sourceErr = src, in, nil
	f.mu.Unlock()
	return nil
}

// receive fills the window until the flow is stopped (nil) or the source breaks; got says that it gave something.
func (f *Flow) receive(in *intake) (got bool, err error) {
	buf := make([]driver.Delivery, min(receiveMost, f.p.Window.Messages, max(hoard*f.p.MaxInFlight, f.p.BatchSize)))
	arrivals := make([]arrival, len(buf))
	for {
		n := f.awaitRoom()
		if n == 0 {
			return got, nil
		}
		asked := buf[:min(n, len(buf))]
		n, err := in.src.Receive(f.stop, asked)
		if n > 0 {
			got = true
			f.came(n == len(asked))
			f.accept(in, buf[:n], arrivals)
			clear(buf[:n])
		}
		if err != nil {
			return got, err
		}
		if f.stop.Err() != nil {
			return got, nil
		}
	}
}

// came notes that there may be more behind what was received, before any of that is tried.
func (f *Flow) came(all bool) {
	if all {
		f.mu.Lock()
		f.cameAt = time.Now()
		f.mu.Unlock()
	}
}

// accept takes in what was received; with AtMostOnce it is settled first, and what could not be is left to come again.
func (f *Flow) accept(in *intake, ds []driver.Delivery, arrivals []arrival) {
	if f.p.AtMostOnce {
		ds = f.settleFirst(in, ds)
	}
	for i := range ds {
		arrivals[i] = f.look(&ds[i])
	}
	f.admit(in, ds, arrivals, f.p.AtMostOnce)
}

func (f *Flow) settleFirst(in *intake, ds []driver.Delivery) []driver.Delivery {
	list := make([]driver.Settlement, len(ds))
	for i := range ds {
		list[i] = driver.Settlement{D: &ds[i], Verb: driver.Done}
	}
	errs := in.src.Settle(f.settling, list)
	if fl, ok := in.src.(flusher); ok {
		// Until the broker has it they must not be handled, and once it was asked to take it they may not come again: so it is asked until
		// it answers.
		for pause := firstSettleRetry; ; pause = min(2*pause, lastSettleRetry) {
			err := fl.Flush(f.settling)
			if err == nil {
				break
			}
			if errors.Is(err, driver.ErrStale) || f.settling.Err() != nil {
				return nil
			}
			f.log.Warn("Messages cannot be acknowledged before their one attempt; trying again", "messages", len(ds), "error", err)
			sleep(f.settling, f.jitter(pause))
		}
	}
	if errs == nil {
		return ds
	}
	taken := ds[:0]
	for i := range ds {
		if errs[i] == nil {
			taken = append(taken, ds[i])
		}
	}
	return taken
}

// A flusher is a source that takes settlements before the broker has them.
type flusher interface {
	Flush(ctx context.Context) error
}

// A blocker is a source that stops when too much lies behind a position that is not done.
type blocker interface {
	Blocked() (claim string, position int64, since time.Time, ok bool)
}

func blockedAt(claim string, position int64, since time.Time) string {
	return fmt.Sprintf("position %d of %q is not done since %s", position, claim, since.UTC().Format(time.RFC3339))
}

// awaitRoom waits until something may be received and returns how much; 0 when the flow is stopped.
func (f *Flow) awaitRoom() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if f.stop.Err() != nil {
			return 0
		}
		if n := f.room(); n > 0 {
			return n
		}
		f.full = true
		f.space.Wait()
		f.full, f.cameAt = false, time.Now()
	}
}

// await waits for a condition, under f.mu, until ctx ends; it reports whether it holds.
func (f *Flow) await(ctx context.Context, holds func() bool) bool {
	stop := context.AfterFunc(ctx, func() {
		f.mu.Lock()
		f.quiet.Broadcast()
		f.mu.Unlock()
	})
	defer stop()
	for !holds() {
		if ctx.Err() != nil {
			return false
		}
		f.watched = true
		f.quiet.Wait()
	}
	return true
}

// shutdown ends a flow that receives no more: finish, cancel, settle, close the source, in this order.
func (f *Flow) shutdown(limit context.Context) {
	f.mu.Lock()
	f.draining = true
	in := f.in
	before := f.ends()
	f.mu.Unlock()
	if in != nil {
		in.src.Drain()
	}
	f.mu.Lock()
	// What was given up is parked still: what follows it may be done already.
	quiet := func() bool {
		return f.inHands == 0 && f.dead.first == nil && (!f.p.AtMostOnce || f.ready.first == nil)
	}
	if !f.await(limit, quiet) {
		f.drained.Cancelled = f.inHands
		failed := f.stats.Failed
		f.cancelAttempts()
		grace, cancel := context.WithTimeout(context.Background(), cancelGrace)
		if !f.await(grace, func() bool { return f.inHands == 0 }) {
			f.log.Error("Attempts went on after they were cancelled; what becomes of them is ignored", "messages", f.inHands)
		}
		cancel()
		f.drained.Lost = int(f.stats.Failed - failed) // their one attempt was cut off, and does not come again
	}
	f.over = true
	f.idle = 0
	f.work.Broadcast()
	f.cancelAttempts()
	f.drained.Finished = int(f.ends()-before) - f.drained.Lost
	for it := f.oldest; it != nil; it = it.after {
		if it.settled {
			f.drained.Lost++
			f.stats.Failed++
		} else if it.worker == nil {
			f.drained.Released++
		}
	}
	f.stats.Forgotten += uint64(f.drained.Released)
	f.mu.Unlock()
	f.cancelSettling()
	f.helpers.Wait()
	if in != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := in.src.Close(ctx); err != nil {
			f.log.Warn("Closing the source", "error", err)
		}
	}
	grace, cancel := context.WithTimeout(context.Background(), cancelGrace)
	defer cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.await(grace, func() bool { return f.workers == 0 })
	f.timer.Stop()
	f.finished = true
}

// ends counts the messages that are done with.
func (f *Flow) ends() uint64 {
	n := f.stats.Done + f.stats.Expired + f.stats.Failed
	for _, k := range f.stats.Dropped {
		n += k
	}
	for _, k := range f.stats.DeadLettered {
		n += k
	}
	return n
}

func (f *Flow) jitter(d time.Duration) time.Duration {
	if p := f.p.Retry.JitterPercent; p > 0 {
		d += time.Duration((rand.Float64()*2 - 1) * float64(p) / 100 * float64(d))
	}
	return d
}
