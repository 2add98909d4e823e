# `make demo` and `make test` need Python 3.10 or later and nothing else; each makes its own virtual environment.
# The environment is remade if pyproject.toml changed, its interpreter is gone, or it belongs to another copy of this tree.
# On Windows, or without make, see README.md: the same is `pip install .` and `spinescore demo`.

PYTHON ?= python3
VENV ?= .venv
VENV_OPTIONS ?= # on a Jetson --system-site-packages: JetPack's TensorRT lies in the system's packages
CONSTRAINTS ?=
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif

BELONGS_HERE := import pathlib, sys, spinescore.runtime.errors as e; sys.exit(not pathlib.Path(e.__file__).parent.samefile("runtime"))
STALE := $(shell $(BIN)/python -c '$(BELONGS_HERE)' 2>/dev/null || echo stale)

MYPY = MYPYPATH=build/installed $(BIN)/python -m mypy -p spinescore.runtime -p spinescore.export -p spinescore.kernels -p spinescore.benchmarks -p spinescore.requirements

# `serve-demo` needs pynetdicom, which the extra `appliance` brings.
.PHONY: help demo serve-demo test slow quick format lint clean stale

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/installed-demo ## draw a synthetic study, score it, and write everything to demo/
	$(BIN)/python -m spinescore.runtime.cli demo --out demo

serve-demo: $(VENV)/installed-serve-demo ## start the appliance, send it a synthetic study over DICOM, and show its report
	$(BIN)/python -m spinescore.runtime.cli serve --demo --until-idle
	$(BIN)/python -m spinescore.runtime.cli study report 1 --config appliance-demo/appliance.toml

# The children of hundreds of tests would otherwise compile the package again, each for itself.
unexport PYTHONDONTWRITEBYTECODE

# A process for each core, each with whole files, whose fixtures are costly; PYTEST_ARGS="-n 0 ..." keeps to one process.
# pytest-xdist would begin with the files of most tests; tests/conftest.py begins with those that take longest.
PYTEST = $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile --no-loadscope-reorder

MARKED = not slow$(if $(CONSTRAINTS), and not versionless)

test: $(VENV)/installed-test ## run the tests but the slow ones; PYTEST_ARGS="tests/runtime -k html" chooses
	$(PYTEST) -m "$(MARKED)" $(PYTEST_ARGS)

slow: $(VENV)/installed-test ## run the slow tests: whole services and commands, for minutes
	$(PYTEST) -m slow $(PYTEST_ARGS)

# Tests without the shipped bundle, a compiler, or many processes of their own.
QUICK = $(filter-out tests/test_page_commands.py tests/test_examples.py, $(wildcard tests/test_*.py)) \
    tests/runtime/bundle tests/runtime/followup tests/runtime/machine tests/runtime/manifest \
    $(filter-out %/test_fuzz_dicom.py %/test_given_arrays.py, $(wildcard tests/runtime/reading/test_*.py)) \
    $(filter-out %/test_decodeworker.py %/test_decodeworker_ends.py, $(wildcard tests/runtime/reading/decoding/test_*.py)) \
    $(addprefix tests/runtime/scoring/test_, budget.py hard_budgets.py expected.py geometry.py grading.py msasss.py report.py) \
    $(addprefix tests/runtime/outputs/test_, html_report.py rows.py)

quick: $(VENV)/installed-test ## run a part of the tests, at most a minute on two cores
	$(PYTEST) -q $(QUICK) $(PYTEST_ARGS)

format: $(VENV)/installed-lint ## sort imports, mend what ruff can mend, format
	$(BIN)/python -m ruff check --fix-only .
	$(BIN)/python -m ruff format .

# The second run of mypy finds calls that Windows does not have; the tests run mypy and pyright on programs of users.
# mypy reads the package as it is installed: the editable install's import hook, which maps the folders, is invisible to it.
lint: $(VENV)/installed-lint ## check style, format and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	rm -rf build
	$(PIP_INSTALL) --no-deps --target build/installed .
	$(MYPY)
	$(MYPY) --platform win32 --no-warn-unreachable --cache-dir .mypy_cache/win32
	SPINESCORE_INSTALLED=build/installed $(BIN)/python -m pytest -n 0 -q tests/checkers

$(VENV)/installed-demo: EXTRAS =
$(VENV)/installed-serve-demo: EXTRAS = [appliance]
$(VENV)/installed-test: EXTRAS = [test]
$(VENV)/installed-lint: EXTRAS = [test,lint]

$(VENV)/installed-demo $(VENV)/installed-serve-demo $(VENV)/installed-test $(VENV)/installed-lint: pyproject.toml $(if $(STALE),stale)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "$(PYTHON) is missing or older than Python 3.10; name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	$(if $(STALE),$(PYTHON) -m venv --clear $(VENV_OPTIONS) $(VENV))
	$(PIP_INSTALL) --editable '.$(EXTRAS)'
	@touch $@

clean: ## remove what the other targets made
	rm -rf $(VENV) build demo appliance-demo spinescore.egg-info
