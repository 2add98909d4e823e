"""Cases of a file that run, each in a process and a network namespace of its own, on the loopback interface alone."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = {"storescp": "dcmtk", "dcmsend": "dcmtk", "echoscu": "dcmtk", "Orthanc": "orthanc", "cc": "gcc",
            "stunnel4": "stunnel4", "openssl": "openssl"}  # fmt: skip


def cases_of(file: Path) -> dict[str, str]:
    """The names of the functions `case_..` in a file, each with its docstring, which names the programs it needs."""
    return {
        node.name.removeprefix("case_"): ast.get_docstring(node) or ""
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("case_")
    }


def run_case(file: Path, case: str, programs: str, folder: Path) -> None:
    """Run a case; skip it if a program that it names, or the namespaces, are missing."""
    for program, package in PACKAGES.items():
        if program in programs and shutil.which(program) is None:
            pytest.skip(f"needs {program} of {package}")
    if sys.platform != "linux" or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("needs network namespaces")
    words = ["unshare", "-rn", sys.executable, str(file), case, str(folder)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
