#!/usr/bin/env bash
# Runs the tests with the race detector and says at the end, by name, what could not be exercised on this machine:
# hack/test.sh [ARGUMENT OF go test]…   (without arguments: ./...)
#
# With CI=true nothing may be left out: a skipped test is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ $# -eq 0 ]]; then
  # The longest begin first, so that none is left alone at the end, and more at once than there are processors: they mostly wait.
  set -- -p 4 ./test/envtest ./test/contract ./test/verify ./...
  # Tests of the operator run against a real API server. It is built before any test's time begins to run; where it cannot
  # be, those tests say so by name.
  hack/kubernetes.sh >/dev/null || true
fi

report=()
if [[ ${CI:-} == true || ${CI:-} == 1 ]]; then
  report+=(-strict)
fi

# The race detector is linked with the C compiler's runtime.
race=(-race)
compiler=$(go env CC)
if [[ $(go env CGO_ENABLED) != 1 ]] || ! command -v "${compiler%% *}" >/dev/null; then
  race=()
  report+=(-left-out "the race detector: it needs a C compiler (install gcc)")
fi

mkdir -p bin
go build -buildvcs=false -o bin/testreport ./hack/testreport

# The report has the last word about success; go test's own exit code says the same and must not be lost.
set +e
go test ${race[@]+"${race[@]}"} -timeout 30m -json "$@" | bin/testreport ${report[@]+"${report[@]}"}
codes=("${PIPESTATUS[@]}")
set -e
if [[ ${codes[1]} -ne 0 ]]; then exit "${codes[1]}"; fi
exit "${codes[0]}"
