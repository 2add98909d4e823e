"""Settings for all tests: property tests draw the same cases in every run, and no test depends on the clock."""

import pytest
from hypothesis import settings

import spinescore.runtime  # noqa: F401  # before a test imports an engine, which would else look up its maker's host
from spinescore.runtime.acceptance import gate

# Files that take longest, and that have few tests each; a process that began one of them last would work on alone.
_LONGEST = (
    "test_cuda_device.py",
    "test_int8.py",
    "test_int8_search.py",
    "test_selftest.py",
    "test_build.py",
    "test_install.py",
    "test_crashes.py",
    "test_export_test_time.py",
    "test_bench.py",
    "test_shipped_bundle.py",
    "test_structured_report.py",
    "test_openvino.py",
    "test_localizers.py",
    "test_life.py",
    "test_page_commands.py",
    "test_examples.py",
    "test_readme.py",
)

settings.register_profile("spinescore", deadline=None, derandomize=True, database=None)
settings.load_profile("spinescore")


@pytest.fixture(autouse=True, scope="session")
def _no_cache_of_this_user(tmp_path_factory):
    """No test or child process of one sees which engines were accepted on this machine, or leaves anything there."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SPINESCORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patched.setenv("SPINESCORE_CHECK", "0")  # no process is started that a test does not ask for
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_process_stands_for_all_of_the_gate():
    """The gate runs one new process and counts it as often as it was asked for; children of tests run them all."""
    run_all = gate._runs
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gate, "_runs", lambda *arguments: run_all(*arguments[:-1], 1) * arguments[-1])
        yield


def pytest_collection_modifyitems(items):
    """Put the files that take longest first; `make test` keeps this order."""
    last = len(_LONGEST)
    items.sort(key=lambda item: _LONGEST.index(item.path.name) if item.path.name in _LONGEST else last)
