# Everything a checkout does. It needs Python 3.11 or newer and make; the rest goes into its own environment.
#   make demo     orders cross three services, with crashes on the way, and the books balance (STORE=postgres: a fleet;
#                   STYLE=choreography or commands: over BROKER=embedded|nats|redis|kafka|rabbitmq)
#   make test     the whole suite, by two processes, then `make prove`      (make test T=tests/core ARGS=-x   a part of it)
#                   as root on Debian it installs postgresql-15 and rabbitmq-server first, so that they are tested too
#   make prove    the rules model-checked, the runtime simulated under many seeds and killed at every point
#   make check    ruff, mypy --strict, pyright strict
#   make bench    a short look at the rates       (make bench-peers   beside the peers, which it sets up; half an hour)
# Another Python beside the first: make test PYTHON=python3.13 VENV=.venv-3.13

VENV   ?= .venv
# The first Python here that is new enough; PYTHON=... overrides the choice.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
            $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
T      ?= tests
ARGS   ?=
# The tests of one file run in one process, and files beside each other; a part of the suite runs in one.
SPREAD ?= $(if $(filter tests,$(T)),-n 2 --dist loadfile --no-loadscope-reorder)
STORE  ?= sqlite
STYLE  ?= orchestration
BROKER ?= embedded

BIN   := $(VENV)/bin
TYPED := $(wildcard src examples benchmarks)

# pyright and its Node come from wheels in the lock; without this it would ask the network for a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test prove check format bench bench-peers lock clean

help:
	@sed -n '1,9s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.ready
	$(BIN)/python -m examples.orders.demo --store $(STORE) --style $(STYLE) --broker $(BROKER) $(ARGS)

test: $(VENV)/.ready
	@$(BIN)/python -m tests.servers.older
	@$(BIN)/python -m tests.servers.rabbit
	$(BIN)/python -m pytest $(SPREAD) $(T) $(ARGS)
	$(if $(filter tests,$(T)),@$(MAKE) --no-print-directory prove)

# Each takes all cores, says in one line what it went through, and fails if a rule was broken.
prove: $(VENV)/.ready
	$(BIN)/python -m tests.model
	$(BIN)/python -m tests.simulation --schedules 20000
	$(BIN)/python -m tests.crash.every_point

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(TYPED)
	$(BIN)/pyright $(TYPED)

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks.import_time --json
	$(BIN)/python -m benchmarks.throughput --store sqlite --inflight 1,100 --json $(ARGS)
	$(BIN)/python -m benchmarks.throughput --store postgres --inflight 1,100 --json $(ARGS)

# The peers get environments of their own in .venv-peers; `python -m benchmarks.page --measure compare` keeps the lines.
bench-peers: $(VENV)/.ready
	$(BIN)/python -m benchmarks.compare --json $(ARGS)

# The environment is ready when everything in the lock is in it; a second run finds the stamp and does nothing.
$(VENV)/.ready: requirements/dev.txt pyproject.toml
	@command -v "$(firstword $(PYTHON))" >/dev/null 2>&1 || { \
	    echo "Atone needs Python 3.11 or newer and found none ('$(PYTHON)')." >&2; \
	    echo "Next: install one, then name it, for example: make $(or $(MAKECMDGOALS),test) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Atone needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; \
	    echo "Next: name a newer one, for example: make $(or $(MAKECMDGOALS),test) PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Own pip settings are left out: a private index or a folder of wheels would put its files' hashes into the locks.
lock: $(VENV)/.ready
	env -u PIP_FIND_LINKS -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null CUSTOM_COMPILE_COMMAND="make lock" \
	    $(BIN)/pip-compile $(LOCK_FLAGS) $(EXTRAS) \
	    --output-file requirements/dev.txt pyproject.toml requirements/dev.in
	env -u PIP_FIND_LINKS -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null CUSTOM_COMPILE_COMMAND="make lock" \
	    $(BIN)/pip-compile $(LOCK_FLAGS) --constraint requirements/dev.txt \
	    --output-file requirements/core.txt pyproject.toml
	env -u PIP_FIND_LINKS -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null CUSTOM_COMPILE_COMMAND="make lock" \
	    $(BIN)/python -m benchmarks.peers.lock $(LOCK_FLAGS)

EXTRAS = $(foreach extra,cli fastapi faststream httpx kafka nats otel postgres prometheus pydantic rabbitmq redis,--extra $(extra))

# ARGS=--upgrade moves every pin. Neither a registry's host nor a path of this machine may enter a lock.
LOCK_FLAGS = --quiet --generate-hashes --strip-extras --allow-unsafe --resolver=backtracking \
    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links $(ARGS)

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov build dist
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
	rm -rf $(VENV) .venv-peers
