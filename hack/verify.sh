#!/usr/bin/env bash
# Regenerates everything that is generated and fails when that changes a file, and when go.mod is not tidy. It compares
# the tree before and after, not the tree with a commit: work in progress may be verified too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

snapshot() { # the hash of each file that is or would be committed
  git -c core.quotepath=off ls-files --cached --others --exclude-standard | sort -u | while read -r file; do
    if [[ -f $file ]]; then echo "$file"; fi
  done >"$scratch/files"
  git hash-object --no-filters --stdin-paths <"$scratch/files" >"$scratch/hashes"
  paste -d ' ' "$scratch/hashes" "$scratch/files"
}

failed=0

snapshot >"$scratch/before"
make --no-print-directory generate manifests
snapshot >"$scratch/after"
if ! changed=$(diff "$scratch/before" "$scratch/after"); then
  echo
  echo "Generated files were out of date:"
  sed -nE 's/^[<>] [0-9a-f]+ (.*)/  \1/p' <<<"$changed" | sort -u
  echo "They have been regenerated now. Next time: make generate manifests, and commit what it changes."
  failed=1
fi

for module in . hack/tools hack/kubernetes; do
  if ! (cd "$module" && go mod tidy -diff >"$scratch/tidy"); then
    echo
    echo "$module/go.mod or go.sum is not tidy (run: cd $module && go mod tidy):"
    grep -E '^[-+]' "$scratch/tidy" | grep -vE '^(---|\+\+\+) ' | sed -n '1,20p'
    failed=1
  fi
done

exit "$failed"
