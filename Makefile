# make run    train, tune, report and package the first experiment      make test   pass all tests
# Both work in a fresh clone with Python 3.11 and pip: the first call makes .venv and installs.

PYTHON ?= $(firstword $(foreach name,python3.11 python3 python,$(shell command -v $(name) 2>/dev/null)))
CONFIG ?= frozenlake
EXTRAS ?= dev

VENV := .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.installed-base
DEV := $(VENV)/.installed-$(EXTRAS)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test slow lint format types imports check bench constraints clean

help:  ## say what each target does
	@sed -n 's/^\([a-z]*\):.*##/make \1\t/p' $(MAKEFILE_LIST)

run: $(BASE)  ## run the experiment CONFIG (default frozenlake)
	@$(BIN)/policylab run $(CONFIG)

test: $(DEV)  ## pass all tests but the slow proofs
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

slow: $(DEV)  ## pass all tests, the slow proofs too
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --slow $(ARGS)

lint: $(DEV)  ## check style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(DEV)  ## repair style and format where a tool can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(DEV)  ## check the types of every module, strictly
	$(BIN)/mypy

imports: $(DEV)  ## check who imports whom
	$(BIN)/lint-imports --no-cache

check: lint types imports test  ## everything continuous integration checks

bench: $(DEV)  ## measure speed side by side with peers, some minutes
	@set -e; for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script; done

constraints:  ## resolve every extra afresh and rewrite constraints.txt
	rm -rf build/resolve
	$(PYTHON) -m venv build/resolve
	build/resolve/bin/python -m pip install --quiet '.[all,worlds,atari,dev]'
	{ sed -n '/^#/p' constraints.txt; \
	  build/resolve/bin/python -m pip freeze --all --exclude pip --exclude policylab \
	  | grep -vE '^(nvidia-|triton)' | sed 's/+cpu$$//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/resolve

clean:  ## remove the environment and every cache; runs stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed once, then again only when what is to be installed has changed.
$(BASE): pyproject.toml constraints.txt
	@$(if $(PYTHON),,$(error no Python found: install Python 3.11, or name one with `make PYTHON=...`))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "$(PYTHON) is not Python 3.11 or newer; name one with make PYTHON=..." >&2; exit 2; }
	@echo "installing policylab into $(VENV) (once, a minute or two)"
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "$(PYTHON) cannot make a virtual environment; install its venv module (python3-venv on Debian)" >&2; exit 2; }
	@$(INSTALL) --editable .
	@touch $@

$(DEV): $(BASE)
	@echo "installing the extras [$(EXTRAS)]"
	@$(INSTALL) --editable '.[$(EXTRAS)]'
	@touch $@
