"""The examples of `console-sdk` in C, C++ and C#: how each is built and called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from helpers.console_build import C_WARNINGS, SANITIZERS, SOURCES, compile_c, need, run

CXX_WARNINGS = ("-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wconversion", "-Wshadow")


def make_c(library: Path, folder: Path) -> list[str]:
    """Build the example in C with sanitizers, and return the command that runs it."""
    return [str(compile_c("gcc", library, folder / "score", *SANITIZERS, str(library / "examples" / "score.c")))]


def make_cpp(library: Path, folder: Path) -> list[str]:
    """Build the example in C++ with sanitizers, and return the command that runs it."""
    need("g++")
    objects = []
    for name in SOURCES:
        objects.append(str(folder / f"{name}.o"))
        run(["gcc", *C_WARNINGS, *SANITIZERS, "-c", str(library / name), "-o", objects[-1]])
    words = ["g++", *CXX_WARNINGS, *SANITIZERS, "-I", str(library), *objects, str(library / "examples" / "score.cpp")]
    run([*words, "-o", str(folder / "score_cpp")])
    return [str(folder / "score_cpp")]


def make_cs(library: Path, folder: Path) -> list[str]:
    """Build the shared library and the example in C#, and return the command that runs it."""
    need("mcs", "mono")
    compile_c("gcc", library, folder / "libspinescore.so", "-shared", "-fPIC", "-O2")
    sources = [str(library / name) for name in ("SpineScore.cs", "examples/Score.cs")]
    run(["mcs", "-warn:4", "-warnaserror", f"-out:{folder / 'Score.exe'}", *sources])
    return ["mono", str(folder / "Score.exe")]


MAKERS = {"c": make_c, "cpp": make_cpp, "cs": make_cs}


def call_example(
    command: list[str], folder: Path, address: str, *words: object, token: str = "right"
) -> subprocess.CompletedProcess[str]:
    """Run an example, which finds the shared library in `folder`."""
    environment = {**os.environ, "SPINESCORE_TOKEN": token, "LD_LIBRARY_PATH": str(folder)}
    words = (*command, address, *map(str, words))
    return subprocess.run(words, capture_output=True, text=True, encoding="utf-8", timeout=300, env=environment)
