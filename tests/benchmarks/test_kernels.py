"""The record of the kernels' resources: what is kept in the repository, and the command that writes it."""

import json
from pathlib import Path

from spinescore.benchmarks import kernels as command
from spinescore.kernels.build import ARCHITECTURES
from spinescore.kernels.launch import KERNELS

RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "kernels.json"

REPORT = """ptxas info    : Compiling entry function 'warp_f16' for 'sm_90'
ptxas info    : Function properties for warp_f16
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 1824 bytes smem
ptxas info    : Compiling entry function 'warp_f16' for 'sm_100a'
ptxas info    : Function properties for warp_f16
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 46 registers, used 0 barriers
"""


def test_the_kept_record_names_every_kernel_and_architecture_and_no_spills():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert set(record["kernels"]) == set(KERNELS)
    for per_architecture in record["kernels"].values():
        assert list(per_architecture) == [f"sm_{architecture}" for architecture in ARCHITECTURES]
        assert not any(numbers["spill_bytes"] for numbers in per_architecture.values())


def test_the_command_writes_what_ptxas_says(monkeypatch, tmp_path):
    def compile_fatbin(source, target, nvcc):
        target.write_bytes(b"12345")
        return REPORT if source == "warp" else ""

    monkeypatch.setattr(command, "find_nvcc", lambda: Path("nvcc"))
    monkeypatch.setattr(command, "compile_fatbin", compile_fatbin)
    monkeypatch.setattr(command, "_version", lambda nvcc: "release 13.0")
    assert command.main(["--out", str(tmp_path / "record.json")]) == 0
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert record["nvcc"] == "release 13.0"
    assert record["fatbin_bytes"] == {"warp": 5, "decode": 5, "average": 5}
    assert record["kernels"] == {
        "warp_f16": {
            "sm_90": {"registers": 40, "shared_bytes": 1824, "stack_bytes": 8, "spill_bytes": 16},
            "sm_100": {"registers": 46, "shared_bytes": 0, "stack_bytes": 0, "spill_bytes": 0},
        }
    }


def test_without_nvcc_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(command, "find_nvcc", lambda: None)
    assert command.main([]) == 2
    assert "nvcc was not found" in capsys.readouterr().err
