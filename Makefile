# Every target but help creates .venv when it is missing; torch comes from the pin in constraints.txt.
# PYTHON=/path/to/python3 chooses one; otherwise the first that runs and is new enough (a name in PATH may be an empty shim).
PYTHONS := python3 python3.13 python3.12 python3.11
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data

# glibc hands large buffers back to the kernel and faults them in again; keeping them is 13 % faster in training.
export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
export MALLOC_TRIM_THRESHOLD_ ?= 8589934592
export MALLOC_TOP_PAD_ ?= 268435456

.PHONY: help setup demo test check bench fuzz

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/.ready ## create the environment in .venv

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  for python in $(or $(PYTHON),$(PYTHONS)); do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	  done; \
	  test -n "$$python" || { echo "no Python 3.11 or newer among: $(or $(PYTHON),$(PYTHONS)); install one, or set PYTHON=/path/to/python3"; exit 2; }; \
	  echo "creating $(VENV) with $$($$python --version)"; \
	  rm -rf $(VENV); \
	  $$python -m venv $(VENV) || { rm -rf $(VENV); echo "$$python cannot make environments; on Debian and Ubuntu: apt install python3-venv"; exit 2; }; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## a tour of what there is, about two minutes; leaves out/demo/report.html
	$(BIN)/kinolex demo --out out/demo

test: setup ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests

check: setup ## style, types and the arrows between rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_architecture.py

bench: setup ## speed and memory of the shipped tokenizers and of .klx files, into benchmarks/
	$(BIN)/python -m benchmarks.tokenizer_speed
	$(BIN)/python -m benchmarks.codec_speed

fuzz: setup ## broken media and token files for two minutes: named errors only
	$(BIN)/python -m tests.fuzz --minutes 2
