"""A program's locale is the same after a scorer has loaded its networks in several threads."""

import locale
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.networks_made import cast_network, save
from spinescore.runtime.engines.locales import kept_locale

engines = pytest.importorskip("spinescore.runtime.engines.openvino")


@pytest.fixture
def utf8():
    """Set a locale that is not C, return its full name, and restore the earlier one at the end."""
    before = locale.setlocale(locale.LC_ALL)
    for name in ("C.UTF-8", "en_US.UTF-8", "English_United States.utf8"):
        try:
            locale.setlocale(locale.LC_ALL, name)
        except locale.Error:
            continue
        yield locale.setlocale(locale.LC_ALL)
        locale.setlocale(locale.LC_ALL, before)
        return
    pytest.skip("this system has no locale with UTF-8")


def test_networks_that_load_together_leave_the_locale(tmp_path, monkeypatch, utf8):
    """Each loading reads or writes the cache, for which OpenVINO changes the locale; without care most rounds fail."""
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    paths = [save(cast_network(), tmp_path / f"{number}.onnx") for number in range(4)]
    for _ in range(10):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda path: engines.OpenVinoEngine(path, "fp32", 1), paths))
        assert locale.setlocale(locale.LC_ALL) == utf8


def test_the_locale_is_restored_when_the_last_one_leaves(utf8):
    outer, inner = kept_locale(), kept_locale()
    outer.__enter__()
    inner.__enter__()
    assert locale.setlocale(locale.LC_NUMERIC) == "C"  # numbers in a file are the same in every language
    locale.setlocale(locale.LC_ALL, "C")
    outer.__exit__(None, None, None)
    assert locale.setlocale(locale.LC_ALL) == "C"
    inner.__exit__(None, None, None)
    assert locale.setlocale(locale.LC_ALL) == utf8


def test_a_locale_that_the_program_chooses_meanwhile_stays(utf8):
    with kept_locale():
        locale.setlocale(locale.LC_CTYPE, "C")
        chosen = locale.setlocale(locale.LC_ALL)
    assert locale.setlocale(locale.LC_ALL) == chosen


def load_in_vain():
    with kept_locale():
        locale.setlocale(locale.LC_ALL, "C")
        raise OSError("no such network")


def test_an_error_restores_the_locale(utf8):
    with pytest.raises(OSError, match="no such network"):
        load_in_vain()
    assert locale.setlocale(locale.LC_ALL) == utf8
