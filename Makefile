# make quickstart   install into .venv and run the main job on the embedded data (about ten minutes on two cores)
# make study POOL=FOLDER JOBS=2   train and compare every recipe on the mini teacher (hours; see mini/study)
# make bench        measure our ways beside those people use today, into results/bench (hours on two cores; one: BENCH=NAME)
# make test         install what the tests need, lint, run the whole default suite

PYTHON ?= $(firstword $(foreach v,python3.11 python3.12 python3.10 python3,$(shell command -v $(v) 2>/dev/null)))
VENV   := .venv
BIN    := $(VENV)/bin
# One thread per process: the tests and the quickstart run two processes side by side, and threads that fight over cores are slower than none.
export OMP_NUM_THREADS ?= 1

.PHONY: help install quickstart study bench test lint sox doctor clean

help:
	@sed -n 's/^# make /make /p' Makefile

install: $(VENV)/.installed sox

quickstart: install
	$(BIN)/robustdistiller quickstart

study: install
	@test -n "$(POOL)" || { echo "Give the folder of the speech to distil on: make study POOL=FOLDER"; exit 1; }
	$(BIN)/python -m robustdistiller.mini.study --pool "$(POOL)" --jobs $(or $(JOBS),1)

bench: $(VENV)/.installed-dev
	$(BIN)/python -m robustdistiller.bench $(BENCH)

test: $(VENV)/.installed-dev sox lint
	$(BIN)/pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

doctor: install
	$(BIN)/robustdistiller doctor

$(VENV)/bin/python:
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "RobustDistiller needs Python 3.10, 3.11 or 3.12; found: $$("$(PYTHON)" --version 2>&1 || echo none)."; \
	    echo "Install one of them and call: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip

$(VENV)/.installed: setup.py | $(VENV)/bin/python
	@echo "Installing PyTorch, s3prl and the rest into $(VENV) (a few minutes the first time)"
	$(BIN)/python -m pip install -qq -e .
	@touch $@

$(VENV)/.installed-dev: setup.py $(VENV)/.installed
	$(BIN)/python -m pip install -qq -e '.[dev,metrics,export]'
	@touch $@

# sox is the one system tool: s3prl reads Speech Commands, VoxCeleb verification and QUESST audio through it.
sox:
	@if command -v sox >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "Installing sox"; (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq sox) >/dev/null 2>&1 \
	    || echo "sox could not be installed; KS, ASV and QbE will not run until it is: apt-get install sox"; \
	else echo "sox is missing: KS, ASV and QbE will not run until it is installed (Debian/Ubuntu: sudo apt-get install sox; macOS: brew install sox)"; fi

clean:
	rm -rf $(VENV) build *.egg-info
