# `make run` serves the example; `make test` proves everything. `make help` lists the rest.
SHELL := /bin/bash
CARGO ?= cargo
BIN := target/release/mobula
export MOBULA_BIN := $(CURDIR)/$(BIN)

.PHONY: help run test build check unit chart e2e test-kubernetes test-node test-gpu test-compat sim fuzz chaos soak loadtest bench h2spec fmt models

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

run: build models ## Build, fetch ONNX Runtime and the default models, serve examples/rag.yaml
	$(BIN) run examples/rag.yaml

test: ## Everything: format, lints, unit, property, integration and end-to-end tests
	scripts/test.sh

build: ## The release binary
	@scripts/require.sh cargo
	$(CARGO) build --release --locked -p mobula

models: build ## Fetch ONNX Runtime and the default models into the user's cache
	$(BIN) models fetch

check: ## Format, lints and licences only
	scripts/test.sh check

unit: ## Tests of the crates only
	scripts/test.sh unit

chart: ## Tests of the Helm chart and the image only
	scripts/test.sh chart

e2e: ## End-to-end tests with real clients only
	scripts/test.sh e2e

test-kubernetes: ## Worker pods on a real control plane only
	scripts/test.sh kubernetes

test-node: ## The chart and the image on a real kubelet and containerd; needs root, leaves nothing behind
	scripts/test.sh node

test-gpu: ## The built-in applications on an NVIDIA GPU; fails where there is none
	scripts/test.sh gpu

test-compat: ## Older releases of Ray's own client; installs each of them
	scripts/test.sh compat

sim: ## A simulated cluster with faults by seed: SEEDS=2000 of them from FIRST=1, or the log of one with SEED=n
	$(CARGO) run --release --quiet --locked -p mobula-sim -- $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),2000) --first $(or $(FIRST),1))

fuzz: ## What is read from others, fed with any bytes: SECONDS=60 for each target; needs cargo-fuzz and a nightly compiler
	scripts/fuzz.sh $(or $(SECONDS),60)

soak: build ## Half of what a router can do for SECONDS=600, while replicas come and go
	SOAK_SECONDS=$(or $(SECONDS),600) loadtest/soak.sh

chaos: build ## Faults under load: a cluster with three etcd members for SECONDS=600; SEED=n repeats a run
	@venv="$$(tests/setup.sh)" && "$$venv/bin/python" tests/chaos --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

loadtest: build models ## k6 against the example, with thresholds
	loadtest/run.sh

bench: build models ## Start-up, memory and the hop beside nginx, HAProxy and Ray Serve; raw output in loadtest/results/
	loadtest/footprint.sh
	loadtest/hop.sh

h2spec: build ## A public conformance suite of HTTP/2 against the ingress; needs Go
	scripts/h2spec.sh

fmt: ## Format the code
	$(CARGO) fmt --all
