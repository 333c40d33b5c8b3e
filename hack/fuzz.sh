#!/usr/bin/env bash
# Runs each fuzz target for FUZZTIME (default 20s), one after the other: hack/fuzz.sh [PATTERN OF THE TARGET'S NAME]
#
# What a run finds is written to testdata/fuzz beside the target, from where go test replays it ever after: commit it
# with the fix.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fuzztime=${FUZZTIME:-20s}
pattern=${1:-.}

targets=$(git grep --untracked -E '^func Fuzz[A-Za-z0-9_]*\(' -- '*_test.go' |
  sed -E 's|^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]*)\(.*|\1 \2|' | sort -u | awk -v p="$pattern" '$2 ~ p')
if [[ -z $targets ]]; then
  echo "hack/fuzz.sh: there is no fuzz target that matches $pattern" >&2
  exit 1
fi

passed=0
failed=()
while read -r folder target; do
  # By default a minute may go by in making each new input small.
  echo "==> $target in ./$folder for $fuzztime"
  if go test -run='^$' -fuzz="^$target\$" -fuzztime="$fuzztime" -fuzzminimizetime=100x "./$folder" </dev/null; then
    passed=$((passed + 1))
  else
    failed+=("./$folder $target")
  fi
done <<<"$targets"

if [[ ${#failed[@]} -gt 0 ]]; then
  echo
  echo "Fuzz targets that failed (the input is in testdata/fuzz beside them):"
  printf '  %s\n' "${failed[@]}"
fi
echo "$passed fuzz targets passed, ${#failed[@]} failed"
[[ ${#failed[@]} -eq 0 ]]
