# `make` builds everything at laptop scale, `make test` runs every test; both set up ./.venv first.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
SCALE ?= laptop
STATE = $(or $(shell sed -nE "s/^state_dir: *(\"([^\"]+)\"|'([^']+)'|([^ #]+)).*/\2\3\4/p" config.yaml),state)
export UV_SYSTEM_CERTS = 1
# Without its bytecode cache Python compiles torch anew in every process, some seconds each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: build setup test test-all lint format lock snapshot findings bench clean

build: setup ## the whole workflow at laptop scale, then the report
	@$(BIN)/ghostgrad unlock --quiet
	@$(BIN)/snakemake --cores $(CORES) --config scale=$(SCALE) --logger ghostgrad \
	  --report results/$(SCALE)/report.html --report-after-run
	@printf '%s\n' "tables:  results/$(SCALE)/tables/" "figures: results/$(SCALE)/figures/" \
	  "list:    results/$(SCALE)/artifacts.csv" "report:  results/$(SCALE)/report.html"

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml executor/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ghostgrad needs Python 3.11 or newer; say which with make PYTHON=...")'
	@echo "Setting up $(VENV) (about 2.6 GB to download, 6 GB on disk, about a minute)"
	@rm -rf $(VENV)
	@if command -v uv >/dev/null; then uv venv --quiet --python $(PYTHON) $(VENV); \
	 else $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; fi
	@uv=$$(command -v uv || echo $(BIN)/uv); \
	 "$$uv" pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock; \
	 "$$uv" pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . -e executor
	@touch $@

test: setup ## every test of the continuous integration
	@$(BIN)/python -m pytest -n auto --dist worksteal -m "not long"

test-all: setup ## the long suites too
	@$(BIN)/python -m pytest -n auto --dist worksteal

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/snakefmt --check Snakefile workflow/rules && $(BIN)/snakemake --lint

format: setup
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/snakefmt Snakefile workflow/rules

lock: ## pins every dependency, with hashes and without index addresses
	@uv=$$(command -v uv || echo $(BIN)/uv); \
	 "$$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
	   --extra dev pyproject.toml --output-file requirements.lock

snapshot: setup ## copies what was built at SCALE into docs/snapshots/
	@$(BIN)/ghostgrad snapshot --scale $(SCALE) --target docs/snapshots/$(SCALE)

findings: setup ## docs/findings.md from the ledger of claims at SCALE
	@$(BIN)/ghostgrad findings --scale $(SCALE) --target docs/findings.md

bench: setup ## ratios measured within one run each; see docs/performance.md
	@for script in benchmarks/*.py; do $(BIN)/python "$$script"; done

clean: ## the environment and what smoke and laptop made; never the results of other scales
	@rm -rf $(VENV) $(foreach scale,smoke laptop,results/$(scale) "$(STATE)/$(scale)") results/data/digits.* results/data/photographs.* results/data/digit_scenes*
