# Everyday targets: each sets itself up from a bare Python 3.11 (PYTHON=python3.13 takes another).

PYTHON ?= python3.11
VENV   ?= .venv

.PHONY: test

test: $(VENV)/.ready-tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest

$(VENV)/.ready-%: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)/bin/python -m pip install --quiet --editable . $(if $(filter tests,$*),--group dev)
	touch $@
