// Package flow is the one hot loop of Waybill: source → stages → sink under a delivery policy. Topic gateways aside, everything that
// delivers is a flow with other ends, and the semantics of delivery are written here, once: order by lanes, concurrency, the window that
// bounds what is held, retry with backoff inside that window, the breaker, dead letters, Park and Block, extension, drain.
package flow
