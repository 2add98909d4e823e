"""Programs for Windows, run by wine in a Windows folder of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.console_build import compile_c, need, run

COMPILER = "x86_64-w64-mingw32-gcc"
_WORDS = ("-O2", "-static", "-pthread", "-lws2_32")


class Wine:
    """A Windows folder in which programs run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WINEARCH")},
            "WINEPREFIX": str(folder),
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree,mshtml=",
            "LC_ALL": "C.UTF-8",
        }

    def call(self, program: Path, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        command = ["wine", str(program), *map(str, words)]
        environment = {**self.environment, **variables}
        return subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", timeout=300, env=environment, check=False
        )

    def run(self, program: Path, *words: object) -> str:
        """Run a program, which must succeed without a word on standard error. Return its output."""
        return run(["wine", str(program), *map(str, words)], env=self.environment)


@contextmanager
def windows(folder: Path) -> Iterator[Wine]:
    """Yield a Windows folder, which is removed at the end: it has several hundred MB."""
    need("wine", COMPILER)
    wine = Wine(folder)
    try:
        ended = subprocess.run(["wine", "cmd", "/c", "ver"], capture_output=True, timeout=300, env=wine.environment)
        if ended.returncode or b"Windows" not in ended.stdout:
            pytest.skip("wine cannot run a program here")
        yield wine
    finally:
        subprocess.run(["wineserver", "-k"], env=wine.environment, timeout=60, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def compile_for_windows(library: Path, out: Path, *more: str) -> Path:
    """Compile the library with further words as a program for Windows that needs no other file, and return it."""
    return compile_c(COMPILER, library, out, *more, *_WORDS)


def windows_path(path: Path) -> str:
    """Return the name by which a program sees a file of this computer."""
    return "Z:" + str(path).replace("/", "\\")
