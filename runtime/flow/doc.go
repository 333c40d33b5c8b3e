// Package flow is the one hot loop of Waybill: source → stages → sink under a delivery policy. Topic gateways aside, everything that
// delivers is a flow with other ends, and the semantics of delivery are written here, once.
//
// A receiver fills the window; workers take batches from it, carry them through the stages and settle what came through. Between them lies
// a schedule under one lock, taken once a batch: every message stands in a lane (one a key, one for all under Strict, one of its own
// without order), and every lane is ready, in a worker's hands, or waits for a backoff. A lane is in one worker's hands at a time, which is
// all that keeps the order; a failed message goes back to the head of its lane, in front of those that followed it, and none of these is
// counted. Nothing ever leaves the window but by a settlement: retries wait inside it.
//
// Attempts are failed handlings that this process has counted. What is counted depends on whose fault a failure was (Fault):
//
//   - Message: dead-lettered at once (or blocked).
//   - Destination: counted. But while an unbroken run of destination faults covers three messages or more, none of them is given up; the
//     tenth fault of such a run opens the breaker and takes the counts of the run back. While it is open one message at a time is tried,
//     another each time, nothing is counted, and whatever gets through closes it.
//   - Address: as Destination, but counted only once another message has got through since the message's first.
//   - Unreachable and Busy: part of the run, never counted.
//   - Broker: neither.
//
// Shutdown, revocation, lost claims, ended leases and what stood behind a failure count nothing. A stage that panics fails its batch without
// a count; each of its messages is then tried by itself, where a panic is a Destination fault: the message that causes it uses its attempts
// up, and a stage that panics on everything opens the breaker instead of emptying a topic into the dead letter.
package flow
