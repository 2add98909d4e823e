"""Device auto: a GPU that is there and cannot be used is a warning in every report, none at all is not."""

from __future__ import annotations

import pytest

from helpers import tiny
from spinescore.runtime import Scorer, devices, doctor
from spinescore.runtime.errors import DeviceError
from spinescore.runtime.opening import candidates


@pytest.mark.parametrize("there", [True, False])
def test_a_warning_needs_a_gpu(tmp_path, monkeypatch, there):
    def none():
        raise DeviceError("Device cuda is not available: pycuda is not installed.")

    monkeypatch.setattr(devices, "first_gpu", none)
    monkeypatch.setattr(devices, "_has_nvidia_hardware", lambda: there)
    monkeypatch.setattr(candidates, "hardware_of", lambda kind: none() if kind == "cuda" else "this CPU")
    with Scorer.open(tiny.write_bundle(tmp_path)) as scorer:
        report = scorer.score(())
    warned = [warning for warning in report.warnings if warning.startswith("Scored on the CPU")]
    assert (report.device.kind, len(warned)) == ("cpu", there)
    (found,) = [finding for finding in doctor._gpu() if finding.name == "GPU"]
    assert (found.state, "auto scores on the CPU" in found.detail) == ("missing" if there else "absent", True)


def test_hardware_is_found_without_its_driver(tmp_path, monkeypatch):
    """By the PCI class of a display controller: a network card of the same maker is none."""
    monkeypatch.setattr(devices.sys, "platform", "linux")
    monkeypatch.setattr(devices, "_DEVICE_FILES", ())
    monkeypatch.setattr(devices, "_PCI", tmp_path)
    for number, (vendor, kind) in enumerate((("0x8086", "0x030000"), ("0x10de", "0x020700"), ("broken", "\xff"))):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "vendor").write_text(vendor + "\n", encoding="latin-1")
        (tmp_path / str(number) / "class").write_text(kind + "\n", encoding="latin-1")
    (tmp_path / "empty").mkdir()
    assert not devices._has_nvidia_hardware()
    (tmp_path / "1" / "class").write_text("0x030200\n", encoding="ascii")
    assert devices._has_nvidia_hardware()
