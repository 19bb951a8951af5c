# Everyday targets: each sets itself up from a bare Python 3.11 (PYTHON=python3.13 takes another).

PYTHON ?= python3.11
VENV   ?= .venv
# What `make test` runs of the tests; all of them where nothing is said.
TESTS  ?=

.PHONY: test demo

test: $(VENV)/.ready-tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest $(TESTS)

# On a terminal: a page to click, until Ctrl-C. Elsewhere: kill a replica once, exit code 0 if nothing was lost.
demo: $(VENV)/.ready-demo
	$(VENV)/bin/gossipsess demo

$(VENV)/.ready-%: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)/bin/python -m pip install --quiet --editable ".$(if $(filter demo,$*),[demo])" $(if $(filter tests,$*),--group dev)
	touch $@
