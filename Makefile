# The two commands of the README are `make run` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
LOCK := $(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

.venv/.uv: Makefile
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON): install Python 3.11 or 3.12 (apt-get install python3 python3-venv)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { echo "$$($(PYTHON) --version): needs 3.11 or 3.12; make PYTHON=python3.11"; exit 1; }
	@command -v g++ >/dev/null || { echo "no g++: DeepSpeed compiles an operator at first use (apt-get install g++)"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "no venv module (apt-get install python3-venv)"; exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# One target file a lock: the set-up is repeated when, and only when, a lock changes.
.venv/.run: .venv/.uv requirements.lock pyproject.toml
	@test .venv/.test -nt requirements.lock || { echo "set-up: installing requirements.lock (about 6 GB, a minute or two)"; \
	  $(BIN)/uv pip install -q --compile-bytecode --require-hashes --no-deps --python $(BIN)/python -r requirements.lock; }
	@$(BIN)/uv pip install -q --no-deps --no-build-isolation --python $(BIN)/python -e .
	@touch $@

.venv/.test: .venv/.uv requirements-dev.lock pyproject.toml
	@echo "set-up: installing requirements-dev.lock (about 6 GB, a minute or two)"
	@$(BIN)/uv pip install -q --compile-bytecode --require-hashes --no-deps --python $(BIN)/python -r requirements-dev.lock
	@$(BIN)/uv pip install -q --no-deps --no-build-isolation --python $(BIN)/python -e .
	@touch $@

.PHONY: setup
setup: .venv/.run  ## install what a run needs into .venv

.PHONY: run
run: .venv/.run  ## take real text through all ten stages to a model in the registry
	@headrace run

.PHONY: ask
ask: .venv/.run  ## ask a registered model: make ask MODEL=models:/headrace/1 PROMPT="..."
	@headrace generate "$(MODEL)" "$(PROMPT)"

.PHONY: up status down
up: .venv/.run  ## start the console: Prefect's UI, MLflow's, and the flows to start from there
	@headrace up

status: .venv/.run  ## what of the console runs, and where
	@headrace status

down: .venv/.run  ## stop the console
	@headrace down

.PHONY: test
test: .venv/.test check  ## every check and test but the GPU's
	@python -m pytest tests/integration -n 3 --dist loadfile --no-loadscope-reorder -p no:cacheprovider

.PHONY: check
check: .venv/.test  ## lint, types, import contracts, unit tests; under a minute
	@ruff check .
	@ruff format --check .
	@mypy
	@lint-imports
	@$(MAKE) --no-print-directory -j2 -O unit-first unit-second

# Two runs side by side, not two workers of one, which would both import what any test needs. The first
# has all that needs transformers or pandas, and of the others what makes them take equally long.
FIRST := $(addprefix tests/unit/,dpo evaluate gates measure model quantize reward_model sft tokenize train test_chat.py clean ingest)

.PHONY: unit-first unit-second
unit-first:
	@python -m pytest $(FIRST) -p no:cacheprovider

unit-second:
	@python -m pytest tests/unit $(FIRST:%=--ignore=%) -p no:cacheprovider

.PHONY: gpu
gpu: .venv/.test  ## the tests that need a GPU; about a minute
	@GPU_TESTS=1 python -m pytest tests/gpu -rs

.PHONY: cluster-up cluster-status cluster-down
cluster-up: .venv/.test  ## start a real Kubernetes with Kueue here, for development; root, Linux
	@python -m k8s.devcluster up

cluster-status: .venv/.test  ## what of it runs
	@python -m k8s.devcluster status

cluster-down: .venv/.test  ## stop it; nothing of it is left
	@python -m k8s.devcluster down

.PHONY: test-cluster
test-cluster: .venv/.test  ## the tests on a real Kubernetes: HEADRACE_TEST_KUBECONFIG's, or the one of cluster-up
	@python -m tests.on_cluster

.PHONY: accept
accept: .venv/.test  ## accept a stage's changed code without a run: make accept STAGE=clean
	@test -n "$(STAGE)" || { echo "which stage? make accept STAGE=clean"; exit 1; }
	@headrace accept --check $(STAGE)
	@GOLDEN=required python -m pytest tests/integration/test_small_chain.py -k "[$(STAGE)]" -p no:cacheprovider
	@headrace accept $(STAGE)

.PHONY: golden
golden: .venv/.test  ## record the stages' digests on the small corpus, after a wanted change
	@GOLDEN=record python -m pytest tests/integration/test_small_chain.py -k recorded_bytes -p no:cacheprovider

.PHONY: lock
lock: .venv/.uv  ## resolve the dependencies again
	@$(LOCK) --extra control pyproject.toml -o requirements.lock
	@$(LOCK) -c requirements.lock pyproject.toml -o requirements-gpu.lock
	@$(LOCK) --extra control --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

.PHONY: clean
clean:  ## remove what runs left behind; the DVC cache, the registry and the environment stay
	@rm -rf runs artifacts reports
