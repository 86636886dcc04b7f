# make quickstart   install into .venv and run the main job on the embedded data (six to ten minutes on two cores)
# make test         install what the tests need, lint, run the whole default suite
# make doctor       say what works on this machine, and what to type for what does not
# make study POOL=FOLDER STAGE=screening JOBS=2   train and compare every recipe on the mini teacher (hours; see research/recipe_study)
# make bench        measure our ways beside those people use today, into results/bench (hours on two cores; one: BENCH=NAME)
# make test-newest  the suite on the newest versions of everything, in an environment of its own
# make docs         render docs/ as a site into build/site
# make lock         choose the versions in constraints.txt anew

# The first Python that runs here and that we support; `command -v` is not enough, pyenv leaves names behind that do not run.
PYTHON ?= $(firstword $(foreach v,python3.11 python3.12 python3.10 python3,$(shell $(v) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && command -v $(v))))
VENV   := .venv
BIN    := $(VENV)/bin
# One thread per process: the tests and the quickstart run two processes side by side, and threads that fight over cores are slower than none.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Versions for packages and for what builds them: s3prl and pesq come as source.
LOCKED := -c constraints.txt --build-constraint constraints.txt

# $(call pip_install,ENVIRONMENT,WHAT): what pip says is enough for a person, except where it runs out of network or space.
pip_install = $(1)/bin/python -m pip install -qq $(2) || { status=$$?; \
  echo; echo "Installing into $(CURDIR)/$(1) failed, for the reason pip gives above."; \
  echo "It needs a package index that answers (pip config debug), and 8 GB of space: $$(df -h . | awk 'NR==2 {print $$4}') free here."; \
  exit $$status; }

# $(call new_environment,FOLDER)
new_environment = \
  { test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; } || \
  { echo "RobustDistiller needs Python 3.10, 3.11 or 3.12; found: $$("$(or $(PYTHON),python3)" --version 2>/dev/null || echo none)."; \
    echo "Install one of them and call: make PYTHON=/path/to/python3.11 ..."; exit 1; }; \
  test -e $(1) && old=yes || old=; \
  "$(PYTHON)" -m venv $(1) || { test "$$old" || rm -rf $(1); echo; \
    echo "$(PYTHON) cannot make a virtual environment with pip in $(CURDIR)/$(1) (on Debian and Ubuntu: apt-get install python3-venv)."; exit 1; }

.PHONY: help install quickstart study bench test test-newest lock lint docs sox doctor clean

help:
	@sed -n 's/^# make /make /p' Makefile

install: $(VENV)/.installed sox

quickstart: install
	$(BIN)/robustdistiller quickstart

study: install
	@test -n "$(POOL)" || { echo "Give the folder of the speech to distil on: make study POOL=FOLDER"; exit 1; }
	$(BIN)/python -m research.recipe_study $(or $(STAGE),screening) --pool "$(POOL)" --jobs $(or $(JOBS),0)

bench: $(VENV)/.installed-dev
	$(BIN)/python -m research.bench $(BENCH)

test: $(VENV)/.installed-dev sox lint
	$(BIN)/pytest

# Nothing is pinned here: what somebody gets who installs without constraints.txt today.
test-newest: sox
	@rm -rf $(VENV)-newest
	@$(call new_environment,$(VENV)-newest)
	@echo "Installing the newest versions into $(VENV)-newest"
	@$(call pip_install,$(VENV)-newest,--upgrade pip)
	@$(call pip_install,$(VENV)-newest,--upgrade -e '.[dev]')
	$(VENV)-newest/bin/python -m pip freeze --exclude-editable > $(VENV)-newest/versions.txt
	$(VENV)-newest/bin/pytest

# uv resolves for all three Pythons at once; pip, which reads the result, needs no uv. The tools that build packages are
# pinned as well.
lock: $(VENV)/bin/python
	@$(call pip_install,$(VENV),uv)
	printf 'pip\nsetuptools\nwheel\ncython\n' | $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.10 \
	  --all-extras --no-annotate --no-header setup.py - -o constraints.new
	@{ echo "# Every version that \`make install\` and \`make test\` use, for Python 3.10 to 3.12 on Linux; chosen by \`make lock\` on $$(date +%F)."; \
	   cat constraints.new; } > constraints.txt; rm constraints.new

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python docs/hooks/linked_sources.py
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict

doctor: $(VENV)/.installed
	$(BIN)/robustdistiller doctor

$(VENV)/bin/python:
	@$(call new_environment,$(VENV))
	@$(call pip_install,$(VENV),-c constraints.txt --upgrade pip)

$(VENV)/.installed: setup.py pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing PyTorch, s3prl and the rest into $(VENV) (a few minutes the first time)"
	@$(call pip_install,$(VENV),$(LOCKED) -e '.[superb$(,)train]')
	@touch $@

$(VENV)/.installed-dev: setup.py pyproject.toml constraints.txt $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV)"
	@$(call pip_install,$(VENV),$(LOCKED) -e '.[dev]')
	@touch $@

, := ,

# sox is the one system tool: s3prl reads Speech Commands, VoxCeleb verification and QUESST audio through it.
sox:
	@if command -v sox >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "Installing sox"; (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq sox) >/dev/null 2>&1 \
	    || echo "sox could not be installed; KS, ASV and QbE will not run until it is: apt-get install sox"; \
	else echo "sox is missing: KS, ASV and QbE will not run until it is installed (Debian/Ubuntu: sudo apt-get install sox; macOS: brew install sox)"; fi

clean:
	rm -rf $(VENV) $(VENV)-newest build *.egg-info
