# selftrain: `make` alone lists the targets.
#   make run                                     the quickstart, from nothing
#   make run RECIPE=smoke ARGS="--out runs/try"  another recipe, further arguments
#   make test ARGS="-n 0 -k calculator"          some tests, in one process
#   make run PYTHON=python3.12                   another Python for .venv
#   make run PIP_ARGS="--extra-index-url URL"    another source of packages, e.g. a CPU or CUDA build of torch
#   make lock ARGS="--upgrade-package ruff"      one pin of constraints.txt anew; without ARGS only what has none yet

PYTHON ?= python3
VENV ?= .venv
RECIPE ?= quickstart
ARGS ?=
SECONDS ?= 600
PIP_ARGS ?=
LOCKED := dev docs fuzz gym hub lock lora math sentencepiece
COMMA := ,

BIN := $(VENV)/bin
BOUNDS := $(VENV)-bounds
INPUTS := pyproject.toml constraints.txt
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run test torture fuzz bounds audit lock locked check docs format clean
.DELETE_ON_ERROR:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.installed-run ## Install what is missing, get the model, run a recipe (RECIPE=quickstart ARGS=)
	$(BIN)/selftrain run $(RECIPE) $(ARGS)

test: $(VENV)/.installed-dev ## Install what is missing, run the tests (ARGS= goes to pytest)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

torture: $(VENV)/.installed-dev ## Kill runs at every fault point and at 500 random instants; goes on where it was stopped
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m tests.e2e.torture $(ARGS)

fuzz: $(VENV)/.installed-fuzz ## Fuzz all that reads text, SECONDS=600 a target; 95 % of the branches must be taken
	$(BIN)/python -m fuzz all $(SECONDS) --corpus .fuzz $(ARGS)

bounds: $(VENV)/.installed-lock ## Test with the lowest versions that pyproject.toml allows; torch stays as pinned
	$(PYTHON) -m venv --clear $(BOUNDS)
	grep '^torch==' constraints.txt > $(BOUNDS)/kept.txt
	echo 'datasets==4.7.*' >> $(BOUNDS)/kept.txt  # its lowest; else uv raises it, to keep the newest fsspec
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --python $(BOUNDS)/bin/python --no-header --no-annotate \
	  --extra dev --extra gym --extra hub --extra sentencepiece --constraint $(BOUNDS)/kept.txt \
	  --output-file $(BOUNDS)/lowest.txt pyproject.toml
	$(BOUNDS)/bin/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c $(BOUNDS)/lowest.txt \
	  -e '.[dev,gym,hub,sentencepiece]'
	OMP_NUM_THREADS=1 $(BOUNDS)/bin/python -m pytest -n 2 --dist loadfile \
	  --ignore tests/e2e --ignore tests/docs --ignore tests/benchmarks $(ARGS)
	$(BOUNDS)/bin/selftrain run smoke --out $(BOUNDS)/smoke

audit: $(VENV)/.installed-lock ## Known vulnerabilities of what constraints.txt pins, after a control that must be reported
	$(BIN)/python -m tools.audit constraints.txt

lock: $(VENV)/.installed-lock ## Pin in constraints.txt what has no pin yet; pins that are there stay (ARGS=--upgrade: all anew)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11.5 --no-annotate --custom-compile-command 'make lock' \
	  $(LOCKED:%=--extra %) $(ARGS) --output-file constraints.txt pyproject.toml

locked: $(VENV)/.installed-dev ## Check that pip can install every extra that is pinned, together (nothing is installed)
	$(INSTALL) --dry-run -e '.[$(subst $() ,$(COMMA),$(LOCKED))]'

check: $(VENV)/.installed-dev ## Format, lint, strict types, layer test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

docs: $(VENV)/.installed-docs ## Build the documentation into site/, strictly: links, anchors, the reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "open site/index.html"

format: $(VENV)/.installed-dev ## Format the code and sort its imports
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

clean: ## Remove .venv, .venv-bounds, site/ and the tools' caches; runs/ and .fuzz/ stay
	rm -rf $(VENV) $(BOUNDS) site .mypy_cache .pytest_cache .ruff_cache .hypothesis

# One stamp a set of packages: installed again only when pyproject.toml or constraints.txt changes.
$(VENV)/.installed-run: $(VENV)/.made $(INPUTS)
	@echo "Installing selftrain with its problems (gym) into $(VENV); the first time takes some minutes."
	$(INSTALL) -e '.[gym]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.made $(INPUTS)
	@echo "Installing selftrain with problems and tools (gym, dev) into $(VENV); the first time takes some minutes."
	$(INSTALL) -e '.[dev,gym]'
	@touch $@ $(VENV)/.installed-run

$(VENV)/.installed-docs: $(VENV)/.made $(INPUTS)
	@echo "Installing selftrain with mkdocs-material (docs) into $(VENV)."
	$(INSTALL) -e '.[docs]'
	@touch $@

$(VENV)/.installed-fuzz: $(VENV)/.made $(INPUTS)
	@echo "Installing selftrain with its fuzzer (fuzz) into $(VENV)."
	$(INSTALL) -e '.[fuzz]'
	@touch $@

$(VENV)/.installed-lock: $(VENV)/.made $(INPUTS)
	@echo "Installing uv and pip-audit (lock) into $(VENV)."
	$(INSTALL) -e '.[lock]'
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: Python 3.11 or newer is needed, got: $$($(PYTHON) --version 2>&1 || true)"; \
	  echo "  Install one and name it: make run PYTHON=python3.12"; exit 2; } >&2
	@command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || { \
	  echo "error: a C compiler is needed (reasoning-gym, the quickstart's problems, builds pycosat), none is on the path"; \
	  echo "  Debian, Ubuntu: apt install build-essential python3-dev    Fedora: dnf install gcc python3-devel    macOS: xcode-select --install"; \
	  exit 2; } >&2
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { \
	  echo "error: Python's headers are needed (reasoning-gym, the quickstart's problems, builds pycosat), Python.h was not found"; \
	  echo "  Debian, Ubuntu: apt install python3-dev    Fedora: dnf install python3-devel"; exit 2; } >&2
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "error: $(PYTHON) could not make a virtual environment"; \
	  echo "  Debian, Ubuntu: apt install python3-venv"; exit 2; } >&2
	@touch $@
