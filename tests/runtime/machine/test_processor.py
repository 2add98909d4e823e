"""The kind of CPU: the same wherever networks run alike, whatever the system tells."""

import platform

import pytest

from spinescore.runtime.machine import processor

INTEL = "model name\t: Xeon 6\nflags\t\t: fpu sse avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_int8\n"
JETSON = "processor : 0\nModel name : ARMv8\nFeatures\t: fp asimd asimddp\nModel\t\t: Jetson Orin\n"

SERVER = "processor : 0\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n"


@pytest.mark.parametrize(
    ("facts", "board", "machine", "kind", "name"),
    [
        (INTEL, "", "x86_64", "x86-64 avx2 avx512 avx512-vnni avx512-bf16 amx-int8 amx-bf16", "Xeon 6"),
        (INTEL.replace("Xeon 6", "Xeon 6E"), "", "AMD64",
         "x86-64 avx2 avx512 avx512-vnni avx512-bf16 amx-int8 amx-bf16", "Xeon 6E"),
        (JETSON, "", "aarch64", "aarch64 dotprod", "Jetson Orin"),
        (SERVER, "NVIDIA Jetson AGX Orin\0", "aarch64", "aarch64 dotprod", "NVIDIA Jetson AGX Orin"),
        (SERVER, "", "aarch64", "aarch64 dotprod", "Family 6"),
        (None, "", "AMD64", "x86-64 Family 6", "Family 6"),
    ],
)  # fmt: skip
def test_kind_and_name(tmp_path, monkeypatch, facts, board, machine, kind, name):
    if facts is not None:
        (tmp_path / "cpuinfo").write_text(facts, encoding="utf-8")
    if board:
        (tmp_path / "model").write_text(board, encoding="utf-8")
    monkeypatch.setattr(processor, "_FACTS", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor, "_BOARD", tmp_path / "model")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "processor", lambda: "Family 6")
    assert (processor.processor_kind(), processor.processor_name()) == (kind, name)
