"""A machine on which nvImageCodec is installed, by its double, and a driver."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from spinescore.runtime.reading import decodepool, decoders, gpudecode, nvimagecodec

__all__ = ["DOUBLE", "nvimgcodec_here"]

DOUBLE = Path(__file__).with_name("nvimgcodec_double")


@contextmanager
def nvimgcodec_here(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Path]:
    """The file says what is wrong with the double; at first nothing is. Decoders for the CPU take long."""
    file = folder / "wrong"
    file.write_text("", encoding="utf-8")
    monkeypatch.setenv("NVIMGCODEC_DOUBLE", str(file))
    monkeypatch.delenv(decodepool.IN_PROCESS_VARIABLE, raising=False)
    monkeypatch.setattr(decodepool._Pool, "_pools", {})
    monkeypatch.setattr(gpudecode._Referee, "_referees", {})
    for name in [name for name in sys.modules if name.partition(".")[0] == "nvidia"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(DOUBLE)
    monkeypatch.setattr(nvimagecodec, "driver_is_here", lambda: True)
    monkeypatch.setattr(decoders, "time", SimpleNamespace(perf_counter=itertools.count(step=100).__next__))
    for limit in ("_COMPARED_S", "_PATIENCE_S", "_TURN_S"):  # no test fails because the machine is busy
        monkeypatch.setattr(gpudecode, limit, 60.0)
    is_installed = nvimagecodec.is_installed
    is_installed.cache_clear()
    assert is_installed()
    yield file
    gpudecode.wait()
    decodepool.stop()
    is_installed.cache_clear()
