package gateway

import "sync/atomic"

// Stats are counts since the start and a few figures of now; a cheap snapshot.
type Stats struct {
	Stored   int64 // events that the broker has confirmed
	Accepted int64 // events that were answered Accepted
	Lost     int64 // accepted events that were never stored
	Buffered int64 // events that wait to be stored now
	Bytes    int64 // of requests held in memory now

	Replies  int64 // requests answered with a reply or receipt
	Failed   int64 // requests whose message was dead-lettered
	TimedOut int64 // requests without an answer in time
	// Answers that nobody waited for: later than the timeout, or after the first one.
	LateReplies, DuplicateReplies int64
	Waiting                       int64 // requests that wait for an answer now

	Leased, Acked, Nacked, Rejected, Replied, Extended int64
	LeasesEnded                                        int64 // calls that came too late
	DeadLettered                                       int64 // by attempts or reject
	Expired                                            int64 // requests that nobody waits for any more, dropped
	Polls                                              int64 // long polls that wait now
	Live                                               int64 // readers of live events now
	Gaps                                               int64 // resumed readers whose position was gone

	Refused map[int]int64 // by status
}

type counters struct {
	stored, accepted, lost, buffered                   atomic.Int64
	replies, failed, timedOut, waiting                 atomic.Int64
	leased, acked, nacked, rejected, replied, extended atomic.Int64
	ended, dead, expired, polls, live, gaps            atomic.Int64
	byStatus                                           [600]atomic.Int64
}

func (c *counters) refused(status int) { c.byStatus[status].Add(1) }

// Stats is a snapshot.
func (f *front) Stats() Stats {
	c := &f.stats
	s := Stats{
		Stored: c.stored.Load(), Accepted: c.accepted.Load(), Lost: c.lost.Load(), Buffered: c.buffered.Load(), Bytes: f.budget.used.Load(),
		Replies: c.replies.Load(), Failed: c.failed.Load(), TimedOut: c.timedOut.Load(), Waiting: c.waiting.Load(),
		Leased: c.leased.Load(), Acked: c.acked.Load(), Nacked: c.nacked.Load(), Rejected: c.rejected.Load(), Replied: c.replied.Load(), Extended: c.extended.Load(),
		LeasesEnded: c.ended.Load(), DeadLettered: c.dead.Load(), Expired: c.expired.Load(), Polls: c.polls.Load(), Live: c.live.Load(), Gaps: c.gaps.Load(),
	}
	if d := f.desk.Load(); d != nil {
		u := d.Unheard(f.deps.Resource.String())
		s.LateReplies, s.DuplicateReplies = u.Late, u.Duplicate
	}
	for status := range c.byStatus {
		if n := c.byStatus[status].Load(); n > 0 {
			if s.Refused == nil {
				s.Refused = map[int]int64{}
			}
			s.Refused[status] = n
		}
	}
	return s
}
