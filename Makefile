# `make report` and `make test` set everything up by themselves: they need python3 (3.11 or newer, with venv),
# git and make. The environment lives in .venv and is rebuilt when pyproject.toml changes.

PYTHON ?= python3
BIN = .venv/bin

.PHONY: report test test-slow check format coverage clean

report: .venv/installed
	$(BIN)/iosim report

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -n auto --dist worksteal --run-slow

coverage: .venv/installed-dev
	NUMBA_DISABLE_JIT=1 $(BIN)/coverage run -m pytest
	$(BIN)/coverage report --skip-covered

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "iosim needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/installed: .venv/made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@
