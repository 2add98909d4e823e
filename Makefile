# `make demo` and `make test` need Python 3.10 or later and nothing else; each makes its own virtual environment.
# The environment is remade when pyproject.toml changed, when its interpreter is gone, or when it belongs to another copy of this tree.
# On Windows, or without make, see README.md: the same is `pip install .` and `spinescore demo`.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?=
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif

BELONGS_HERE := import pathlib, sys, spinescore.runtime.errors as e; sys.exit(not pathlib.Path(e.__file__).parent.samefile("runtime"))
STALE := $(shell $(BIN)/python -c '$(BELONGS_HERE)' 2>/dev/null || echo stale)

MYPY = MYPYPATH=build/installed $(BIN)/python -m mypy -p spinescore.runtime -p spinescore.export -p spinescore.kernels -p spinescore.benchmarks

.PHONY: demo test lint clean stale

demo: $(VENV)/installed-demo
	$(BIN)/python -m spinescore.runtime.cli demo --out demo

# A process for each core, each with whole files, whose fixtures are costly; PYTEST_ARGS="-n 0 ..." keeps to one process.
test: $(VENV)/installed-test
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile $(PYTEST_ARGS)

# The second run of mypy finds calls that Windows does not have; the tests run mypy and pyright on programs of users.
# mypy reads the package as it is installed: the editable install's import hook, which maps the folders, is invisible to it.
lint: $(VENV)/installed-lint
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	rm -rf build
	$(PIP_INSTALL) --no-deps --target build/installed .
	$(MYPY)
	$(MYPY) --platform win32 --no-warn-unreachable --cache-dir .mypy_cache/win32
	SPINESCORE_INSTALLED=build/installed $(BIN)/python -m pytest -n 0 -q tests/checkers

$(VENV)/installed-demo: EXTRAS =
$(VENV)/installed-test: EXTRAS = [test]
$(VENV)/installed-lint: EXTRAS = [test,lint]

$(VENV)/installed-demo $(VENV)/installed-test $(VENV)/installed-lint: pyproject.toml $(if $(STALE),stale)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "$(PYTHON) is missing or older than Python 3.10; name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	$(if $(STALE),$(PYTHON) -m venv --clear $(VENV))
	$(PIP_INSTALL) --editable '.$(EXTRAS)'
	@touch $@

clean:
	rm -rf $(VENV) build demo spinescore.egg-info
