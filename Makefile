# Nightshard. `make quickstart` ends in a scored run, `make test` runs every check; both set up
# everything that they need, without root, under .venv/ and .nightshard/.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

PYTHON ?= python3
STATE := $(CURDIR)/.nightshard
UV := $(shell command -v uv || echo $(STATE)/tools/bin/uv)
BIN := $(CURDIR)/.venv/bin
NIGHTSHARD := $(BIN)/nightshard
TORCH_INDEX ?=
FORCE ?=
NAME ?= overhead
ARGS ?=
PYTEST_ARGS ?=

# uv brings certificates of its own, which a network that inspects TLS does not match.
export UV_SYSTEM_CERTS := true
export NIGHTSHARD_HOME := $(CURDIR)
export NIGHTSHARD_STATE := $(STATE)

.PHONY: help
help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

.PHONY: quickstart
quickstart: setup ## Set up all parts on this machine and evaluate a small model
	@$(NIGHTSHARD) quickstart $(if $(filter-out 0,$(FORCE)),--force) $(if $(TORCH_INDEX),--torch-index '$(TORCH_INDEX)')

.PHONY: down
down: ## Stop what quickstart started; answers and scores are kept
	@if [ -x $(NIGHTSHARD) ]; then $(NIGHTSHARD) down; else echo "Nothing to stop."; fi

# Most of the time the tests wait, for jobs and for Airflow, so two halves of them run at once.
# With PYTEST_ARGS, which may choose some, there is one pytest.
.PHONY: test
test: setup worker-env lint ## Run every check and every test
	@if [ -n '$(PYTEST_ARGS)' ]; then
	  exec $(BIN)/python -m pytest $(PYTEST_ARGS)
	fi
	log=$(STATE)/test-faults.log
	$(BIN)/python -m pytest tests/faults tests/integration/local tests/nights >"$$log" 2>&1 &
	second=$$!
	trap 'kill $$second 2>/dev/null' INT TERM
	failed=0
	$(BIN)/python -m pytest --ignore=tests/faults --ignore=tests/integration/local --ignore=tests/nights || failed=$$?
	wait $$second || failed=$$?
	echo "» the other half: tests/faults, tests/integration/local and tests/nights"
	cat "$$log"
	exit $$failed

.PHONY: lint
lint: setup ## Format, lint, type and layer checks
	@$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: reliability
reliability: setup worker-env ## Break things on purpose and write docs/reliability.md anew
	@mkdir -p $(STATE)/reliability
	export NIGHTSHARD_RELIABILITY_DIR=$(STATE)/reliability
	$(BIN)/python -m pytest tests/faults --write-reliability $(PYTEST_ARGS)

.PHONY: docs
docs: setup ## Build the docs as a site, without a warning, in .nightshard/site
	@$(BIN)/zensical build --strict

.PHONY: judges
judges: setup ## Compare the judges with others and write docs/judges.md anew
	@$(BIN)/python docs/judges.py

.PHONY: perf
perf: setup worker-env ## Measure Nightshard itself: make perf NAME=overhead [ARGS=--quick]
	@$(BIN)/python perf/$(NAME).py $(ARGS)

.PHONY: worker-env
worker-env: setup ## Make the worker's own environment (vLLM's CPU build, 3.4 GB)
	@$(NIGHTSHARD) worker-env $(if $(TORCH_INDEX),--torch-index '$(TORCH_INDEX)') >/dev/null

.PHONY: setup
setup: .venv/.ready ## Make the control plane's environment from the lock

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(
	  None if (3, 11) <= v < (3, 14) else
	  "Nightshard needs Python 3.11 to 3.13 and $(PYTHON) is %d.%d; name another one: make PYTHON=python3.12 ..." % v)'
	if ! [ -x "$(UV)" ]; then
	  echo "» fetching uv"
	  $(PYTHON) -m venv $(STATE)/tools || {
	    echo "Python cannot make environments here; install its venv module: apt-get install python3-venv" >&2
	    exit 1
	  }
	  $(STATE)/tools/bin/pip install --quiet --disable-pip-version-check uv 2> >(grep -v '^WARNING: Location' >&2)
	fi
	echo "» making the control plane's environment (290 packages, about 1.6 GB)"
	$(UV) venv --quiet --clear --python "$$(command -v $(PYTHON))" .venv
	$(UV) pip sync --quiet --python .venv requirements.lock
	$(UV) pip install --quiet --python .venv --no-deps --editable .
	touch $@

.PHONY: lock
lock: ## Write the locks anew from the two pyproject files
	@$(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate \
	  --extra celery --extra postgres --extra lm-eval --group dev pyproject.toml --output-file requirements.lock
	cd shard_worker
	$(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate \
	  --extra vllm pyproject.toml --output-file requirements.lock
