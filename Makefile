# Everything a developer does here. `make` alone prints the list.
#
# Tools are pinned in hack/tools and built on first use into the user's cache directory; nothing has to be installed but
# Go, make and git (and a C compiler for the race detector).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

controller_gen := hack/tool.sh controller-gen
golangci_lint := hack/tool.sh golangci-lint-kube-api-linter
benchstat := hack/tool.sh benchstat

# The commit goes into the binaries where git will tell it.
buildvcs := $(shell git status --porcelain >/dev/null 2>&1 && echo true || echo false)
go_build := CGO_ENABLED=0 go build -trimpath -buildvcs=$(buildvcs) -ldflags='-s -w'

##@ To begin with

.PHONY: help
help: ## Print this list.
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z][a-z0-9-]*:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: bin/waybill ## Run the quickstart, all delivery patterns on this machine; Ctrl-C drains. ARGS adds arguments of waybill run.
	@exec bin/waybill run -f config/samples/quickstart $(ARGS)

.PHONY: build
build: bin/waybill bin/worker bin/manager ## Build the static binaries bin/waybill, bin/worker and bin/manager.

# Go knows better than make whether a binary is up to date.
.PHONY: bin/waybill bin/worker bin/manager
bin/waybill bin/worker bin/manager: bin/%:
	@echo "go build ./cmd/$*$(if $(wildcard $@),, (with nothing in the cache of Go that takes minutes, for every package is compiled))"
	@$(go_build) -o $@ ./cmd/$*

##@ While working

.PHONY: generate
generate: ## Regenerate Go code: deep copies, and what //go:generate asks for.
	@$(controller_gen) object paths=./api/...
	@go generate ./...

.PHONY: manifests
manifests: ## Regenerate the CRDs in config/crd/bases, the operator's rights in config/rbac/role.yaml and docs/api.md.
	@$(controller_gen) crd paths=./api/... output:crd:dir=config/crd/bases
	@$(controller_gen) rbac:roleName=waybill-manager paths=./controllers output:rbac:dir=config/rbac
	@go run ./hack/apidoc >docs/api.md.new && mv docs/api.md.new docs/api.md

.PHONY: fmt
fmt: ## Format the Go code and its imports.
	@$(golangci_lint) fmt

.PHONY: lint
lint: lint-api ## Lint everything, the rules of who may import whom included. ARGS="--fix" mends what can be mended.
	@hack/lint-imports.sh
	@$(golangci_lint) run $(ARGS)

.PHONY: lint-api
lint-api: ## Lint the API types against the Kubernetes API conventions.
	@$(golangci_lint) run --config .golangci-kal.yml $(ARGS) ./api/...

##@ In a cluster

# The cluster is the one of the current context. KUBECTL and the images may be others: make deploy MANAGER_IMAGE=… WORKER_IMAGE=…
KUBECTL ?= $(shell hack/kubernetes.sh)/kubectl
MANAGER_IMAGE ?= waybill.dev/manager:dev
WORKER_IMAGE ?= waybill.dev/worker:dev

.PHONY: install
install: ## Install the CRDs.
	@$(KUBECTL) apply --server-side -k config/crd

.PHONY: uninstall
uninstall: ## Remove the CRDs, and with them every resource of theirs.
	@$(KUBECTL) delete --ignore-not-found -k config/crd

.PHONY: deploy
deploy: ## Install the CRDs and the operator.
	@$(KUBECTL) kustomize config/default | sed -e 's|waybill.dev/manager:dev|$(MANAGER_IMAGE)|' -e 's|waybill.dev/worker:dev|$(WORKER_IMAGE)|' \
	  | $(KUBECTL) apply --server-side -f -

.PHONY: undeploy
undeploy: ## Remove the operator. The resources and their workers stay, unless `make uninstall` was run before.
	@$(KUBECTL) delete --ignore-not-found -k config/rbac
	@$(KUBECTL) delete --ignore-not-found -k config/manager

##@ Before pushing

.PHONY: test
test: ## Run everything: verify, lint and all tests with the race detector. Says at its end what was not exercised.
	@for phase in verify lint; do \
	  echo "==> make $$phase"; started=$$SECONDS; \
	  $(MAKE) --no-print-directory $$phase; \
	  echo "    $$phase took $$((SECONDS - started))s"; \
	done
	@echo "==> make test-unit"
	@hack/test.sh

.PHONY: test-unit
test-unit: ## Run the tests with the race detector. ARGS replaces ./..., as in ARGS="-run TestX ./runtime/flow".
	@hack/test.sh $(ARGS)

.PHONY: test-fuzz
test-fuzz: ## Run each fuzz target for FUZZTIME (20s). ARGS is a pattern of their names.
	@FUZZTIME=$(or $(FUZZTIME),20s) hack/fuzz.sh $(ARGS)

.PHONY: verify-delivery
verify-delivery: ## Inject FAULTS (1000) faults under traffic and count what is lost, seen twice or out of order. SEED=N replays.
	@go test ./test/verify -run TestDelivery -count 1 -v -timeout 24h -verify.faults=$(or $(FAULTS),1000) $(if $(SEED),-verify.seed=$(SEED))

.PHONY: verify-memory
verify-memory: ## Overload a process, BACKLOG (1000000) messages among it, and hold its memory against its bounds.
	@go test ./test/memory -count 1 -v -timeout 4h -memory.backlog=$(or $(BACKLOG),1000000) -memory.flood=1m

.PHONY: verify
verify: ## Regenerate and expect no change; expect go.mod to be tidy.
	@hack/verify.sh

.PHONY: bench
bench: ## Measure Waybill beside raw client loops, and print tables. ARGS="-jobs flow,push -messages N -rounds N -sync -cpuprofile FILE".
	@go build -o bin/bench ./test/bench
	@bin/bench $(ARGS)

.PHONY: bench-go
bench-go: ## Run the packages' own benchmarks into bin/bench.txt. BASE=FILE compares with an earlier run; ARGS="-bench X -count 6".
	@mkdir -p bin
	@go test -run '^$$' -bench . -benchmem $(ARGS) $(or $(PACKAGES),./...) | tee bin/bench.txt
	@if [[ -n "$(BASE)" ]]; then $(benchstat) "$(BASE)" bin/bench.txt; fi

.PHONY: bench-operator
bench-operator: ## Measure the manager with 100 and with 1,000 resources on a real API server: time, requests, memory. RESOURCES=N,N for others.
	@WAYBILL_RESOURCES=$${RESOURCES:-100,1000} go test -count=1 -timeout 40m -v ./test/envtest -ginkgo.focus 'Many resources' | sed -n 's/.*TestOperator report //p; /^--- FAIL\|^FAIL\|\[FAILED\]/p'

.PHONY: clean
clean: ## Remove what was built. State of `make run` stays in .waybill.
	@rm -rf bin
