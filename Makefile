# Needs only Python >= 3.11 and make; everything else is installed into .venv from requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PREFECT_HOME ?= $(CURDIR)/.prefect
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export DO_NOT_TRACK ?= 1
# Where it is set, each process that a test starts compiles the packages anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-all soak chaos attack check docs bench lock format clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      sync 7,910 languages through Prefect, from an API on this machine"
	@echo "make test      run the tests (SQLite, PostgreSQL, Prefect, all real; about ten minutes)"
	@echo "make test-all  run the tests that take long by nature, which 'make test' leaves out"
	@echo "make soak      run the long forms: chaos, kills, limits, the simulated day with five seeds"
	@echo "make chaos     kill, stop, cut and fill up for half an hour, and print what held"
	@echo "make attack    attack every paginator in every way known, print what came of it"
	@echo "make check     ruff, mypy, import-linter"
	@echo "make docs      build the documentation into docs/_build/html"
	@echo "make bench     run the benchmarks, print ratios, append to benchmarks/results.jsonl"
	@echo "make lock      resolve the dependencies again into requirements.lock"

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"sync-clients needs Python 3.11 or newer; $(PYTHON) is {sys.version.split()[0]}. Try: make PYTHON=python3.12")'
	@echo "Installing into $(VENV), once; this takes a minute or two."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements.lock >$(VENV)/install.log 2>&1 || { cat $(VENV)/install.log; exit 1; }
	@$(PIP) install --no-deps --no-build-isolation --editable . >>$(VENV)/install.log 2>&1 || { cat $(VENV)/install.log; exit 1; }
	@# Prefect compiled starts in half the time.
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib clients jobs flows >/dev/null 2>&1 || true
	@$(BIN)/syncs --version >/dev/null
	@touch $@

demo: $(READY)
	@$(BIN)/python syncs/_demo.py

# Four processes on two cores, because many tests wait for a server or a process.
PYTEST := $(BIN)/python -m pytest -n 4 --dist loadgroup

test: $(READY)
	@$(PYTEST) -m "not slow"

test-all: $(READY)
	@$(PYTEST) -m slow --timeout 300

soak: $(READY)
	@$(PYTEST) --long --timeout 1800 tests/chaos tests/e2e/test_resume.py tests/flows/sync/test_pass_model.py tests/flows/test_simulated_day.py tests/jobs/claiming/test_limits_of_killed_workers.py \
		tests/jobs/claiming/test_rescue.py tests/jobs/finishing/test_fence_mutation.py tests/jobs/pauses/test_pauses_of_killed_workers.py tests/seed/test_datasync.py

chaos: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --long --timeout 900 tests/chaos tests/jobs/claiming/test_rescue.py tests/jobs/finishing/test_fence_mutation.py tests/e2e/test_resume.py \
		tests/flows/orchestration/test_with_server.py::test_a_killed_server_holds_no_run_up

attack: $(READY)
	@$(BIN)/python -m syncs_testing

check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

$(VENV)/.docs: $(READY) docs/requirements.lock
	@$(PIP) install --require-hashes -r docs/requirements.lock >$(VENV)/install-docs.log 2>&1 || { cat $(VENV)/install-docs.log; exit 1; }
	@touch $@

# A link that leads nowhere fails it, and it asks nothing of the network.
docs: $(VENV)/.docs
	@$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

bench: $(READY)
	@$(BIN)/python -m benchmarks

lock: $(READY)
	@.ci/lock

format: $(READY)
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .

clean:
	rm -rf $(VENV) .venv-peers data
