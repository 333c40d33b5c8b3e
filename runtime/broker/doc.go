// Package broker is the portable layer over the drivers. A driver translates and gives its errors raw; what follows from them is decided
// here, the same for every broker: dialling again with backoff, publishing again what failed in passing without breaking the order of a
// key, reading on after a lost session, and settling in any order where the broker itself knows only positions.
package broker
