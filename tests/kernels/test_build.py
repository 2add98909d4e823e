"""Compiling the kernels: every architecture where nvcc is, and the shipped, cached and missing cases with a double."""

import hashlib
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.nvcc_double import FATBIN, PTX, FakeNvcc
from spinescore.kernels import build
from spinescore.kernels import compiled as policy
from spinescore.kernels.build import ARCHITECTURES, SOURCES, KernelBuildError, compile_fatbin, compile_ptx, resources
from spinescore.kernels.launch import KERNELS


def fatbin(source, capability):
    """The first code that a device would try."""
    return next(policy.codes(source, capability)).data


@pytest.fixture(scope="module")
def compiled(pytestconfig):
    """Both fatbins for all architectures: source -> (file, ptxas' report). Kept until a source or nvcc changes."""
    nvcc = build.find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc is not installed, so the kernels are not compiled for GPUs")
    version = subprocess.run([nvcc, "--version"], capture_output=True, check=True).stdout
    folder = pytestconfig.cache.mkdir(f"fatbins-{hashlib.sha256(version).hexdigest()[:16]}")
    found = {}
    for source in SOURCES:
        target = folder / build.shipped_name(source)
        report = target.with_suffix(".txt")
        if not report.exists():
            report.write_text(compile_fatbin(source, target, nvcc), encoding="utf-8")
        found[source] = target, report.read_text(encoding="utf-8")
    return found


@pytest.mark.versionless
@pytest.mark.parametrize("source", SOURCES)
def test_every_architecture_compiles_without_spills(compiled, source):
    path, report = compiled[source]
    assert "warning" not in report
    found = resources(report)
    known = set(build.architectures(build.find_nvcc()))
    kernels = {name for name, (holder, _) in KERNELS.items() if holder == source}
    assert {(r.kernel, r.architecture) for r in found} == {(name, code) for name in kernels for code in known}
    most = 96 if source == "warp" else 64  # warp holds the values of 16 loads at once
    assert [r for r in found if r.spill_bytes or r.stack_bytes or r.registers > most] == []
    assert policy._is_fatbin(path.read_bytes())


def test_compiled_once_for_the_gpu_at_hand(nvcc):
    assert fatbin("warp", (9, 0)) == fatbin("warp", (9, 0)) == FATBIN
    assert nvcc.compiled == [["sm_90"]]
    fatbin("warp", (7, 5))
    fatbin("decode", (7, 5))
    assert nvcc.compiled == [["sm_90"], ["sm_75"], ["sm_75"]]


