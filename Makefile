# One command per wish; every target sets up what it needs. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTHON := $(BIN)/python
# Extra arguments for pytest: make unit ARGS="-k lease -x"
ARGS ?=

.PHONY: help
help: ## list what there is to do
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: bootstrap
bootstrap: ## make .venv, and on Debian as root install what is missing (the others do it by themselves)
	@.ci/bootstrap

.PHONY: demo
demo: bootstrap ## back up and restore a three-node replica set before your eyes
	@$(PYTHON) -m tests.demo

.PHONY: test
test: bootstrap ## run every ring of tests, cheapest first
	@$(PYTHON) .ci/rings.py unit contract integration cluster -- $(ARGS)

.PHONY: unit
unit: bootstrap ## run the unit tests: pure logic, no network, no real time
	@$(PYTHON) .ci/rings.py unit -- $(ARGS)

.PHONY: contract
contract: bootstrap ## run the contract tests: one suite, every implementation
	@$(PYTHON) .ci/rings.py contract -- $(ARGS)

.PHONY: integration
integration: bootstrap ## run the integration tests: a real mongod
	@$(PYTHON) .ci/rings.py integration -- $(ARGS)

.PHONY: cluster
cluster: bootstrap ## run the cluster tests: agents as processes, and faults
	@$(PYTHON) .ci/rings.py cluster -- $(ARGS)

.PHONY: soak
soak: bootstrap ## prove point-in-time restores under faults for MINUTES (30), from SEED on; SHARDS=2: a sharded cluster, STORAGE=s3: on S3
	@MINUTES="$(MINUTES)" SEED="$(SEED)" TARGETS="$(TARGETS)" OUTAGE_S="$(OUTAGE_S)" \
		FAULTS="$(FAULTS)" SHARDS="$(SHARDS)" STORAGE="$(STORAGE)" \
		$(PYTHON) -m tests.soak

.PHONY: seeds
seeds: bootstrap ## restore SEEDS (200) random histories from SEED on to moments of them, without agents
	@SEEDS="$(SEEDS)" SEED="$(SEED)" $(PYTHON) -m tests.soak.seeds

.PHONY: crash
crash: bootstrap ## fail at every fault point in every way (an hour); POINTS=delete,-kill: only these rows; JOBS (3)
	@TIDELOG_CRASH="$(or $(POINTS),all)" $(PYTHON) -m pytest -q -rs -n "$(or $(JOBS),3)" \
		tests/cluster/test_crash.py tests/cluster/test_crash_sharded.py $(ARGS)
	@$(if $(POINTS),,TIDELOG_CRASH=all $(PYTHON) -m pytest -q -rs tests/cluster/test_network_faults.py \
		tests/cluster/test_control_elections.py tests/cluster/test_memory.py \
		tests/cluster/test_storage_faults.py tests/cluster/test_restore_faults.py $(ARGS))
	@$(if $(POINTS),,TIDELOG_CRASH_EXAMPLES=5000 $(PYTHON) -m pytest -q --timeout 3600 \
		tests/unit/operations/test_lease_model.py)

.PHONY: bench
bench: bootstrap ## measure every path beside its limit; SCALE (1), ROUNDS (3); writes docs/performance.md
	@$(PYTHON) -m bench --scale "$(or $(SCALE),1)" --rounds "$(or $(ROUNDS),3)" $(ARGS)

.PHONY: check
check: bootstrap lint format-check types layers unit ## all that has to be green before a commit, in under a minute

.PHONY: lint
lint: bootstrap ## ruff's rules
	@$(BIN)/ruff check .

.PHONY: format-check
format-check: bootstrap ## is everything formatted?
	@$(BIN)/ruff format --check .

.PHONY: types
types: bootstrap ## mypy, strict
	@$(BIN)/mypy
	@$(BIN)/mypy .ci/rings.py

.PHONY: layers
layers: bootstrap ## which module may import which
	@$(BIN)/lint-imports

.PHONY: format
format: bootstrap ## format, and repair what ruff can
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

.PHONY: docs
docs: bootstrap ## write anew what docs/ has from the code: settings, events, metrics, ctl's answers
	@$(PYTHON) -m tests.support.settings_reference
	@$(PYTHON) -m tests.support.events_reference
	@$(PYTHON) -m tests.support.metrics_reference
	@$(PYTHON) -m tests.support.ctl_schema

.PHONY: screenshots
screenshots: bootstrap ## take the pictures of the page for the README anew (needs chromium)
	@$(PYTHON) -m tests.support.screenshots

.PHONY: lock
lock: bootstrap ## write the lock files anew; ARGS=--upgrade takes newer versions
	@.ci/lock $(ARGS)

.PHONY: clean
clean: ## remove .venv, caches and builds
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
