# GoWebbo's commands. `make up` and `make test` need Python 3.11+, make and a package index, nothing else.
PYTHON ?= python3
VENV := .venv
PACKAGES := shared gateway auth-service tenant-service patient-service notifier stack
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help up test lint bench bench-growth bench-lifecycle bench-migrate bench-neighbour bench-signup lock clean-data

help: ## what can be done here
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(INSTALLED): requirements/dev.txt $(PACKAGES:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "GoWebbo needs Python 3.11 or newer; name one with: make PYTHON=python3.12 …"; exit 1; }
	@test -x $(VENV)/bin/python || { echo "Making $(VENV) …"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing pinned packages (about a minute, once) …"
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(PACKAGES:%=-e ./%)
	@touch $@

up: $(INSTALLED) ## run everything on this machine: PostgreSQL, Redis protocol server, mail catcher, all services
	@exec $(VENV)/bin/gowebbo up

test: $(INSTALLED) ## every test: unit, service and end to end, against real servers that it starts itself
	@failed=0; \
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile $(PACKAGES) bench || failed=1; \
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile tests-e2e || failed=1; \
	exit $$failed

lint: $(INSTALLED) ## ruff, mypy --strict, import contracts
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

bench: $(INSTALLED) ## measure an embedded stack of its own (about 15 min; needs wrk); writes bench/results.md
	@$(VENV)/bin/python bench/run.py

bench-growth: $(INSTALLED) ## measure how it grows with practices and patients; writes bench/growth.md and growth.svg
	@$(VENV)/bin/python bench/growth.py

bench-migrate: $(INSTALLED) ## measure a migration over 1,000 shards (about 8 min); writes bench/migrate.md
	@$(VENV)/bin/python bench/migrate.py

bench-neighbour: $(INSTALLED) ## measure what a practice notices of another one's flood; writes bench/neighbour.md
	@$(VENV)/bin/python bench/neighbour.py

bench-lifecycle: $(INSTALLED) ## measure moves, backups, restores and questions to the fleet; writes bench/lifecycle.md
	@$(VENV)/bin/python bench/lifecycle.py

bench-signup: $(INSTALLED) ## measure sign-ups with and without shards made ahead (about 15 min, 25 GB); writes bench/signup.md
	@$(VENV)/bin/python bench/signup.py

lock: $(INSTALLED) ## pin requirements anew from the pyproject.toml files
	@$(VENV)/bin/pip install --quiet uv
	@PATH=$(CURDIR)/$(VENV)/bin:$$PATH bash requirements/lock.sh

clean-data: ## remove the embedded stack's data (GOWEBBO_HOME, default .gowebbo/)
	@if test -x $(VENV)/bin/gowebbo; then $(VENV)/bin/gowebbo clean-data --yes; else rm -rf .gowebbo; fi
