# The door to everything. `make app` and `make test` set up what they need by themselves.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS := server,batch,evaluate,video,heif

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(VENV)/.app: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[server]'
	touch $@

$(VENV)/.dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --editable '.[$(EXTRAS)]' --group dev
	touch $@

app: $(VENV)/.app  ## set up and open the web app at http://127.0.0.1:8000
	$(BIN)/facewise serve

test: $(VENV)/.dev  ## set up and run all tests
	$(BIN)/python -m pytest

check: $(VENV)/.dev  ## format, lint, types, import rules
	$(BIN)/ruff format --check src tests scripts bench
	$(BIN)/ruff check src tests scripts bench
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: help app test check
