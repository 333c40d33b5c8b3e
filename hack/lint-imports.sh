#!/usr/bin/env bash
# Tries the import rules of .golangci.yml: a rule whose pattern matches no file forbids nothing, and nobody notices.
#
# It makes a skeleton of this module in a temporary folder, with one file for each row of the table below, lints it once
# and compares. A new rule gets a row; what a row imports should be refused by that rule alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

module=$(go list -m)
top=$PWD

# folder of the importing file | what it imports (a path from . is ours) | refused or allowed
table='
api/v1alpha1                | k8s.io/apimachinery/pkg/types | allowed
api/v1alpha1                | github.com/spf13/cobra        | refused
api/v1alpha1                | ./runtime/plan                | refused
runtime/plan                | encoding/json                 | allowed
runtime/plan                | github.com/spf13/cobra        | refused
runtime/plan                | ./runtime/message             | refused
runtime/message             | github.com/spf13/cobra        | refused
runtime/message/cehttp      | ./runtime/message             | allowed
runtime/message/cehttp      | ./runtime/plan                | refused
runtime/broker/driver       | ./runtime/message             | allowed
runtime/broker/driver       | ./runtime/plan                | refused
runtime/broker/driver       | github.com/spf13/cobra        | refused
runtime/broker/nats         | github.com/nats-io/nuid       | allowed
runtime/broker/nats         | ./runtime/broker/driver       | allowed
runtime/broker/nats         | ./runtime/plan                | refused
runtime/broker/nats         | github.com/spf13/cobra        | refused
runtime/compile             | ./api                         | allowed
runtime/compile             | ./runtime/expr                | allowed
runtime/compile             | k8s.io/apimachinery/pkg/types | allowed
runtime/compile             | ./runtime/schema              | allowed
runtime/compile             | ./runtime/secret              | allowed
runtime/compile             | ./runtime/broker/driver       | refused
runtime/compile             | github.com/spf13/cobra        | refused
runtime/broker              | ./runtime/broker/nats         | refused
runtime/checkpoint          | ./api                         | refused
runtime/engine              | ./api                         | refused
runtime/engine              | ./controllers                 | refused
runtime/engine              | ./runtime/broker/nats         | refused
runtime/engine              | ./runtime/compile             | refused
runtime/engine              | ./runtime/flow                | allowed
runtime/engine              | ./runtime/manifest            | refused
runtime/expr                | github.com/google/cel-go/cel  | refused
runtime/flow                | ./api                         | refused
runtime/flow                | ./cmd                         | refused
runtime/flow                | k8s.io/apimachinery/pkg/types | refused
runtime/flow                | log                           | refused
runtime/flow                | log/slog                      | allowed
runtime/flow                | math/rand                     | refused
runtime/flow                | math/rand/v2                  | allowed
runtime/gateway             | ./api                         | refused
runtime/gateway             | github.com/nats-io/nuid       | refused
runtime/manifest            | ./api                         | allowed
runtime/poll                | ./api                         | refused
runtime/reply               | ./api                         | refused
runtime/schema              | ./api                         | refused
runtime/secret              | ./api                         | refused
runtime/sink                | ./api                         | refused
runtime/step                | ./api                         | refused
runtime/telemetry           | ./api                         | refused
runtime/flow                | go.opentelemetry.io/otel/trace | refused
runtime/engine              | go.opentelemetry.io/otel/trace | refused
runtime/tracing             | go.opentelemetry.io/otel/trace | allowed
runtime/tracing             | ./api                         | refused
controllers                 | ./runtime/compile             | allowed
controllers                 | ./runtime/broker/driver       | refused
controllers                 | ./runtime/engine              | refused
controllers                 | github.com/spf13/cobra        | refused
controllers                 | sigs.k8s.io/controller-runtime/pkg/client | allowed
controllers/brokers         | ./runtime/broker/driver       | allowed
controllers/brokers         | ./runtime/broker/nats         | refused
controllers/workload        | ./runtime/engine              | refused
controllers/workload        | k8s.io/client-go/kubernetes   | refused
controllers/workload        | sigs.k8s.io/controller-runtime/pkg/client | refused
cmd/manager                 | ./runtime/broker/nats         | allowed
cmd/waybill                 | ./runtime/broker/nats         | allowed
test/bench                  | github.com/nats-io/nuid       | allowed
'

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp go.mod go.sum .golangci.yml "$scratch"
row=0
while IFS='|' read -r folder import expected; do
  read -r folder import expected <<<"$folder $import $expected"
  if [[ -z $folder ]]; then continue; fi
  if [[ $import == ./* ]]; then # an empty package below it, so that the rows make no cycle
    mkdir -p "$scratch/${import#./}/target"
    echo "package target" >"$scratch/${import#./}/target/target.go"
    import=$module/${import#./}/target
  fi
  row=$((row + 1))
  mkdir -p "$scratch/$folder"
  printf 'package rules\n\nimport _ "%s"\n' "$import" >"$scratch/$folder/row$row.go"
  echo "$folder/row$row.go|$import|$expected" >>"$scratch/rows"
done <<<"$table"

found=$(cd "$scratch" && "$top/hack/tool.sh" golangci-lint-kube-api-linter run --enable-only depguard --issues-exit-code 0 2>&1)
failed=0
while IFS='|' read -r file import expected; do
  actual=allowed
  if grep -q "^$file:.*(depguard)" <<<"$found"; then actual=refused; fi
  if [[ $actual != "$expected" ]]; then
    echo "the import rules should have $expected and have $actual: ${file%/*} imports $import"
    failed=1
  fi
done <"$scratch/rows"
if ! grep -q '(depguard)' <<<"$found" || grep -q '(typecheck)' <<<"$found"; then
  echo "the import rules could not be tried:"
  echo "$found"
  failed=1
fi
if [[ $failed -eq 0 ]]; then echo "the import rules hold: $row imports tried"; fi
exit "$failed"
