# The commands of a newcomer and of CI; each does its own set-up.
# Python 3.11, 3.12 or 3.13; empty: the first of them on the PATH.
export PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export AWS_EC2_METADATA_DISABLED := true
export HF_HUB_OFFLINE := 1
export NO_ALBUMENTATIONS_UPDATE := 1

.DEFAULT_GOAL := help
.PHONY: help install run test check lint types imports bench chaos matrix audit clean

help:  ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED)  ## Make the virtual environment with the pinned versions (idempotent).

# The definition is kept (pipeline_definition/definition/pipeline.py), so that the first command answers at once.
$(INSTALLED): requirements.lock requirements.cuda.lock install.sh setup.cfg pyproject.toml
	./install.sh
	$(BIN)/sd-pipeline definition --params params/local.yaml >/dev/null
	touch $@

run: install  ## Run the whole pipeline on this machine; DATA=FOLDER: on your own pictures.
	$(BIN)/sd-pipeline run-local $(if $(DATA),--data "$(DATA)",--params params/local.yaml)

# Two at once: half of a test's time is spent waiting for a process to start. A file's tests stay together, and files start
# in the order of tests/conftest.py: those with the fewest tests, which xdist would keep for the end, take longest.
test: install  ## Run the tests.
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# CHAOS_KILLS (50), CHAOS_SEED (0) and LONG_HAUL_MINUTES (60) make it shorter or other.
chaos: install  ## Run the tests that kill things, for minutes.
	$(BIN)/python -m pytest -m chaos

bench: install  ## Run every benchmark: each prints ratios to what it is measured against.
	$(BIN)/python -m benchmarks.encode --rounds 1
	$(BIN)/python -m benchmarks.train --device cpu
	$(BIN)/python -m benchmarks.serve --rounds 2
	$(BIN)/python -m benchmarks.scale --rows 100000

# What people still run: beside the environment, whose torch it uses. Its tokenizers is built for Linux on x86-64.
.matrix/.installed: requirements.matrix.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target .matrix --upgrade --requirement requirements.matrix.lock
	touch $@

matrix: install .matrix/.installed  ## Draw from an exported folder with today's diffusers and transformers and with last year's.
	$(BIN)/python -m pytest -m matrix tests/steps/test_matrix.py

check: lint types imports test  ## What CI runs.

audit: install  ## Look the pinned packages up in the advisory database (needs a network).
	$(BIN)/pip-audit --strict --requirement requirements.lock --no-deps --disable-pip

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

clean:  ## Stop the local control plane; delete its state, the runs and the virtual environment.
	-$(BIN)/sd-pipeline local down
	rm -rf .sd-pipeline runs $(VENV)
