package main

import (
	"strings"
	"testing"
)

// run gives the report of a run: what was printed, and whether all was well.
func run(t *testing.T, strict bool, events ...string) (string, bool) {
	t.Helper()
	var out strings.Builder
	r := newReport(&out)
	if err := r.read(strings.NewReader(strings.Join(events, "\n") + "\n")); err != nil {
		t.Fatal(err)
	}
	ok := r.finish(strict)
	return out.String(), ok
}

const (
	passing = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA"}`
	packagePassed = `{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}`
	packageFailed = `{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}`
	skipped = `{"Action":"run","Package":"p","Test":"TestKafka"}
{"Action":"output","Package":"p","Test":"TestKafka","Output":"=== RUN   TestKafka\n"}
{"Action":"output","Package":"p","Test":"TestKafka","Output":"    k_test.go:7: no server\n"}
{"Action":"output","Package":"p","Test":"TestKafka","Output":"--- SKIP: TestKafka (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestKafka"}`
	subtests = `{"Action":"run","Package":"p","Test":"TestS"}
{"Action":"run","Package":"p","Test":"TestS/one"}
{"Action":"pass","Package":"p","Test":"TestS/one"}
{"Action":"run","Package":"p","Test":"TestS/two"}
{"Action":"output","Package":"p","Test":"TestS/two","Output":"    s_test.go:3: bad\n"}
{"Action":"fail","Package":"p","Test":"TestS/two"}
{"Action":"fail","Package":"p","Test":"TestS"}`
)

func TestReport(t *testing.T) {
	tests := map[string]struct {
		strict  bool
		events  []string
		ok      bool
		says    []string
		doesNot []string
	}{
		"passing tests are silent": {
			strict: true, events: []string{passing, packagePassed}, ok: true,
			says:    []string{"ok  \tp\t0.1s\n", "Everything could be exercised", "\n1 passed, 0 failed, 0 skipped\n"},
			doesNot: []string{"chatter", "PASS"},
		},
		"a skipped test is named with its reason": {
			events: []string{passing, skipped, packagePassed}, ok: true,
			says: []string{"Not exercised on this machine:\n  p TestKafka: skipped, k_test.go:7: no server\n", "\n1 passed, 0 failed, 1 skipped\n"},
		},
		"strict refuses a skipped test": {
			strict: true, events: []string{passing, skipped, packagePassed}, ok: false,
			says: []string{"p TestKafka: skipped", "must leave nothing out"},
		},
		"strict refuses what a test says it left out": {
			strict: true, ok: false,
			events: []string{`{"Action":"attr","Package":"p","Test":"TestA","Key":"not-exercised","Value":"sqs: no server"}`, passing, packagePassed},
			says:   []string{"  p TestA: sqs: no server\n"},
		},
		"a subtest's failure is counted once and shown": {
			events: []string{subtests, packageFailed}, ok: false,
			says: []string{"=== p TestS/two\n    s_test.go:3: bad\n", "Packages that failed: p\n", "\n1 passed, 1 failed, 0 skipped\n"},
		},
		"a package that does not build is a failure": {
			events: []string{`{"ImportPath":"p [p.test]","Action":"build-output","Output":"p/a.go:1: undefined: x\n"}`, packageFailed}, ok: false,
			says: []string{"undefined: x", "Packages that failed: p\n", "\n0 passed, 1 failed, 0 skipped\n"},
		},
		"a test that took the process down has failed": {
			events: []string{
				`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"panic: boom\n"}`, packageFailed,
			}, ok: false,
			says: []string{"panic: boom", "\n0 passed, 1 failed, 0 skipped\n"},
		},
		"a table is printed as the test gave it": {
			ok: true,
			events: []string{
				`{"Action":"attr","Package":"p","Test":"TestA","Key":"report","Value":"row 1"}`,
				`{"Action":"attr","Package":"p","Test":"TestA","Key":"report","Value":"row 2"}`, passing, packagePassed,
			},
			says: []string{"Reported by p TestA:\n  row 1\n  row 2\n"},
		},
		"a run without tests is not a success": {
			ok: false, says: []string{"No test ran at all"},
		},
		"what is not JSON is passed on": {
			events: []string{"go: downloading something", passing}, ok: true,
			says: []string{"go: downloading something\n"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			out, ok := run(t, test.strict, test.events...)
			if ok != test.ok {
				t.Errorf("ok is %t, want %t", ok, test.ok)
			}
			for _, want := range test.says {
				if !strings.Contains(out, want) {
					t.Errorf("the report does not say %q", want)
				}
			}
			for _, unwanted := range test.doesNot {
				if strings.Contains(out, unwanted) {
					t.Errorf("the report says %q", unwanted)
				}
			}
			if t.Failed() {
				t.Logf("the report:\n%s", out)
			}
		})
	}
}
