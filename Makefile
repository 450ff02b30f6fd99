# `make` builds everything at laptop scale, `make check` and `make test` check the code; `make help`
# lists the rest. Every target but help and clean sets up ./.venv first.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
SCALE ?= laptop
STATE = $(or $(shell \
  sed -nE "s/^state_dir: *(\"([^\"]+)\"|'([^']+)'|([^ #]+)).*/\2\3\4/p" config.yaml),state)
export UV_SYSTEM_CERTS = 1
# Without its bytecode cache Python would compile torch again in every process, some seconds each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: build help setup check test test-all lint types format lock snapshot findings bench clean

build: setup ## builds all tables, figures and claims at SCALE, then the report (the default target)
	@$(BIN)/ghostgrad unlock --quiet
	@$(BIN)/snakemake --cores $(CORES) --config scale=$(SCALE) --logger ghostgrad \
	  --report results/$(SCALE)/report.html --report-after-run
	@printf '%s\n' "tables:  results/$(SCALE)/tables/" "figures: results/$(SCALE)/figures/" \
	  "list:    results/$(SCALE)/artifacts.csv" "report:  results/$(SCALE)/report.html"

help: ## lists the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' Makefile | \
	  while IFS=$$'\t' read -r target text; do printf 'make %-10s %s\n' "$$target" "$$text"; done
	@printf '%s\n' '' \
	  'SCALE=smoke, laptop, substitute or paper says what is built or copied (default laptop),' \
	  'CORES=<number> how many cores a build may use (default all of them),' \
	  'PYTHON=<command> from which Python .venv is made (default python3).'

setup: $(VENV)/.installed ## makes the environment .venv, or renews it if its requirements changed

$(VENV)/.installed: requirements.lock pyproject.toml executor/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ghostgrad needs Python 3.11 or \
	newer; name one with make PYTHON=...")'
	@echo "Setting up $(VENV) (about 2.6 GB to download, 6 GB on disk, about a minute)"
	@rm -rf $(VENV)
	@if command -v uv >/dev/null; then uv venv --quiet --python $(PYTHON) $(VENV); \
	 else $(PYTHON) -m venv $(VENV) && \
	   $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; fi
	@uv=$$(command -v uv || echo $(BIN)/uv); \
	 "$$uv" pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock; \
	 "$$uv" pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . -e executor
	@touch $@

check: lint ## before every commit: lint and the quick unit tests (3 minutes on 2 cores)
	@$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not slow and not long" tests/unit

test: setup ## every test of the continuous integration (half an hour on 2 cores)
	@$(BIN)/python -m pytest -n auto --dist worksteal -m "not long"

test-all: setup ## every test, those of several minutes too
	@$(BIN)/python -m pytest -n auto --dist worksteal

lint: setup ## style, format, workflow and types of the code, without changing it
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/snakefmt --check Snakefile workflow/rules
	@$(BIN)/snakemake --lint
	@$(BIN)/mypy

types: setup ## mypy --strict over the library and both Snakemake plugins
	@$(BIN)/mypy

format: setup ## formats the code and mends what ruff can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/snakefmt Snakefile workflow/rules

lock: setup ## pins every dependency in requirements.lock, with hashes and without addresses of an index
	@uv=$$(command -v uv || echo $(BIN)/uv); \
	 "$$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	   --no-annotate --upgrade --extra dev pyproject.toml --output-file requirements.lock

snapshot: setup ## copies the tables and figures built at SCALE into docs/snapshots/
	@$(BIN)/ghostgrad snapshot --scale $(SCALE) --target docs/snapshots/$(SCALE)

# The text of the findings is written for the paper's scale, and shows figures of its snapshot.
findings: setup ## writes docs/findings.md from the claims decided at the paper's scale
	@$(BIN)/ghostgrad findings --scale paper --target docs/findings.md

bench: setup ## measures the ratios of docs/performance.md, each within one run
	@for script in benchmarks/*.py; do $(BIN)/python "$$script"; done

clean: ## deletes .venv, the shipped data sets and the results of smoke and laptop, never other results
	@rm -rf $(VENV) $(foreach scale,smoke laptop,results/$(scale) "$(STATE)/$(scale)")
	@rm -rf results/data/digits.* results/data/photographs.* results/data/digit_scenes*
