# Two commands matter: `make demo` shows what this is, `make test` proves it.
SHELL := /bin/bash
UV := scripts/uv
RUN := $(UV) run --no-sync
SUITE := single
# Each process has servers of its own; tests mostly wait.
PROCESSES := 2

.DEFAULT_GOAL := help
.PHONY: help demo test faults check matrix bench generate clean env

help:  ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env:
	@scripts/setup

demo: env  ## Show the operator building real images on real servers, in under a minute once warm
	@$(RUN) python -m demo

# Building the servers takes minutes, once; a test's own time must not have to hold that.
test: env  ## Run every test, against real servers
	@$(RUN) python -m devstack build
	@$(RUN) pytest --numprocesses=$(PROCESSES) --dist=loadfile $(ARGS)

faults: env  ## Kill the operator at every write and call, and more; CASE=success/crash/write-2 plays one case
	@$(RUN) python -m devstack build
	@$(RUN) python -m tests.faults $(CASE)

check: env  ## Format, lint, types, layers, generated files: at most a minute
	@scripts/check

matrix: env  ## Say which promised rows have a passing test
	@$(RUN) python -m tests.matrix

bench: env  ## Measure against the direct tool: SUITE=single (in pairs), load (a thousand at once), gateway or hour (does it grow)
	@$(RUN) python -m bench $(SUITE) $(ARGS)

generate: env  ## Write again what is generated: CRDs and protobuf modules
	@scripts/generate

clean:  ## Stop the servers; remove the virtual environment and caches of the checkout
	@if [ -d .venv ]; then $(RUN) python -m devstack down || true; fi
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
