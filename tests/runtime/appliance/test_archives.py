"""Delivery to DICOM archives that are not ours, and a study's whole way through a service, on the loopback interface.

dcmtk and Orthanc listen on every interface: each case runs in a network namespace of its own, where there is only one.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CASES_FILE = Path(__file__).parent / "cases_archives.py"
CASES = {
    node.name.removeprefix("case_"): ast.get_docstring(node) or ""
    for node in ast.parse(CASES_FILE.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("case_")
}
PLUGINS = Path("/usr/share/orthanc/plugins")
NEEDED = {"storescp": "dcmtk", "dcmsend": "dcmtk", "Orthanc": "orthanc", "libOrthancDicomWeb.so": "orthanc-dicomweb"}


def has_namespaces() -> bool:
    return sys.platform == "linux" and subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_namespaces(), reason="needs network namespaces")
@pytest.mark.parametrize("case", CASES)
def test_on_the_loopback_interface(tmp_path, case):
    pytest.importorskip("pynetdicom")
    for program, package in NEEDED.items():
        is_here = shutil.which(program) or (PLUGINS / program).exists()
        if program in CASES[case] and not is_here:
            pytest.skip(f"needs {program} of {package}")
    words = ["unshare", "-rn", sys.executable, str(CASES_FILE), case, str(tmp_path)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
