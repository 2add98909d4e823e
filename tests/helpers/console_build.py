"""The C library of consoles as `console-sdk` writes it, compiled by whichever compilers there are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spinescore.runtime.console import write_sdk

C_WARNINGS = (
    *("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wconversion", "-Wshadow", "-Wcast-qual"),
    *("-Wwrite-strings", "-Wstrict-prototypes", "-Wmissing-prototypes"),
)
SOURCES = ("spinescore.c", "spinescore_codes.c")
SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def need(*programs: str) -> None:
    """Skip the test if a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def need_unix() -> None:
    """Skip the test on Windows, whose library speaks TCP only and whose compilers are others."""
    if sys.platform == "win32":
        pytest.skip("the library is built and called on Linux")


def sdk(folder: Path) -> Path:
    """Write the library to a folder and return it."""
    write_sdk(folder)
    return folder


def compile_c(compiler: str, folder: Path, out: Path, *more: str) -> Path:
    """Compile the library in `folder` with further words, all warnings as errors, and return the output."""
    need(compiler)
    sources = [str(folder / name) for name in SOURCES]
    run([compiler, *C_WARNINGS, "-I", str(folder), *sources, *more, "-o", str(out)])
    return out


def run(command: list[str], timeout_s: float = 300, **more: object) -> str:
    """Run a command, which must succeed without a word on standard error. Return its output."""
    ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=timeout_s, **more)
    assert (ended.returncode, ended.stderr) == (0, ""), f"{command}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout
