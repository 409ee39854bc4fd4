# Every target makes what it needs; nothing has to be installed or done before. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# Debian's own python3 is enough; name another with `make PYTHON=python3.13 …`.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done || true)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
DEMO_VENV := .venv-demo
DEMO_READY := $(DEMO_VENV)/.installed
JOBS ?= 2
# The tests that kill processes wait most of the time: for leases, for servers that come back.
PROCESS_JOBS ?= $(shell echo $$((3 * $(JOBS))))
ROUNDS ?= 3
TASKS ?= 20000
# Kills, restarts and other programs' races on a machine that may be busy: what failed is shown, and has to pass alone.
AGAIN = [ $$? -eq 1 ] && echo "--- once more, alone:" && $(BIN)/python -m pytest -q --last-failed --last-failed-no-failures none
# Arguments for pytest, e.g. make unit TESTS="tests/core -k codec".
TESTS ?= tests --ignore=tests/process --ignore=tests/interop

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Hundreds of processes start in the tests: each would compile the sources again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test lint types servers unit process interop check fmt bench bench-redis bench-rabbitmq clean

help:  ## list the commands
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY)  ## make .venv: umbel (editable) and the development tools

$(READY): pyproject.toml scripts/make_venv.py
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found; make PYTHON=/path/to/python …" >&2; exit 1; }
	$(PYTHON) scripts/make_venv.py $(VENV)
	$(BIN)/python -m pip install -q "pip>=25.1"
	$(BIN)/python -m pip install -q --editable . --group dev
	@touch $@

$(DEMO_READY): pyproject.toml scripts/make_venv.py
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found; make PYTHON=/path/to/python …" >&2; exit 1; }
	$(PYTHON) scripts/make_venv.py $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m pip install -q --editable .
	@touch $@

demo: $(DEMO_READY)  ## real work on a SQLite file, with kill -9 in the middle; about half a minute
	@$(DEMO_VENV)/bin/python examples/stdlib_demo/run.py $(DEMO_ARGS)

test: lint types unit process interop  ## everything that has to pass: lint, types, all tests

lint: $(READY)  ## ruff (rules and format) and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(READY)  ## mypy strict, and pyright on the public names
	$(BIN)/mypy
	for place in examples/*/; do MYPYPATH=$$place $(BIN)/mypy --cache-dir .mypy_cache/$$place $$place; done
	$(BIN)/python scripts/public_types.py

servers: $(READY)  ## install redis-server and rabbitmq-server where they are missing (Debian, as root)
	@$(BIN)/python -m tests.servers

unit: $(READY) servers  ## the tests that share the machine well, in parallel (TESTS=… to choose)
	$(BIN)/python -m pytest -q -n $(JOBS) $(TESTS) || { $(AGAIN) $(TESTS); }

process: $(READY) servers  ## the tests that kill real processes
	$(BIN)/python -m pytest -q -n $(PROCESS_JOBS) --dist loadgroup tests/process || { $(AGAIN) tests/process; }

interop: $(READY) servers  ## the tests beside real Celery, which gets an environment of its own
	@$(BIN)/python -m tests.interop.environment
	$(BIN)/python -m pytest -q -n 3 --dist loadgroup tests/interop || { $(AGAIN) tests/interop; }

check: test demo  ## what to run before handing in: test, then the demo

fmt: $(READY)  ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## umbel and its rivals in interleaved rounds (ROUNDS=3, TASKS=20000; QUICK=1 for a small run)
	$(BIN)/python bench/run.py --rounds $(ROUNDS) --tasks $(TASKS) $(if $(QUICK),--quick)

bench-redis bench-rabbitmq: bench-%: $(READY)  ## the same on Redis alone, or on RabbitMQ
	$(BIN)/python bench/run.py --engines $* --rounds $(ROUNDS) --tasks $(TASKS) $(if $(QUICK),--quick)

clean:  ## remove what the other commands made
	rm -rf $(VENV) $(DEMO_VENV) .venv-bench .venv-interop .venv-interop-lock build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
