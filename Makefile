# `make demo` and `make test` work in a fresh clone: each makes its own virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= demo
POC_DEMO ?= poc-demo
POC_SUBJECTS ?= 72
SUBJECTS ?= 180
SEED ?= 1

# One thread a process: hospitals and tests run side by side, and threads that fight for two cores are slower than one.
export OMP_NUM_THREADS ?= 1
# Two test processes; the tests of a file stay together, since they share what they made. PARALLEL= runs one.
PARALLEL ?= -n 2 --dist loadfile

.PHONY: demo poc-demo test test-slow test-all test-wheel benchmark benchmark-federation lint venv clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo      simulated hospitals, the federated job, and a report to look at (folder $(DEMO)/)"
	@echo "make poc-demo  the same with a server and three hospitals as real processes (folder $(POC_DEMO)/)"
	@echo "make test      the tests that a change must pass"
	@echo "make test-all  also those that start FLARE processes"
	@echo "make test-wheel  build sdist and wheel, install the wheel elsewhere, and test it there"
	@echo "make benchmark  measure decomposition, preprocessing and radiomics against their peers, and write docs/benchmarks/"
	@echo "make benchmark-federation  measure rounds, attacks and leakage, and write docs/benchmarks/"
	@echo "make lint      ruff and mypy"
	@echo "make clean     remove the environment, builds and the demo"

venv: $(STAMP)

# torch first and by its exact version: any other request brings several GB of CUDA libraries.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cohort,dicom,pacs,report,dp,he,tensorboard,test,dev]'
	@touch $@

demo: venv
	$(BIN)/mhsev demo $(DEMO) --subjects $(SUBJECTS) --seed $(SEED)

poc-demo: venv
	$(BIN)/mhsev poc demo $(POC_DEMO) --subjects $(POC_SUBJECTS) --seed $(SEED)

test: venv
	$(BIN)/pytest $(PARALLEL) -m "not slow and not long"

test-slow: venv
	$(BIN)/pytest $(PARALLEL) -m "slow and not long"

test-all: venv
	$(BIN)/pytest $(PARALLEL)

# The wheel is built from the sdist, so both are tried; on what packing can break: every module is imported, every command
# answers, and data files are found. The rooms' own tests run from the checkout. The second environment borrows the third-party packages of the
# first by a path file; an editable install is not visible through one, so what the tests import there is the wheel.
test-wheel: venv
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m build --outdir build/wheel . > build/wheel/build.log || { cat build/wheel/build.log; exit 1; }
	$(PYTHON) -m venv --without-pip build/wheel/venv
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	  > $$(echo build/wheel/venv/lib/python*/site-packages)/borrowed.pth
	$(BIN)/pip --python build/wheel/venv/bin/python install --quiet --disable-pip-version-check --no-deps build/wheel/*.whl
	cp -r tests build/wheel/tests
	ln -sfn "$(abspath ..)/shared" build/shared
	cd build/wheel && venv/bin/python -m pytest -q $(PARALLEL) -m "not slow and not long" -p no:cacheprovider \
	  tests/test_*.py tests/flare tests/report

# Some ten minutes on an otherwise idle machine; `apt-get install mrtrix3` adds the rows of dwidenoise, and a C compiler
# that of pyradiomics.
benchmark: venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[benchmark]'
	-$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[oracle]'
	rm -rf build/benchmark-cache
	$(BIN)/python tests/benchmarks/benchmark_dsd.py
	$(BIN)/python tests/benchmarks/benchmark_preprocess.py
	$(BIN)/python tests/benchmarks/benchmark_radiomics.py
	$(BIN)/python tests/benchmarks/benchmark_shapley.py

# Some half an hour: rounds over FLARE's processes, attacks against every rule, what updates tell of their cases.
benchmark-federation: venv
	$(BIN)/python tests/benchmarks/benchmark_federation.py
	$(BIN)/python tests/benchmarks/benchmark_attacks.py
	$(BIN)/python tests/benchmarks/benchmark_leakage.py

lint: venv
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info $(DEMO) $(POC_DEMO)
