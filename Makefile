PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet
COMPILE = .venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-header pyproject.toml --extra postgresql

.DEFAULT_GOAL := help
.PHONY: help run dev test lint format bench soak demo build install requirements clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s%s\n", $$1, $$2}'

run: .venv/installed  ## serve on http://127.0.0.1:8000 with the list in ./wizards.db
	@exec .venv/bin/hypercorn --config hypercorn.toml $(ARGS) asgi:app

dev: .venv/installed  ## serve with debug pages and hot reload
	@exec .venv/bin/quart --app asgi --debug run --port 8000 $(ARGS)

test: .venv/developing  ## run every test; a test that lacks a program is skipped with the reason
	.venv/bin/pytest $(ARGS)

lint: .venv/developing  ## check format, style, types and spelling
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/codespell

format: .venv/developing  ## apply ruff's formatting and fixes
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench: .venv/benching  ## compare with Flask, FastAPI, Starlette, BlackSheep and a bare floor; needs wrk
	.venv/bin/python -m bench $(ARGS)

soak: .venv/developing  ## run mixed load for ten minutes while servers and database are killed
	PYTHONPATH=tests .venv/bin/python tests/durability/soak.py $(ARGS)

demo: .venv/installed  ## show a few clients that share a list
	@.venv/bin/python docs/demo.py

build: .venv/installed  ## make a wheel and an sdist in dist/
	@mkdir -p dist
	@.venv/bin/python -c 'from flit_core import buildapi as b; print(b.build_wheel("dist"), b.build_sdist("dist"))'

install: .venv/installed  ## set up .venv with the project and the server; start nothing

requirements: .venv/developing  ## pin the newest versions that pyproject.toml allows
	$(COMPILE) --group build --output-file requirements/run.txt
	$(COMPILE) --group build --group dev --constraints requirements/run.txt --output-file requirements/dev.txt
	$(COMPILE) --group build --group bench --constraints requirements/dev.txt --output-file requirements/bench.txt

clean:  ## remove everything that make created; the list in wizards.db stays
	rm -rf .venv dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; choose a Python with: make run PYTHON=python3.12"; exit 1; }
	@echo "Setting up .venv, once: this takes some seconds, longer on a slow network."
	$(PYTHON) -m venv .venv

.venv/installed: requirements/run.txt pyproject.toml | .venv/bin/python
	$(PIP) install --require-hashes -r requirements/run.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/benching: requirements/bench.txt .venv/installed
	$(PIP) install --require-hashes -r requirements/bench.txt
	@touch $@

.venv/developing: requirements/dev.txt .venv/installed
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@
