# `make demo` and `make test` work in a fresh clone: each makes its own virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= demo
SUBJECTS ?= 180
SEED ?= 1

# One thread a process: hospitals and tests run side by side, and threads that fight for two cores are slower than one.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all lint venv clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo      simulated hospitals, the federated job, and a report to look at (folder $(DEMO)/)"
	@echo "make test      the tests that a change must pass"
	@echo "make test-all  also those that start FLARE processes"
	@echo "make lint      ruff and mypy"
	@echo "make clean     remove the environment, builds and the demo"

venv: $(STAMP)

# torch first and by its exact version: any other request brings several GB of CUDA libraries.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cohort,report,test,dev]'
	@touch $@

demo: venv
	$(BIN)/mhsev demo $(DEMO) --subjects $(SUBJECTS) --seed $(SEED)

test: venv
	$(BIN)/pytest -m "not slow"

test-all: venv
	$(BIN)/pytest

lint: venv
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info $(DEMO)
