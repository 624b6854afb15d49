# Environments, checks and tests. Needs make, gcc and Python 3.11 to 3.13; see BUILD.md.

TORCH := torch==2.13.0
RUFF_PATHS := polyglot_jax experiments tokenizer eval benchmarks tests

# The first interpreter that really runs (a pyenv shim may not) and is of a locked version.
ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && echo $$python && break; done)
endif
PYTAG := $(shell $(or $(PYTHON),false) -c 'import sys; print("py%d%d" % sys.version_info[:2])' 2>/dev/null)

# An environment's stamp carries the checksum of what it was made from: it is made anew when a lock
# file or the Python version changes, and not touched otherwise.
checksum = $(shell { cat locks/$(PYTAG)$(1).txt; echo $(2); } 2>/dev/null | cksum | cut -d' ' -f1)
RUNTIME := .venv/.made-from-$(call checksum,,)
PLAN := .venv-plan/.made-from-$(call checksum,-plan,)
DEV := .venv-dev/.made-from-$(call checksum,-dev,$(TORCH))
RUNTIME_PYTHON := .venv/bin/python
DEV_PYTHON := .venv-dev/bin/python
PLAN_PYTHON := .venv-plan/bin/python

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart env dev plan-env lint test test-slow test-plan goldens locks clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

quickstart: $(RUNTIME) ## raw text to a generated sample, on two cores (CORPUS=file for your own)
	@$(MAKE) --no-print-directory $(QUICKSTART)/run/curve.png $(QUICKSTART)/hf/config.json
	@echo && echo "== before and after"
	@$(RUNTIME_PYTHON) -m eval.held_out --model=$(QUICKSTART)/run --data=$(QUICKSTART)/shards --baseline
	@echo && echo "== a sample"
	@$(RUNTIME_PYTHON) -m polyglot_jax.generate --model=$(QUICKSTART)/hf --prompt='$(PROMPT)' \
		--max_new_tokens=96
	@echo && echo "the curve: $(QUICKSTART)/run/curve.png" && echo "next:" && echo \
		"  $(RUNTIME_PYTHON) -m polyglot_jax.generate --model=$(QUICKSTART)/hf --prompt='...'" && echo \
		"  make quickstart CORPUS=your-text.jsonl" && echo \
		"  $(RUNTIME_PYTHON) -m polyglot_jax.train --experiment=ko_small --workdir=runs/ko_small" \
		"--set data.plan.0.sources.0.path=SHARDS"

env: $(RUNTIME) ## make .venv, the environment that trains (quickstart makes it too)

dev: $(DEV) ## make .venv-dev: .venv and torch, transformers, linters, test tools

plan-env: $(PLAN) ## make .venv-plan: .venv and the compilers for TPUs and GPUs (4 GB)

lint: $(DEV) ## ruff and mypy
	$(DEV_PYTHON) -m ruff check $(RUFF_PATHS)
	$(DEV_PYTHON) -m ruff format --check $(RUFF_PATHS)
	$(DEV_PYTHON) -m mypy

test: lint ## lint, then the tests
	$(DEV_PYTHON) -m pytest -n logical --maxprocesses=4 -m "not slow and not plan"

test-slow: $(DEV) ## the heavier tests, one after another
	$(DEV_PYTHON) -m pytest -m slow

test-plan: $(PLAN) ## compile for TPUs and GPU clusters, against docs/scale.jsonl
	$(PLAN_PYTHON) -m pytest -m plan tests/plan

goldens: $(DEV) ## rewrite tests/goldens from what is there; look at the diff
	$(DEV_PYTHON) -m pytest -q --update-goldens tests/test_experiments.py tests/test_structure.py

