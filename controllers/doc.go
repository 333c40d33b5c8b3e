// Package controllers is the operator: it makes a cluster be as the declared resources say, and their status tell how it is.
//
// One controller serves all seven kinds, for all of them go the same way:
//
//	compile   everything that is declared, at once, whenever something of it changes (world.go): the same function that a laptop runs
//	   │
//	look      what the compiler says of this one, and what there is of it (controller.go, rollout.go)
//	   │
//	act       the broker's objects (brokers.go), then the cluster's (apply.go), or the way out (finalize.go)
//	   │
//	report    conditions and the rest of status, from facts alone (status.go), written when they differ
//
// What differs between kinds is in one table (kinds.go). What is built for a resource is workload's to know. What an error means (who has to
// do something, when it is tried again, what a person is told) is decided in one place (problem.go).
//
// The world is compiled whole because what one resource may have depends on the others: two may claim one object, a chain of them may be a
// loop, and what a reference finds may appear later. A resource is reconciled when what the compiler says of it differs from before, so no
// kind needs to know who refers to it.
package controllers
