// Package compile turns declared resources into plans.
//
// Compile is a pure function: it has no client, clock, environment or map order, so the operator and a laptop get the same plans and the same
// words for the same input. It resolves references, fills in every default, decides by a table of what brokers can do (capability.go) which
// guarantee and ordering source, steps and destination give together, and refuses what cannot be given with the field, the reason and what
// would be right. A refused resource never stops another one.
//
// The way through the files: compile.go has the input, the result and the order of the work; one file a kind turns a resource into its plan;
// flow.go has what Subscription, Pipeline and a Mailbox with a handler share; defaults.go holds every default of the system.
package compile