def test_another_source_is_another_entry_of_the_cache(nvcc, monkeypatch, tmp_path):
    fatbin("warp", (9, 0))
    for path in build.HERE.glob("*.cu*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(build, "HERE", tmp_path)
    fatbin("warp", (9, 0))
    assert len(nvcc.compiled) == 1
    (tmp_path / "records.cuh").write_text("// changed\n")
    fatbin("warp", (9, 0))
    assert len(nvcc.compiled) == 2


@pytest.mark.parametrize("damaged", [FATBIN[:-1], FATBIN + b"x", b"", b"something else entirely"])
def test_a_damaged_entry_is_compiled_again(nvcc, damaged):
    fatbin("warp", (9, 0))
    (entry,) = policy.cache_folder().iterdir()
    entry.write_bytes(damaged)
    assert fatbin("warp", (9, 0)) == FATBIN
    assert entry.read_bytes() == FATBIN
    assert len(nvcc.compiled) == 2


def test_all_code_for_a_driver_that_refuses_it(nvcc, monkeypatch, tmp_path):
    """Shipped machine code, shipped PTX, then machine code and PTX that are compiled here and kept."""
    monkeypatch.setattr(policy, "HERE", tmp_path)
    (tmp_path / "not-shipped-warp.fatbin").write_bytes(FATBIN + b"x")  # damaged: passed over
    (tmp_path / "not-shipped-warp.ptx").write_bytes(build.portable_ptx(PTX).encode() + b"\0")
    for _ in range(2):
        codes = policy.codes("warp", (9, 0))
        taken = list(itertools.islice(codes, 3))
        with pytest.raises(KernelBuildError, match=r"there is no other code for a GPU of compute capability 9\.0"):
            next(codes)
        assert [code.description for code in taken] == [
            "the package's PTX (compiled by CUDA 13.0)",
            "machine code of nvcc on this machine (compiled by an unknown CUDA version)",
            "PTX compiled on this machine (compiled by CUDA 13.0)",
        ]
        assert taken[0].data == taken[2].data
    assert nvcc.compiled == [["sm_90"], "--ptx", "--cubin"]


@pytest.mark.parametrize("damaged", [b"", b"\0", PTX.encode()[:60], b"no code" + b"\0"])
def test_shipped_ptx_that_is_cut_short_is_passed_over(nvcc, monkeypatch, tmp_path, damaged):
    monkeypatch.setattr(policy, "HERE", tmp_path)
    (tmp_path / "not-shipped-warp.fatbin").write_bytes(FATBIN[:-1])
    (tmp_path / "not-shipped-warp.ptx").write_bytes(damaged)
    assert next(policy.codes("warp", (9, 0))).description.startswith("machine code of nvcc on this machine")


def test_ptx_states_an_isa_that_every_supported_driver_knows():
    text = build.portable_ptx(PTX)
    assert "\n.version 7.4\n" in text
    assert "used_bytes_mask" not in text
    assert text.count("\n") == PTX.count("\n") - 1
    assert build.portable_ptx(text) == text


@pytest.mark.parametrize("source", SOURCES)
def test_the_ptx_of_the_kernels_is_of_that_isa(compiled, tmp_path, source):
    """ptxas refuses newer statements; what it makes of the lowered PTX is what it makes of nvcc's own."""
    nvcc = build.find_nvcc()
    compile_ptx(source, tmp_path / "portable.ptx", nvcc)
    portable = (tmp_path / "portable.ptx").read_bytes()
    assert portable.endswith(b"\n\0")
    (tmp_path / "portable.ptx").write_bytes(portable[:-1])
    build._run(
        [str(nvcc), *build.FLAGS, "-arch=compute_75", "--ptx", "-o", str(tmp_path / "own.ptx"), build._path(source)], ""
    )
    for name in ("portable", "own"):
        build._run([str(nvcc), "-arch=sm_86", "--cubin", "-o", str(tmp_path / name), str(tmp_path / f"{name}.ptx")], "")
    assert (tmp_path / "portable").read_bytes() == (tmp_path / "own").read_bytes()
    kernels = {name for name, (holder, _) in KERNELS.items() if holder == source}
    assert set(re.findall(rb"\.visible \.entry (\w+)\(", portable)) == {name.encode() for name in kernels}


def test_ptx_that_needs_a_newer_isa_is_not_shipped(monkeypatch, tmp_path):
    """A statement that only a newer ISA knows is found when the package is built, and not on the user's driver."""
    nvcc = build.find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc is not installed")
    monkeypatch.setattr(build, "PTX_ISA", "6.2")  # sm_75 came with 6.3
    with pytest.raises(KernelBuildError, match=r"The PTX of kernel average is not of ISA 6\.2: .*sm_75"):
        compile_ptx("average", tmp_path / "average.ptx", nvcc)
    assert not (tmp_path / "average.ptx").exists()


def test_a_gpu_newer_than_nvcc_gets_ptx_and_an_older_one_is_refused(nvcc):
    fatbin("warp", (12, 1))
    assert nvcc.compiled == [["compute_90"]]
    nvcc.known = (90,)
    with pytest.raises(
        KernelBuildError, match=r"no longer compiles for a GPU of compute capability 8\.6; install CUDA 12"
    ):
        list(policy.codes("warp", (8, 6)))
    with pytest.raises(KernelBuildError, match=r"6\.1 is older than 7.5, the oldest supported; use device cpu"):
        fatbin("warp", (6, 1))


def test_all_architectures_that_nvcc_knows_and_ptx_of_the_oldest(nvcc, tmp_path):
    nvcc.known = (50, 80, 90, 100, 103)
    compile_fatbin("warp", tmp_path / "warp.fatbin", Path("/cuda/nvcc"))
    assert nvcc.compiled == [["compute_80", "sm_80", "sm_90", "sm_100"]]
    nvcc.known = (50, 60)
    with pytest.raises(KernelBuildError, match="knows none of the architectures"):
        compile_fatbin("warp", tmp_path / "warp.fatbin", Path("/cuda/nvcc"))


def test_what_nvcc_says_is_in_the_error(nvcc):
    nvcc.fails = "nvcc fatal: no host compiler"
    with pytest.raises(
        KernelBuildError, match=r"no host compiler\nRepair the CUDA toolkit.*NVRTC was not found"
    ) as error:
        fatbin("warp", (9, 0))
    assert "was not found. Install" not in str(error.value)


def test_without_nvcc_the_error_says_what_to_install(nvcc):
    nvcc.is_there(False)
    with pytest.raises(
        KernelBuildError, match=r"nvcc, which compiles kernel decode for a GPU of compute capability 8\.7, was"
    ):
        fatbin("decode", (8, 7))


def test_an_nvcc_that_cannot_be_started(monkeypatch, tmp_path):
    monkeypatch.setattr(policy, "find_nvcc", lambda: tmp_path / "gone")
    monkeypatch.setattr(policy, "shipped_name", lambda source, suffix=".fatbin": f"not-shipped-{source}{suffix}")
    monkeypatch.setattr(policy, "compile_ptx_by_nvrtc", FakeNvcc.nvrtc.__get__(type("Silent", (), {"compiled": []})()))
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path))
    with pytest.raises(KernelBuildError, match="use device cpu"):
        fatbin("warp", (9, 0))


def test_a_cache_that_cannot_be_written_is_a_warning(nvcc, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="could not be kept"):
        assert fatbin("warp", (9, 0)) == FATBIN


def test_a_shipped_fatbin_comes_first(nvcc, monkeypatch, tmp_path):
    monkeypatch.setattr(policy, "HERE", tmp_path)
    (tmp_path / "not-shipped-warp.fatbin").write_bytes(FATBIN)
    assert fatbin("warp", (12, 0)) == FATBIN
    assert nvcc.compiled == []


@pytest.mark.skipif(sys.platform == "win32", reason="nvcc.exe is found by other rules")
def test_nvcc_is_found_on_path_then_in_cuda_home(monkeypatch, tmp_path):
    for folder in ("path", "home/bin"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "nvcc").write_text("#!/bin/sh\n")
        (tmp_path / folder / "nvcc").chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert build.find_nvcc() == tmp_path / "path" / "nvcc"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.find_nvcc() == tmp_path / "home" / "bin" / "nvcc"


def test_the_cache_is_in_the_users_cache_folder(monkeypatch):
    monkeypatch.delenv("SPINESCORE_CACHE", raising=False)
    if sys.platform != "win32":
        monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
        assert policy.cache_folder() == Path("/somewhere/spinescore/kernels")
    assert policy.cache_folder().parts[-2:] == ("spinescore", "kernels")


def test_ptxas_in_unknown_words_is_an_error():
    with pytest.raises(KernelBuildError, match="words that are not known"):
        resources("ptxas info : Compiling entry function 'warp_f16' for 'sm_75'\nregisters: 40\n")
    assert tuple(sorted(ARCHITECTURES)) == ARCHITECTURES
