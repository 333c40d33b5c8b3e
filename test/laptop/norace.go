//go:build !race

package laptop

// raceFlags build a program as the test is built.
var raceFlags []string
