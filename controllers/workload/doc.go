// Package workload builds the Kubernetes objects that a resource becomes. It is pure: no client, no clock, no randomness. The same compiled
// plan, owner and settings give the same bytes, whoever asks and how often.
//
// What comes out is meant for server-side apply: it holds the fields that we decide about and none of those that the API server fills in, so
// a desired object that is contained in the live one needs no request.
//
//	compile.Outcome ─┐
//	Owner ───────────┼─ Build ──▶ Set{Owned, Kept, Shared, PlanHash, Address, …}
//	Settings ────────┘
//
// An Embedded Broker has no plan; BuildBroker makes its Set. Secrets with random bytes are made once and then left alone, so they are no part
// of a Set: LeaseKeys, RotateLeaseKeys, BrokerCredentials and RotateBrokerCredentials build them of bytes that the caller drew; Mirror copies one into a namespace.
package workload
