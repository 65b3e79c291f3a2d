# `make` lists the targets. Every target sets up what it needs, once, and again when its inputs change.
#
# Variables:
#   ARGS      flags for the server (serve), pytest (test) or the benchmarks (bench, bench-cpu)
#   PYTHON    interpreter for the environments: 3.11 is what the lock was made with
#   PIP_ARGS  extra arguments for pip, for example an index that has PyTorch's CPU builds
#
# A stamp's name holds a hash of what it was made from, so a change of content redoes the step and a
# change of date does not; nothing here touches the network once the stamps are there.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(foreach name,python3.11 python3,$(shell command -v $(name))))
PIP_ARGS ?=
ARGS ?=

VENV := .venv
STOCK := .venv-stock
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
FORK_VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1+ic./p; s/^fork = \([0-9]*\).*/\1/p' patches/UPSTREAM | tr -d '\n')

hash = $(shell cat /dev/null $(sort $(1)) | sha256sum | cut -c1-16)
stamp = $(1)/.stamp-$(2)-$(call hash,$(3))
done = rm -f $(dir $@).stamp-$(1)-*; touch $@

DEPS_STAMP := $(call stamp,$(VENV),deps,requirements/cpu.txt)
FORK_STAMP := $(call stamp,$(VENV),fork,$(wildcard patches/*) $(wildcard python/sglang_ic/fork/*.py))
SELF_STAMP := $(call stamp,$(VENV),self,pyproject.toml)
STOCK_STAMP := $(call stamp,$(STOCK),stock,patches/UPSTREAM requirements/stock_env.py)

.PHONY: help setup stock serve test lint bench bench-latency bench-cpu fork-verify lock clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(DEPS_STAMP) $(FORK_STAMP) $(SELF_STAMP) ## Environment with the patched SGLang

serve: setup ## Serve on CPU or GPU: make serve ARGS="--port 30000 --index-cache-pattern FILE"
	$(PY) -m sglang_ic.launch_server $(ARGS)

test: setup stock ## Run the tests: make test ARGS="test/unit -k pattern"
	$(PY) -m pytest $(ARGS)

lint: $(DEPS_STAMP) ## Check style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

bench: setup stock ## Compare servers under load: make bench ARGS="--arm full --arm 1/4=FILE --scale 0.02"
	$(PY) -m sglang_ic.bench $(ARGS)

bench-latency: setup stock ## Time prefill and decode: make bench-latency ARGS="PLAN --part NAME --output OUT"
	$(PY) -m sglang_ic.latency $(ARGS)

bench-cpu: setup ## Measure prefill of the bundled model on CPU, by Full count
	$(PY) benchmark/cpu_prefill.py $(ARGS)

fork-verify: setup ## Check the patch series against the pinned upstream, and the installed fork
	$(PY) -m sglang_ic.fork verify

stock: $(STOCK_STAMP) ## Second environment: upstream's own SGLang, everything else shared

lock: ## Resolve requirements/*.in anew into requirements/*.txt (needs a network)
	PYTHON="$(PYTHON)" PIP_ARGS="$(PIP_ARGS)" requirements/lock.sh

clean: ## Delete the environments and everything that was built or downloaded
	rm -rf $(VENV) $(STOCK) .cache dist build

$(PY):
	@test -n "$(PYTHON)" || { echo "error: no python3.11 or python3 found: pass PYTHON=..." >&2; exit 2; }
	"$(PYTHON)" -m venv $(VENV)

$(DEPS_STAMP): | $(PY)
	$(PIP) install $(PIP_ARGS) --no-compile -r requirements/cpu.txt
	$(call done,deps)

$(FORK_STAMP): | $(DEPS_STAMP) $(SELF_STAMP)
	$(PY) -m sglang_ic.fork build --out dist
	tag=$$($(PY) -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
	$(PIP) install --no-deps --no-index --no-compile --force-reinstall dist/sglang-$(FORK_VERSION)-$$tag-*.whl
	$(call done,fork)

$(SELF_STAMP): | $(DEPS_STAMP)
	$(PIP) install --no-deps --no-index --no-build-isolation -e .
	$(call done,self)

$(STOCK_STAMP): | $(DEPS_STAMP) $(SELF_STAMP)
	$(PY) requirements/stock_env.py $(STOCK)
	$(call done,stock)
