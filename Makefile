# The two commands a newcomer types are `make demo` and `make test`. Everything else is for the people who build.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
ONCE ?=
CARRIER ?=
ARGS ?=
AT_ONCE ?= auto

.DEFAULT_GOAL := help

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/runtime ## everything on this machine: sample calls in eight countries, shown live; ONCE=1 ends by itself, CARRIER=refuse must fail
	@$(PY) -m scheduler demo $(if $(ONCE),--once) $(if $(CARRIER),--carrier $(CARRIER))

up: $(VENV)/runtime ## the whole system until Ctrl-C
	@$(PY) -m scheduler up $(ARGS)

test: $(VENV)/dev ## all tests, on as many processors as there are up to four; needs nothing beforehand
	@$(PY) -m pytest -n $(AT_ONCE) --maxprocesses 4 $(ARGS)

check: $(VENV)/dev ## format, lint, types, import contracts, drift of migrations and of the document: word for word what CI runs
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports
	@$(PY) -m scheduler db check
	@$(PY) -m scheduler openapi check docs/openapi.json
	@$(PY) -m scheduler openapi errors --check docs/reference/error-codes.md

openapi: $(VENV)/dev ## write docs/openapi.json, the document of the API as partners see it; make check compares
	@$(PY) -m scheduler openapi write docs/openapi.json
	@$(PY) -m scheduler openapi errors docs/reference/error-codes.md

guards: $(VENV)/dev ## take out each guard of the dial protocol in a copy: its own tests must turn red, and no other guard's; ARGS=line: that one
	@$(PY) -m tests.verification.crash.guards --at-once $(AT_ONCE) $(ARGS)

crash: $(VENV)/dev ## kill -9 at each of the failpoints, however the carrier behaves, and through real workers; a line a cell
	@DUECALL_CRASHES=all $(PY) -m pytest tests/verification/crash/test_crash_matrix.py tests/verification/crash/test_real_workers.py

soak: $(VENV)/dev ## break everything, one by one and then all at once, while calls are made, and judge; ARGS="--seed 7 --minutes 60"
	@$(PY) -m tests.verification.soak.drills
	@$(PY) -m tests.verification.soak $(ARGS)

model: $(VENV)/dev ## the dial protocol, checked by Spin in every order of its steps; needs spin and gcc (Debian has both)
	@$(PY) -m tests.verification.model

debian: ## what tests take from Debian, as root: Google's own libphonenumber, a clock that lies, Spin; CI has them, a laptop need not
	apt-get -qq update
	apt-get -qq install --yes --no-install-recommends libphonenumber8-java default-jdk-headless libfaketime spin gcc libc6-dev > /dev/null

proof: $(VENV)/dev ## ten thousand dials across a year of nights, six thousand races and requests, three thousand traces of callbacks, fifteen thousand steps; make test does a part
	@DUECALL_NIGHTS_PEOPLE=8500 $(PY) -m pytest tests/verification/nights/test_a_year_of_nights.py
	@DUECALL_FUZZ_CASES=50 $(PY) -m pytest tests/api_shim/test_fuzz.py
	@DUECALL_TRACES=all $(PY) -m pytest tests/verification/traces
	@DUECALL_RACES=1000 DUECALL_EXAMPLES=300 $(PY) -m pytest tests/verification/races tests/verification/machine

bench: $(VENV)/dev ## what a decision costs, and what is asked of a million pending attempts (some minutes)
	@$(PY) -m tests.benchmarks.decisions
	@$(PY) -m tests.benchmarks.plans

format: $(VENV)/dev ## put the code in the house's form
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

lock: ## resolve the dependencies anew (needs uv); the lock files name no index host
	uv pip compile pyproject.toml --extra embedded --group build --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate -q -o requirements.lock --custom-compile-command "make lock"
	uv pip compile pyproject.toml --extra embedded --group build --group dev -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate -q -o requirements-dev.lock --custom-compile-command "make lock"

clean: ## forget the environment and all local data
	rm -rf $(VENV) .duecall

# An environment is made beside its final marker: interrupted half way, it is finished the next time.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit("Duecall needs Python 3.11 or newer; %s is %s. Try: make demo PYTHON=python3.12" % (sys.executable, sys.version.split()[0])) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/runtime: requirements.lock pyproject.toml | $(PY)
	@echo "installing what Duecall needs (once; about a minute) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/dev: requirements-dev.lock $(VENV)/runtime
	@echo "installing what the tests need (once) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: help demo up test check openapi guards crash soak model debian proof bench format lock clean
