# Everything a developer runs. Paths are relative and quoted: the project may lie in a folder with
# spaces in its name. `make` alone lists the targets.

PYTHON := .venv/bin/python
STAMP := .venv/installed.stamp
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check bench stop lock

# What `manage.py check --deploy` judges: a complete production configuration, of made-up values.
# The key is long and varied because the check measures it; it protects nothing.
PRODUCTION := \
	DEBUG=0 \
	SECRET_KEY='only-for-make-check-Zq7vW2mXc9Lr4TbNf8Hs3KdYp6GjUe5A1' \
	ADDRESS_HASH_KEY='only-for-make-check-Bn5tRw8xQe2Mz7Lk4Vc9Jp3Hd6Gf1SyUa' \
	SITE_URL=https://papers.example.org \
	POSTAL_ADDRESS='Paperround, 1 Example Street, Exampletown' \
	CONTACT_ADDRESS=contact@papers.example.org \
	DEFAULT_FROM_EMAIL='Paperround <daily@papers.example.org>' \
	EMAIL_URL=smtp://localhost:25

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: $(STAMP) ## make .venv and install requirements-dev.lock (again when it changed)
	@:

# The stamp is written last, so an interrupted installation is done again.
$(STAMP): requirements-dev.lock
	@python=; \
	for candidate in python3.11 python3; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python="$$candidate"; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'Paperround needs Python 3.11 or newer: no python3.11 on the PATH, and python3 is older or missing.' >&2; \
		exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$$python cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; \
		exit 1; \
	fi; \
	if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then "$$python" -m venv --clear .venv; fi
	@# A new version may replace the programs of the private servers: not while they run.
	@if [ -f $(STAMP) ]; then $(PYTHON) config/private_servers.py stop; fi
	@echo 'Installing requirements-dev.lock into .venv ...'
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $(STAMP)

demo: setup ## the whole service on this machine; ONCE=1: one day and end; PAPERS=path: papers from a file
	@$(PYTHON) manage.py demo $(if $(filter-out 0,$(ONCE)),--once) $${PAPERS:+--papers "$$PAPERS"}

test: setup ## run the tests, in two processes; ARGS='-k name -x' goes to pytest
	@tests/browser/install_browser.sh
	$(PYTHON) -m pytest -n 2 --dist worksteal $(ARGS)

check: setup ## style, types, import rules, migrations, production settings
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	@# Its Django plugin reads the settings, and connects to nothing.
	DEBUG=1 DATABASE_URL=postgres://unused/unused REDIS_URL=redis://unused \
		$(PYTHON) -m mypy config newsletter papers tests manage.py
	.venv/bin/lint-imports
	$(PYTHON) manage.py makemigrations --check --dry-run
	@echo 'manage.py check --deploy, with production settings'
	@env $(PRODUCTION) $(PYTHON) manage.py check --deploy --fail-level WARNING

bench: setup ## measure speed and memory; ARGS go to the benchmarks
	$(PYTHON) -m tests.benchmarks $(ARGS)

stop: ## end the private PostgreSQL and Valkey, if they run
	@if [ -x $(PYTHON) ]; then $(PYTHON) config/private_servers.py stop; fi

# uv keeps the versions already locked where they still fit. No option names an index: hashes decide.
lock: ## renew the lock files after a change in pyproject.toml; UPGRADE=1: newest versions of all
	@command -v uv >/dev/null || { echo 'make lock needs uv (pip install uv)' >&2; exit 1; }
	UV_CUSTOM_COMPILE_COMMAND='make lock' uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements.lock
	UV_CUSTOM_COMPILE_COMMAND='make lock' uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes $(if $(UPGRADE),--upgrade) --extra dev -c requirements.lock pyproject.toml \
		-o requirements-dev.lock
