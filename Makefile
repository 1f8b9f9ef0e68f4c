# Everything needs only `make` and a Python; `make PYTHON=python3.12 install` picks another one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check
PREFIX ?= /opt/tickerd
STAMP := $(VENV)/.installed
PACKAGES := daemon connectors protocol

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install install-service demo test others check audit bench soak soak-cluster rehearse dist npm format lock pages clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make the virtual environment; leaves .venv/bin/tickerd

# The build backend is pinned in the lock too, hence no build isolation.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tickerd needs Python 3.11 or newer; this is " + sys.version)'
	@echo '1/3 a virtual environment in $(VENV)'
	@$(PYTHON) -m venv --clear $(VENV)
	@echo "2/3 $$(grep -c == requirements.lock) packages, as requirements.lock pins them"
	@$(BIN)/python $(PIP) install --require-hashes -r requirements.lock
	@echo '3/3 tickerd itself'
	@$(BIN)/python $(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Without test tools, and apart from this folder. The units of systemd look for the command in /opt/tickerd.
install-service: ## install for service in PREFIX (/opt/tickerd)
	@PYTHON='$(PYTHON)' sh systemd/install $(PREFIX)

demo: install ## start the daemon against simulated venues
	@$(BIN)/tickerd demo

# protocol/ has to be covered by its own tests alone. All others run in streams at the same time: tests/run.py.
test: install ## run the tests
	$(BIN)/coverage run --branch --source=protocol -m pytest --quiet tests/protocol
	$(BIN)/coverage report --fail-under=100
	$(BIN)/python -m tests.run

# An interpreter that is not here is passed over; `make -j2 others` has both at once. pyenv's names need to be told which
# version is meant.
OTHERS := $(addprefix python,3.12 3.13)
others: $(OTHERS) ## run the quick tests on Python 3.12 and 3.13, where they are there
.PHONY: $(OTHERS)
$(OTHERS): python%: install
	@if PYENV_VERSION=$* python$* -c '' 2>/dev/null; then \
		$(MAKE) --no-print-directory PYTHON='env PYENV_VERSION=$* python$*' VENV=$(VENV)/$* install && \
		$(VENV)/$*/bin/python -m tests.run --quick; \
	else echo "no Python $* here: its tests are not run"; fi

# Of ruff's rules, S are those of bandit: what is risky in the code. The audit is about what others wrote.
check: install ## check format, lint, types and dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(PACKAGES) tests .packaging/wheel.py .packaging/npm.py
	$(BIN)/python -m tests.audit

# The audit of `check` knows tests/advisories.toml and asks nobody; this one asks, and fails where it gets no answer.
# A virtual environment of its own, so that the tool is not among what it looks at.
audit: ## ask the public databases about the lock (online)
	$(PYTHON) -m venv --clear $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet 'pip-audit>=2.9'
	$(VENV)/audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock
	rm -rf $(VENV)/audit

# `make bench QUICK=1` takes about a minute; `make bench MARKDOWN=FILE` writes the report there too.
bench: install ## measure the daemon beside a bare write loop (QUICK=1)
	$(BIN)/python -m tests.bench $(if $(QUICK),--quick) $(if $(MARKDOWN),--markdown $(MARKDOWN))

# `make soak MINUTES=30 SEED=7 WORKERS=2`: another length, other clients and other faults; clients are served by two processes.
soak: install ## stay sane among 200 bad clients and failing venues (MINUTES=3)
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),3) --seed $(or $(SEED),1) --workers $(or $(WORKERS),1)

# It takes a redis-server, and ends with exit code 1 where a client of any node was given something wrong. With
# `ENGINE_PROGRAM=valkey-server` before it, as before pytest, Valkey is the engine.
soak-cluster: install ## the same of a cluster: engine, nodes and network fail (MINUTES=3)
	$(BIN)/python -m tests.cluster_soak --minutes $(or $(MINUTES),3) --seed $(or $(SEED),1)

# Every pause that a simulated venue asks for is waited for; the longest is two minutes.
rehearse: install ## play every fault of the simulated venues to a daemon
	@$(BIN)/tickerd rehearse --patience 130

# Stamped with the time of the last commit, so that the same commit makes the same bytes.
dist: export SOURCE_DATE_EPOCH = $(or $(shell git log -1 --format=%ct 2>/dev/null),1580601600)
dist: install ## build the wheel and the source archive in dist/
	$(BIN)/python -m hatchling build --clean

# `npm pack dist/npm` makes an archive of it, `npm publish dist/npm` puts it on npm.
npm: install ## assemble the JavaScript client's package in dist/npm/
	$(BIN)/python .packaging/npm.py dist/npm

format: install ## format the code and mend what the linter can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# A virtual environment of its own, so that the tool is not among what it pins.
lock: ## pin the newest versions anew in requirements.lock
	$(PYTHON) -m venv --clear $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet 'pip-tools>=7.5'
	CUSTOM_COMPILE_COMMAND='make lock' $(VENV)/lock/bin/pip-compile --quiet --upgrade --no-config \
		--generate-hashes --allow-unsafe --strip-extras --extra dev --build-deps-for editable \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options --no-annotate \
		--output-file requirements.lock pyproject.toml
	rm -rf $(VENV)/lock
	$(MAKE) --no-print-directory install
	$(BIN)/python -m tests.service_lock

pages: install ## make the man page and the configuration reference anew
	$(BIN)/python -m daemon.commands.manual >systemd/tickerd.1
	$(BIN)/python -m daemon.commands.reference >systemd/CONFIGURATION.md

clean: ## remove what the targets made
	rm -rf $(VENV) dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
