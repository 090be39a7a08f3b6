# Needs make and Python 3.11 or newer; `make help` lists what there is.
# Another Python: make PYTHON=python3.12 test (with no .venv there yet, or after `make clean-venv`).
PYTHON ?= python3
VENV   ?= .venv
BENCH   = $(VENV)-bench
PY      = $(VENV)/bin/python
PIP     = $(PY) -m pip --disable-pip-version-check
INSTALL = $(PIP) install --quiet --require-hashes --only-binary :all:
# The build backend is in the hashed files too: nothing is fetched that they do not name.
SELF    = $(PIP) install --quiet --no-deps --no-build-isolation --editable .
STAMPS  = $(VENV)/.graphorch
CODE    = graphorch_ray $(wildcard tests examples benchmarks)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # two installs into one environment would trip over each other
.PHONY: help demo test pytest chaos lint format bench lock test-minimum clean clean-venv

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(STAMPS)/base ## survey the Python standard library on this machine
	@$(PY) examples/stdlib_survey.py

test: lint pytest ## lint, types, and every test but the chaos suite

pytest: $(STAMPS)/dev ## the tests alone; ARGS="-k name" passes options on
	$(PY) -m pytest $(ARGS)

# With no chaos test written there is nothing to run; with one, pytest's "none collected" is a failure.
chaos: $(STAMPS)/dev ## the tests that kill processes and break things
	@if grep -rqsE --include='*.py' 'mark\.chaos' tests; \
	then echo '$(PY) -m pytest -m chaos $(ARGS)'; $(PY) -m pytest -m chaos $(ARGS); \
	else echo 'chaos: no test carries the marker yet, nothing run'; fi

lint: $(STAMPS)/dev ## ruff (rules and format) and mypy --strict
	$(PY) -m ruff check $(CODE)
	$(PY) -m ruff format --check $(CODE)
	$(PY) -m mypy --strict

format: $(STAMPS)/dev ## let ruff lay out the code and fix what it safely can
	$(PY) -m ruff check --fix-only --quiet $(CODE)
	$(PY) -m ruff format $(CODE)

bench: $(BENCH)/.installed ## compare with others and write docs/benchmarks.md; or as ARGS says
	$(BENCH)/bin/python -m benchmarks \
	  $(or $(ARGS),--json docs/benchmarks/results.json --page docs/benchmarks.md)

# One environment; the files agree with each other, so that they can be installed in any order.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "graphorch-ray needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not there)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "No virtual environment could be made (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }

$(STAMPS)/base: requirements/base.txt pyproject.toml | $(PY)
	@echo "installing requirements/base.txt into $(VENV) (the first time may take some minutes)"
	@$(INSTALL) -r requirements/base.txt
	@$(SELF)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: requirements/dev.txt pyproject.toml | $(PY)
	@echo "installing requirements/dev.txt into $(VENV) (the first time may take some minutes)"
	@$(INSTALL) -r requirements/dev.txt
	@$(SELF)
	@mkdir -p $(STAMPS) && touch $(STAMPS)/base $@

# The peers bring many packages, so they get an environment of their own.
$(BENCH)/bin/python: | $(PY)
	@echo "making $(BENCH)"
	@$(PY) -m venv $(BENCH)

$(BENCH)/.installed: requirements/bench.txt pyproject.toml | $(BENCH)/bin/python
	@echo "installing requirements/bench.txt into $(BENCH) (the first time may take some minutes)"
	@$(INSTALL:$(VENV)/%=$(BENCH)/%) -r requirements/bench.txt
	@$(SELF:$(VENV)/%=$(BENCH)/%)
	@touch $@

# Pins stay as they are unless pyproject.toml rules them out; LOCK=--upgrade takes the newest.
# The clause that [tool.uv] environments puts on every line is cut: where it is false, pip would
# install nothing without a word.
UV   = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
       --no-header $(LOCK) pyproject.toml requirements/build.in
TRIM = sed -E "s/python_full_version < '3\.14' and //; \
       s/ ?(and|;) \(?sys_platform == '(darwin|linux)' or sys_platform == '(darwin|linux)'\)?//"
lock: ## make requirements/*.txt anew from pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo 'make lock needs uv: pip install uv' >&2; exit 1; }
	@set -e; cd '$(CURDIR)'; \
	lock() { name=$$1; shift; $(UV) "$$@" -o requirements/$$name.txt >/dev/null; \
	  { echo "# Made by 'make lock' from pyproject.toml: every version and hash, Python 3.11 to 3.13."; \
	    $(TRIM) requirements/$$name.txt; } > requirements/.$$name.new; \
	  mv requirements/.$$name.new requirements/$$name.txt; echo "requirements/$$name.txt"; }; \
	lock dev --extra test --extra s3 --extra otlp; \
	lock base --extra examples --constraint requirements/dev.txt; \
	lock bench --extra test --extra s3 --extra otlp --extra bench --constraint requirements/dev.txt

test-minimum: | $(PY) ## the tests again with the oldest versions that pyproject.toml allows
	@$(PY) -m venv $(VENV)-minimum
	@echo "installing constraints/minimum.txt into $(VENV)-minimum"
	@$(VENV)-minimum/bin/python -m pip --disable-pip-version-check install --quiet \
	  --constraint constraints/minimum.txt --editable '.[test]'
	$(VENV)-minimum/bin/python -m pytest $(ARGS)

clean: ## caches and build output; keeps the environment
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -path './.venv*' -prune -o -path ./.git -prune -o -name __pycache__ -type d -print \
	  | xargs rm -rf

clean-venv: ## the environments that make made
	rm -rf $(VENV) $(VENV)-minimum $(BENCH)
