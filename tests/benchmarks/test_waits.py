"""How the waits of a kernel's loads are read from SASS, and that warp's sixteen loads are in flight together."""

import json
from pathlib import Path

import pytest

from spinescore.benchmarks import waits as command
from spinescore.benchmarks.waits import blocks_of, find_nvdisasm, waits
from spinescore.kernels.build import ARCHITECTURES, find_nvcc

RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "kernel-waits.json"

SASS = """
.text.warp_f16:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 LDG.E.U16.CONSTANT R2, [R4.64] ;
        /*0020*/                   LDG.E.U16.CONSTANT R3, [R6.64] ;
        /*0030*/                   IADD3 R8, R2, R3, RZ ;
        /*0040*/               @P1 BRA `(.L_x_1) ;
        /*0050*/                   EXIT ;
.L_x_1:
        /*0060*/                   LDG.E.CONSTANT R9, [R8.64] ;
        /*0070*/                   LDG.E.CONSTANT R10, [R9.64] ;
        /*0080*/                   FADD R11, R10, R10 ;
        /*0090*/                   EXIT ;
"""


def test_blocks_end_at_branches_and_labels():
    (name, blocks), *others = blocks_of(SASS)
    assert (name, others) == ("warp_f16", [])
    assert [len(block) for block in blocks] == [5, 1, 4]


def test_loads_that_are_sent_together_wait_once_and_dependent_ones_each():
    ((_, (together, _, dependent)),) = blocks_of(SASS)
    assert waits(together) == pytest.approx(1, abs=0.02)
    assert waits(dependent) == pytest.approx(2, abs=0.02)
    assert waits(["MOV R1, R2", "LDG.E R3, [R4.64]"]) == 0


def test_the_kept_record_has_every_architecture_and_16_loads_in_flight():
    kernels = json.loads(RECORD.read_text(encoding="utf-8"))["kernels"]
    for name in ("warp_f16", "warp_f32"):
        assert list(kernels[name]) == [f"sm_{code}" for code in ARCHITECTURES]
        for blocks in kernels[name].values():
            assert_few_waits(blocks)


def assert_few_waits(blocks):
    """Two samples of two pixels: 16 stored values, and 16 table entries unless the table is a line."""
    two_samples = [block for block in blocks if block["loads"] == 32]
    assert len(two_samples) == 2, "one for each depth of pixels"
    assert all(block["waits"] < 3 for block in two_samples), "one after the other, eight samples wait 15 times"
    computed = [block for block in blocks if block["loads"] == 16 and block["waits"] < 1]
    assert len(computed) == 2, "without the entries of a table, which a line replaces, there is no second wait"


def test_warp_as_it_is_now():
    nvcc = find_nvcc()
    nvdisasm = find_nvdisasm(nvcc) if nvcc else None
    if nvcc is None or nvdisasm is None:
        pytest.skip("nvcc or nvdisasm is not installed")
    folder = Path(command.find_nvcc.__code__.co_filename).parent
    record = command.measure(nvcc, nvdisasm, folder, (90,))
    assert_few_waits(record["kernels"]["warp_f16"]["sm_90"])


def test_without_nvdisasm_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(command, "find_nvcc", lambda: Path("nvcc"))
    monkeypatch.setattr(command, "find_nvdisasm", lambda nvcc: None)
    assert command.main([]) == 2
    assert "install the package nvidia-cuda-nvdisasm" in capsys.readouterr().err
