"""The folder in which this package keeps its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spinescore.kernels.cache import CACHE_VARIABLE, user_cache
from spinescore.runtime.machine.caches import cache_place, cache_values


def test_a_relative_folder_stays_where_it_was_at_its_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv(CACHE_VARIABLE, str(Path("kept") / "here"))
    monkeypatch.chdir(tmp_path / "first")
    folder = tmp_path / "first" / "kept" / "here"
    assert user_cache() == folder
    monkeypatch.chdir(tmp_path / "second")
    assert user_cache() == folder
    assert os.environ[CACHE_VARIABLE] == str(folder)  # worker processes inherit it
    assert cache_place() == str(folder)


def test_a_user_without_a_home_has_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (CACHE_VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)

    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(OSError, match="no home folder"):
        user_cache()
    assert cache_values() == {"folder": None, "variable": CACHE_VARIABLE}
