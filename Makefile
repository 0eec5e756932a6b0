# Two commands for a newcomer: `make quickstart` runs a whole study, `make test` checks everything. Each sets up .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SCIQ ?= ../shared/data/binary_tasks/sciq_test.jsonl
WORKERS := -n logical --maxprocesses 4 --dist loadfile
QUIET := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_TELEMETRY=1

.PHONY: help install quickstart lab-study lab-iterations lab-online lab-tables library nyu-human nyu-judge test test-search test-stress test-slow lint docs integrations bench clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/.installed  ## install into .venv

quickstart: $(VENV)/.installed  ## run the whole study on the lab models and write runs/quickstart/report/index.html
	$(BIN)/debate-rl run configs/quickstart.yaml

lab-study: $(VENV)/.installed  ## the same study with three seeds and more questions: runs/lab_study/report/index.html
	$(BIN)/debate-rl run configs/lab_study.yaml

lab-iterations: $(VENV)/.installed  ## iterated DPO and its five targets, three seeds: runs/lab_iterations/report/index.html
	$(BIN)/debate-rl run configs/lab_iterations.yaml

lab-online: $(VENV)/.installed  ## online RL beside DPO and consultants, three seeds: runs/lab_online/report/index.html
	$(BIN)/debate-rl run configs/lab_online.yaml

lab-tables: $(VENV)/.installed  ## the tables of weak-to-strong, five seeds: runs/lab_tables/report/index.html
	$(BIN)/debate-rl run configs/tables/lab.yaml

library: $(VENV)/.installed  ## real small models on SciQ: runs/library/report/index.html
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[library]'
	$(BIN)/debate-rl models get smollm2-135m
	$(BIN)/debate-rl run configs/library/sciq.yaml $(if $(wildcard $(SCIQ)),questions.path=$(SCIQ))

nyu-human: $(VENV)/.installed  ## run the pipeline on the real human debates
	test -f runs/tiny-model/config.json || $(BIN)/python -m debate_rl.data.tiny runs/tiny-model --text ../shared/data/nyu_2023/stories.jsonl
	$(BIN)/debate-rl run configs/nyu_human.yaml

nyu-judge: $(VENV)/.installed  ## teach a judge the confidences of human judges, and set it beside them
	test -f runs/tiny-model/config.json || $(BIN)/python -m debate_rl.data.tiny runs/tiny-model --text ../shared/data/nyu_2023/stories.jsonl
	$(BIN)/debate-rl run configs/nyu_judge.yaml

test: lint  ## lint, types, layers and tests
	$(QUIET) $(BIN)/python -m pytest $(WORKERS) -m "not slow"

test-search: $(VENV)/.dev  ## look for new failing cases of the properties; SEED=N for another search, EXAMPLES=100 for a shorter one
	$(QUIET) $(BIN)/python -m pytest $(WORKERS) -m "not slow and not browser" --hypothesis-profile=search --hypothesis-seed=$(or $(SEED),random)

test-stress: $(VENV)/.dev  ## kills at random moments and changed bytes: KILLS=200 CORRUPTIONS=100, an hour or two
	$(QUIET) $(BIN)/python -m pytest -s -m slow tests/test_stress.py

test-slow: $(VENV)/.dev  ## the tests that take minutes as well
	$(QUIET) $(BIN)/python -m pytest -m "slow or not slow"

lint: $(VENV)/.dev  ## ruff, mypy and the layers of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev  ## build the site, tutorials run: build/docs/index.html
	$(QUIET) HF_HUB_OFFLINE=1 $(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs

integrations: $(VENV)/.dev  ## install the other tools that exports are for, and test with them
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[verifiers]'
	$(QUIET) $(BIN)/python -m pytest tests/export -m "slow or not slow"

bench: $(VENV)/.dev  ## the benchmarks, each a table of two arms
	@for file in tests/benchmarks/bench_*.py; do $(QUIET) $(BIN)/python -m tests.benchmarks.$$(basename $$file .py) || exit 1; done

clean:  ## remove what was built, not what was run
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
