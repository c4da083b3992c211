# Start with `make demo` and `make test`. The other targets are for development.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
ONCE ?=
CARRIER ?=
ARGS ?=
AT_ONCE ?= auto

.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

demo: $(VENV)/runtime ## run sample calls in eight countries; ONCE=1 ends by itself, CARRIER=refuse must fail
	@$(PY) -m scheduler demo $(if $(ONCE),--once) $(if $(CARRIER),--carrier $(CARRIER))

up: $(VENV)/runtime ## run the whole system until Ctrl-C; ARGS="--port 8080" passes options
	@$(PY) -m scheduler up $(ARGS)

# Many containers forbid bytecode. Then each process that a test starts would compile the product again.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/dev ## run all tests, or a part: ARGS="tests/timing -x"; AT_ONCE=1 uses one process
	@$(PY) -m pytest -n $(AT_ONCE) --maxprocesses 4 $(ARGS)

check: $(VENV)/dev ## check format, lint, types, imports, migrations and generated documents, as CI does
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports
	@$(PY) -m scheduler db check
	@$(PY) -m scheduler openapi check docs/openapi.json
	@$(PY) -m scheduler openapi errors --check docs/reference/error-codes.md
	@$(PY) -m scheduler openapi carrier-codes --check docs/reference/carrier-codes.md

openapi: $(VENV)/dev ## write the generated documents, which make check compares with the code
	@$(PY) -m scheduler openapi write docs/openapi.json
	@$(PY) -m scheduler openapi errors docs/reference/error-codes.md
	@$(PY) -m scheduler openapi carrier-codes docs/reference/carrier-codes.md

client: $(VENV)/dev ## build the Python client from docs/openapi.json; the wheel is in client/python/dist
	@$(PY) client/python/generate.py docs/openapi.json client/python/src/duecall_client/generated
	@cd client/python && ../../$(PY) -m hatchling build --target wheel

guards: $(VENV)/dev ## remove each guard in a copy of the code; only its own tests may fail; ARGS=line: one guard
	@$(PY) -m tests.verification.crash.guards --at-once $(AT_ONCE) $(ARGS)

crash: $(VENV)/dev ## kill processes at each failpoint, with each behaviour of the carrier
	@DUECALL_CRASHES=all $(PY) -m pytest $(addprefix tests/verification/crash/test_, crash_matrix.py real_workers.py commit_in_doubt.py)

drills: $(VENV)/dev ## break one component after the other, and compare each recovery with docs/operations.md
	@$(PY) -m tests.verification.soak.drills

soak: $(VENV)/dev ## break everything while calls are placed, then judge; ARGS="--seed 7 --minutes 60"
	@$(PY) -m tests.verification.soak $(ARGS)

model: $(VENV)/dev ## check the dial protocol in every order of its steps; needs spin and gcc
	@$(PY) -m tests.verification.model

debian: ## install the Debian packages that some tests need, as root; CI has them
	apt-get -qq update
	apt-get -qq install --yes --no-install-recommends libphonenumber8-java default-jdk-headless libfaketime spin gcc libc6-dev prometheus chromium pgbouncer redis-server docker.io docker-cli docker-compose docker-buildx debootstrap iproute2 openssl > /dev/null
	command -v npm > /dev/null || apt-get install --yes -qq --no-install-recommends nodejs npm > /dev/null

containers: $(VENV)/dev ## build the image, and execute every documented command of a deployment; needs root and Docker
	@$(PY) -m tests.containers $(ARGS)

proof: $(VENV)/dev ## the long versions of comparisons, nights, fuzz, traces, races, bursts, batches, plans, forecasts
	@DUECALL_EXHAUSTIVE=all $(PY) -m pytest tests/timing tests/lifecycle tests/client/test_client_build.py tests/console/test_forecast_of_calendar.py tests/acceptance/test_hostile_neighbours.py tests/use_cases/webhooks/test_holds.py
	@DUECALL_EXHAUSTIVE=all $(PY) -m pytest $(addprefix tests/verification/nights/test_, a_carrier_that_is_down.py a_pause_costs_nothing.py fairness.py)
	@DUECALL_NIGHTS_PEOPLE=8500 $(PY) -m pytest tests/verification/nights/test_a_year_of_nights.py
	@DUECALL_FUZZ_CASES=50 $(PY) -m pytest tests/api_shim/test_fuzz.py
	@DUECALL_TRACES=all $(PY) -m pytest tests/verification/traces
	@DUECALL_RACES=1000 DUECALL_EXAMPLES=300 $(PY) -m pytest tests/verification/races tests/verification/machine
	@$(PY) -m tests.benchmarks.slow_carrier
	@DUECALL_BATCH_ITEMS=10000 $(PY) -m pytest tests/acceptance/test_killed_batches.py
	@DUECALL_PENDING=1000000 $(PY) -m pytest tests/persistence/test_hot_statements.py
	@DUECALL_BLOCKED=1000000 $(PY) -m pytest --timeout 1800 tests/use_cases/test_release_holds.py -k "read_each_second or skipped"
	@DUECALL_FORECASTS=all $(PY) -m pytest --timeout 1800 tests/use_cases/operations/test_new_calls.py

bench: $(VENV)/dev ## measure the whole path and decisions; ARGS="--parts burst" runs parts
	@$(PY) -m tests.benchmarks.whole_path $(ARGS)
	@$(if $(ARGS),:,$(PY) -m tests.benchmarks.decisions)

console-shots: $(VENV)/dev ## keep pictures of every page of the console in .duecall/console-shots; needs chromium
	@DUECALL_SHOTS=.duecall/console-shots $(PY) -m pytest tests/console/test_console_browser.py -k violations
	@echo "the pictures are in .duecall/console-shots"

format: $(VENV)/dev ## format the code and fix lint findings
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

lock: ## resolve the dependencies again; needs uv; lock files name no index host
	uv pip compile pyproject.toml --extra embedded --group build --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate -q -o requirements.lock --custom-compile-command "make lock"
	uv pip compile pyproject.toml --extra embedded --group build --group dev -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate -q -o requirements-dev.lock --custom-compile-command "make lock"

clean: ## delete the environment and all local data
	rm -rf $(VENV) .duecall client/python/dist client/python/src/duecall_client/generated

# A marker is written last, so that an interrupted installation is completed by the next run.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit("Duecall needs Python 3.11 or newer; %s is %s. Try: make demo PYTHON=python3.12" % (sys.executable, sys.version.split()[0])) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/runtime: requirements.lock pyproject.toml | $(PY)
	@echo "installing what Duecall needs (once; about a minute) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/dev: requirements-dev.lock $(VENV)/runtime
	@echo "installing what the tests need (once) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: help demo up test check openapi client guards crash drills soak model debian proof containers bench console-shots format lock clean
