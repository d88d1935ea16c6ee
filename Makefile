PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
COMPILE = $(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-header pyproject.toml --extra postgresql

# `ARGS=--help` of make's own programs needs nothing installed.
HELP := $(filter -h --help,$(ARGS))

.DEFAULT_GOAL := help
.PHONY: help run dev test lint format bench soak demo build install requirements clean FORCE

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s%s\n", $$1, $$2}'

run: $(VENV)/installed  ## serve on http://127.0.0.1:8000 with the list in ./wizards.db
	@$(VENV)/bin/python tools/check_bind.py --config hypercorn.toml $(ARGS) asgi:app
	@$(END_WITH_TERMINAL) exec $(VENV)/bin/hypercorn --config hypercorn.toml --workers 0 $(ARGS) asgi:app

dev: $(VENV)/installed  ## serve with debug pages and hot reload
	@$(VENV)/bin/python tools/check_bind.py --config hypercorn.toml $(ARGS) asgi:app
	@$(END_WITH_TERMINAL) WIZARDS_DEBUG=true exec $(VENV)/bin/hypercorn --config hypercorn.toml --reload $(ARGS) asgi:app

test: $(VENV)/developing  ## run every test; a test that lacks a program is skipped with the reason
	@echo "The tests start and stop hundreds of servers: this takes five minutes on two fast cores, fifteen on"
	@echo "a slow machine. Each line is a file of tests and each dot a test; a few of them take a minute."
	$(VENV)/bin/pytest $(ARGS)

lint: $(VENV)/developing  ## check format, style, types and spelling
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/codespell

format: $(VENV)/developing  ## apply ruff's formatting and fixes
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: $(if $(HELP),,$(VENV)/benching)  ## compare with Flask, FastAPI, Starlette, BlackSheep and a bare floor; needs wrk
	$(if $(HELP),@$(PYTHON) -m bench.options,$(VENV)/bin/python -m bench) $(ARGS)

soak: $(if $(HELP),,$(VENV)/developing)  ## run mixed load for ten minutes while servers and database are killed
	$(if $(HELP),@PYTHONPATH=tests $(PYTHON) -m support.soak_options,PYTHONPATH=tests $(VENV)/bin/python tests/durability/soak.py) $(ARGS)

demo: $(VENV)/installed  ## show a few clients that share a list
	@$(VENV)/bin/python docs/demo.py

build: $(VENV)/installed  ## make a wheel and an sdist in dist/
	@mkdir -p dist
	@$(VENV)/bin/python -c 'from flit_core import buildapi as b; print(b.build_wheel("dist"), b.build_sdist("dist"))'

install: $(VENV)/installed  ## set up .venv with the project and the server; start nothing

requirements: $(VENV)/developing  ## pin the newest versions that pyproject.toml allows
	$(COMPILE) --group build --output-file requirements/run.txt
	$(COMPILE) --group build --group dev --constraints requirements/run.txt --output-file requirements/dev.txt
	$(COMPILE) --group build --group bench --constraints requirements/dev.txt --output-file requirements/bench.txt

clean:  ## remove everything that make created; the list in wizards.db stays
	rm -rf .venv .venv-* dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# make neither ends when its terminal closes nor tells its children: if make leads the terminal's session
# (ssh -t HOST make run, or make run in a tmux window of its own), nothing else tells the server.
END_WITH_TERMINAL = if [ -t 0 ]; then exec 3<&0; \
  while kill -0 $$$$ && { [ -t 3 ] || ! kill -s HUP 0; }; do sleep 1; done 2>/dev/null & exec 3<&-; fi;

# The set-up: an environment, then the packages, in up to three steps, each with a file that says it is done.
# $(VENV)/unfinished holds the id of the make at work. If that make was interrupted, the set-up begins again,
# because pip takes a half installed package for an installed one. It also begins again if the environment's
# Python is gone, or if PYTHON=... chooses another version.
START = @echo $$PPID >$(VENV)/unfinished
DONE = @rm $(VENV)/unfinished && touch $@

STALE := $(shell test -x $(VENV)/bin/python && test ! -e $(VENV)/unfinished || echo FORCE)
ifneq ($(origin PYTHON),file)
VERSION = -c 'import sys; print(sys.version_info)' 2>&1
STALE += $(shell test "$$($(PYTHON) $(VERSION))" = "$$($(VENV)/bin/python $(VERSION))" || echo FORCE)
endif

$(VENV)/pyvenv.cfg: $(STALE)
	@! kill -0 "$$(cat $(VENV)/unfinished 2>&1)" 2>/dev/null || \
	  { echo "Another make is setting up $(VENV); try again when it is done."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(9 * (sys.version_info < (3, 11)))' 2>/dev/null; case $$? in 0) ;; \
	  9) echo "$(PYTHON) is older than Python 3.11; choose a newer one with PYTHON=python3.13"; exit 1;; \
	  *) echo "$(PYTHON) is not installed; choose a Python that is with PYTHON=python3"; exit 1;; esac
	@echo "Setting up $(VENV), once: this takes some seconds, longer on a slow network."
	@rm -rf $(VENV) && mkdir $(VENV)
	$(START)
	$(PYTHON) -m venv $(VENV)
	@rm $(VENV)/unfinished

# A path in a .pth file is read in the locale's encoding, so ours is relative: any checkout works with LC_ALL=C.
$(VENV)/installed: requirements/run.txt pyproject.toml $(VENV)/pyvenv.cfg
	$(START)
	$(PIP) install --require-hashes -r requirements/run.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@echo ../../../../src | tee $(VENV)/lib/python*/site-packages/wizards.pth >/dev/null
	$(DONE)

$(VENV)/benching: requirements/bench.txt $(VENV)/installed
	$(START)
	$(PIP) install --require-hashes -r requirements/bench.txt
	$(DONE)

$(VENV)/developing: requirements/dev.txt $(VENV)/installed
	$(START)
	$(PIP) install --require-hashes -r requirements/dev.txt
	$(DONE)
