# Everything below makes its own virtual environment from nothing but Python 3.11 or newer; uv is used when it is there.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint types unit clients bench clean

help: ## show what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## train on real data, package, register, serve, predict, watch (DEMO_ONCE=1: stop after predicting)
	@MODELYARD_HOME=$${MODELYARD_HOME:-.demo/home} $(BIN)/modelyard demo $(if $(DEMO_ONCE),--once)

test: lint types unit ## run every check

lint: $(VENV)/.test ## style and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.test ## mypy, strict
	$(BIN)/mypy

unit: $(VENV)/.test clients ## all tests
	$(BIN)/pytest -n 2 --dist worksteal

clients: $(VENV)/.test ## the real clients of other servers, for the tests
	@sh scripts/clients.sh $(BIN)/python

bench: $(VENV)/.test ## measure speed and memory beside other servers (PEERS=harness for more of them); never a gate
	$(BIN)/python benchmarks/side_by_side.py --page docs/performance.md
	$(BIN)/python benchmarks/overload.py
	$(BIN)/python benchmarks/batch.py

clean: ## remove the environment, the demo and caches
	rm -rf $(VENV) .clients .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@sh scripts/install.sh $(VENV) '.[train,records,console]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@sh scripts/install.sh $(VENV) '.[all]' --group dev
	@touch $@ $(VENV)/.demo

$(BIN)/python:
	@sh scripts/environment.sh $(VENV)
