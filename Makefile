# Headrace: every command a developer, CI or a reader of the README needs.
# Everything is installed into ./.venv from the lock files in requirements/; nothing is global.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

VENV    := .venv
BIN     := $(VENV)/bin
PYTHON  ?= $(firstword $(wildcard $(BIN)/python) $(foreach p,python3.13 python3.12 python3.11 python3,$(if $(shell $(p) -c 'import sys; print(sys.version_info >= (3, 11) or "")' 2>/dev/null | grep True),$(p))) python3)
STAMP   := $(VENV)/.installed
UV_LOCK := requirements/uv.txt
LOCK    := requirements/dev.txt
UV      := VIRTUAL_ENV=$(VENV) $(BIN)/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
           --no-emit-index-url --no-emit-find-links --no-header
TOGETHER := --numprocesses auto --dist worksteal
PACKAGES := ingest processors sinks schemas infra

# Hundreds of Python processes start here: kept bytecode spares each of them a second of CPU.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: all help setup demo run test check lint types layout drift bench chaos golden docs lock wheel clean

all: check test  ## check + test (the default)

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## make .venv with the locked dependencies (done by every target that needs it)

$(STAMP): $(UV_LOCK) $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Headrace needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "==> making $(VENV) with $$($(PYTHON) --version)"; \
	  $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python could not make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; }
	@echo "==> installing the locked dependencies into $(VENV) (hashes checked)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(UV_LOCK) || { \
	  echo "pip could not install uv: see the lines above." >&2; \
	  echo "No network? Behind a proxy, set HTTPS_PROXY; with a mirror, set PIP_INDEX_URL." >&2; exit 1; }
	@$(UV) pip install --quiet --require-hashes -r $(LOCK) || { \
	  echo "==> uv could not; trying pip, which reads pip.conf"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK); } || { \
	  echo "The locked dependencies could not be installed: see the lines above." >&2; \
	  echo "No network? Behind a proxy, set HTTPS_PROXY; with a mirror, set UV_DEFAULT_INDEX." >&2; \
	  echo "A wheel missing for your platform? Linux (x86-64, aarch64) and macOS (arm64) have all of them." >&2; exit 1; }
	@$(UV) pip install --quiet --no-deps --no-build-isolation -e .
	@echo "==> ready: $$($(BIN)/python --version), $$($(BIN)/headrace --version)"
	@touch $@

demo: $(STAMP)  ## a synthetic chain into ClickHouse, sample queries, a reorg, a lying provider
	$(BIN)/headrace demo $(ARGS)

run: $(STAMP)  ## index a real chain: make run RPC=https://… [ARGS="--chain base --from 20000000"]
	@test -n "$(RPC)" || { echo 'Name an endpoint: make run RPC=https://… [ARGS="--chain NAME --from N"]' >&2; exit 2; }
	@$(BIN)/headrace run --rpc "$(RPC)" $(ARGS)

test: $(STAMP)  ## every test, several at a time (ARGS="tests/sinks -k ledger" for some, one by one)
	$(BIN)/pytest $(or $(ARGS),$(TOGETHER))

check: lint types layout drift  ## lint, format, types, layout, docs drift

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

layout: $(STAMP)
	$(BIN)/pytest -q tests/test_layout.py

drift: $(STAMP)
	$(BIN)/python -m infra.docs --check

bench: $(STAMP)  ## the figures of the README, written to benchmarks/results (ARGS="--quick" for a look)
	$(BIN)/python -m benchmarks $(ARGS)

chaos: $(STAMP)  ## a hundred seeded runs of a cluster that is killed, stopped and confused (ARGS="--runs 200")
	$(BIN)/python -m benchmarks.chaos $(ARGS)

golden: docs  ## write every generated file again: Avro schemas, tables in the docs
	$(BIN)/python -m schemas.avro_schemas

docs: $(STAMP)  ## write the generated tables in docs/ again
	$(BIN)/python -m infra.docs

lock: $(STAMP)  ## resolve again within pyproject.toml's bounds and write requirements/ (ARGS=--upgrade)
	$(COMPILE) $(ARGS) pyproject.toml -o requirements/runtime.txt
	$(COMPILE) $(ARGS) --extra dev -c requirements/runtime.txt pyproject.toml -o $(LOCK)
	echo 'uv>=0.9' | $(COMPILE) $(ARGS) - -o $(UV_LOCK)

wheel: $(STAMP)  ## build dist/*.whl
	$(BIN)/hatchling build -t wheel

clean:  ## remove what make made (your data directories stay)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache
	find $(PACKAGES) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
