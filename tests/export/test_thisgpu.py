"""The driver's facts for a sidecar, from a stand-in for the driver's library."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from spinescore.export.engineinputs import Gpu, first_gpu

DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 3; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Orin (nvgpu)", length); return device != 3; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 16 ? 8 : attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18 ? 1 : -1;
    return device != 3;
}
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
"""


@pytest.fixture(scope="module")
def compiler() -> str:
    found = shutil.which("cc") or shutil.which("gcc")
    if not found:
        pytest.skip("no C compiler was found to make a stand-in for the driver")
    return found


def driver(compiler: str, folder: Path, init: int) -> str:
    source, library = folder / "driver.c", folder / "libdriver.so"
    source.write_text(DRIVER, encoding="utf-8")
    subprocess.run([compiler, "-shared", "-fPIC", f"-DINIT={init}", str(source), "-o", str(library)], check=True)
    return str(library)


def test_facts(compiler, tmp_path):
    assert first_gpu(driver(compiler, tmp_path, init=0)) == Gpu("Orin (nvgpu)", (8, 7), 8, "12.6", integrated=True)


def test_a_driver_without_a_gpu(compiler, tmp_path):
    assert first_gpu(driver(compiler, tmp_path, init=100)) is None


def test_no_driver(tmp_path):
    assert first_gpu(str(tmp_path / "libcuda.so.1")) is None