# libtpu's wheels ask for a newer C library than uv's "linux".
# Known pins stay; `make locks UPGRADE=--upgrade` moves them all. torch stays outside: its CPU build
# comes from an index of its own.
locks: $(DEV) ## rewrite locks/ after pyproject.toml changed
	for minor in 11 12 13; do for extra in tokenizer dev plan-test; do \
		platform=linux; \
		case $$extra in \
			dev) suffix=-dev;; \
			plan-test) suffix=-plan platform=x86_64-manylinux_2_31;; \
			*) suffix=;; \
		esac; \
		$(DEV_PYTHON) -m uv pip compile pyproject.toml --extra $$extra \
			--python-version 3.$$minor --python-platform $$platform --generate-hashes --no-header \
			--no-annotate --no-emit-index-url --no-emit-find-links --quiet $(UPGRADE) \
			--output-file locks/py3$$minor$$suffix.txt || exit 1; \
	done; done

clean: ## remove all environments and caches
	rm -rf .venv .venv-dev .venv-plan .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(1): directory, $(2): lock file, $(3): what to install beside it
define make_environment
	@test -f "$(2)" || { echo "error: '$(or $(PYTHON),python3)' is not Python 3.11, 3.12 or 3.13;" \
		"install one or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) has no venv" \
		"module (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(1)
	$(1)/bin/python -m pip install --quiet --no-deps --require-hashes -r $(2)
	$(if $(3),$(1)/bin/python -m pip install --quiet $(3))
	$(1)/bin/python -m pip check
	$(1)/bin/python -c 'import os, sysconfig; \
		open(sysconfig.get_path("purelib") + "/polyglot_jax.pth", "w").write(os.getcwd() + "\n")'
	@touch $@
endef

$(RUNTIME):
	$(call make_environment,.venv,locks/$(PYTAG).txt,)

$(PLAN):
	$(call make_environment,.venv-plan,locks/$(PYTAG)-plan.txt,)

$(DEV):
	$(call make_environment,.venv-dev,locks/$(PYTAG)-dev.txt,$(TORCH))

# ---- quickstart: a folder per corpus; each file is made once, by the program that users run

CORPUS ?=
ifneq ($(CORPUS),$(wildcard $(CORPUS)))
$(error CORPUS=$(CORPUS): no such file)
endif
PROMPT ?= 결제
QUICKSTART := quickstart/$(if $(CORPUS),$(basename $(notdir $(CORPUS)))-$(shell \
	realpath '$(CORPUS)' | cksum | cut -d' ' -f1),sample)
RAW := $(or $(CORPUS),$(QUICKSTART)/raw.jsonl)

$(QUICKSTART)/raw.jsonl:
	@echo "== the sample corpus" && mkdir -p $(@D)
	@$(RUNTIME_PYTHON) -m polyglot_jax.corpus.sample --output=$@

$(QUICKSTART)/documents/report.json: $(RAW)
	@echo "== raw text -> clean documents"
	@$(RUNTIME_PYTHON) -m polyglot_jax.corpus --input=$(RAW) --output=$(@D)

$(QUICKSTART)/tokenizer.json: $(QUICKSTART)/documents/report.json
	@echo "== documents -> tokenizer"
	@$(RUNTIME_PYTHON) -m tokenizer.train --input=$(<D) --vocab_size=4093 --output=$@

$(QUICKSTART)/shards/train/manifest.json: $(QUICKSTART)/tokenizer.json
	@echo "== documents -> token shards"
	@$(RUNTIME_PYTHON) -m polyglot_jax.data.encode --input=$(QUICKSTART)/documents \
		--tokenizer=$< --output=$(QUICKSTART)/shards --held_out_fraction=0.05

$(QUICKSTART)/run/curve.png: $(QUICKSTART)/shards/train/manifest.json
	@echo "== training ko_tiny"
	@$(RUNTIME_PYTHON) -m polyglot_jax.train --experiment=ko_tiny --workdir=$(@D) \
		--set data.plan.0.sources.0.path=$(QUICKSTART)/shards

$(QUICKSTART)/hf/config.json: $(QUICKSTART)/run/curve.png
	@echo "== checkpoint -> HF directory"
	@$(RUNTIME_PYTHON) -m polyglot_jax.convert --to=hf --checkpoint=$(<D) --output=$(@D)
