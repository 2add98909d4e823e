"""The names that options take, as types.

A misspelt name is an error for a type checker, and a `ValueError` at run time.
"""

from __future__ import annotations

from typing import Literal

from spinescore.runtime.engines import EngineName, PrecisionName

__all__ = ["BuildMode", "DeviceName", "EngineName", "PrecisionName"]

DeviceName = Literal["auto", "cpu", "cuda"]
BuildMode = Literal["auto", "no", "now", "background"]  # auto: a GPU's engines now, a CPU's check in the background
