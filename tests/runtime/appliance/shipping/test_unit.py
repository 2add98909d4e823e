"""The unit of systemd, judged by systemd-analyze, which reads it and starts nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import spinescore.runtime.appliance.shipping as shipping

SHIPPED = Path(shipping.__file__).parent
COMMAND = "/opt/spinescore/current/bin/spinescore"
MOST_EXPOSURE = 2.0

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze of systemd")


def analyze(verb: str, unit: Path) -> str:
    ended = subprocess.run(
        ["systemd-analyze", *verb.split(), str(unit)], capture_output=True, encoding="utf-8", timeout=60
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(params=["cpu", "gpu"])
def unit(request, tmp_path):
    """The unit with a program that exists, alone or with the drop-in for GPUs."""
    text = (SHIPPED / "spinescore.service").read_text(encoding="utf-8")
    assert COMMAND in text
    path = tmp_path / "spinescore.service"
    path.write_text(text.replace(COMMAND, sys.executable), encoding="utf-8")
    if request.param == "gpu":
        (tmp_path / "spinescore.service.d").mkdir()
        shutil.copy(SHIPPED / "gpu.conf", tmp_path / "spinescore.service.d")
    return path


def test_exposure_is_low(unit):
    said = analyze("security --offline=true --no-pager", unit)
    exposure = re.search(r"Overall exposure level for spinescore\.service: (\d+\.\d+)", said)
    assert exposure is not None, said
    assert float(exposure[1]) <= MOST_EXPOSURE


def test_every_line_is_understood(unit):
    assert analyze("verify --man=no", unit) == ""
