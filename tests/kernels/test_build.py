"""Compiling the kernels: every architecture where nvcc is, and the shipped, cached and missing cases with a double."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from spinescore.kernels import build
from spinescore.kernels.build import ARCHITECTURES, SOURCES, KernelBuildError, compile_fatbin, fatbin, resources
from spinescore.kernels.launch import KERNELS

FATBIN = (0xBA55ED50).to_bytes(4, "little") + b"\x01\x00\x10\x00" + (5).to_bytes(8, "little") + b"code!"


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
    assert build._whole_fatbin(path) is not None


class FakeNvcc:
    """Stands for running nvcc: knows some architectures, writes what it is told to, counts the compilations."""

    def __init__(self, monkeypatch, tmp_path):
        self.known, self.writes, self.fails, self.compiled = (75, 90), FATBIN, None, []
        monkeypatch.setattr(build.subprocess, "run", self.run)
        monkeypatch.setattr(build, "find_nvcc", lambda: Path("/cuda/nvcc"))
        monkeypatch.setattr(build, "shipped_name", lambda source: f"not-shipped-{source}.fatbin")
        monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))

    def run(self, command, **options):
        if self.fails:
            return subprocess.CompletedProcess(command, 1, "", self.fails)
        if "--list-gpu-code" in command:
            return subprocess.CompletedProcess(command, 0, "".join(f"sm_{code}\n" for code in self.known), "")
        self.compiled.append([part.split(",code=")[1] for part in command if part.startswith("-gencode")])
        Path(command[command.index("-o") + 1]).write_bytes(self.writes)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def nvcc(monkeypatch, tmp_path):
    return FakeNvcc(monkeypatch, tmp_path)


def test_compiled_once_for_the_gpu_at_hand(nvcc):
    assert fatbin("warp", (9, 0)) == fatbin("warp", (9, 0)) == FATBIN
    assert nvcc.compiled == [["sm_90"]]
    fatbin("warp", (7, 5))
    fatbin("decode", (7, 5))
    assert nvcc.compiled == [["sm_90"], ["sm_75"], ["sm_75"]]


def test_another_source_is_another_entry_of_the_cache(nvcc, monkeypatch, tmp_path):
    fatbin("warp", (9, 0))
    for path in build._HERE.glob("*.cu*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(build, "_HERE", tmp_path)
    fatbin("warp", (9, 0))
    assert len(nvcc.compiled) == 1
    (tmp_path / "records.cuh").write_text("// changed\n")
    fatbin("warp", (9, 0))
    assert len(nvcc.compiled) == 2


@pytest.mark.parametrize("damaged", [FATBIN[:-1], FATBIN + b"x", b"", b"something else entirely"])
def test_a_damaged_entry_is_compiled_again(nvcc, damaged):
    fatbin("warp", (9, 0))
    (entry,) = build.cache_folder().iterdir()
    entry.write_bytes(damaged)
    assert fatbin("warp", (9, 0)) == FATBIN
    assert entry.read_bytes() == FATBIN
    assert len(nvcc.compiled) == 2


def test_a_gpu_newer_than_nvcc_gets_ptx_and_an_older_one_is_refused(nvcc):
    fatbin("warp", (12, 1))
    assert nvcc.compiled == [["compute_90"]]
    nvcc.known = (90,)
    with pytest.raises(
        KernelBuildError, match=r"no longer compiles for a GPU of compute capability 8\.6; install CUDA 12"
    ):
        fatbin("warp", (8, 6))
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
    with pytest.raises(KernelBuildError, match="no host compiler\nRepair the CUDA toolkit"):
        fatbin("warp", (9, 0))


def test_without_nvcc_the_error_says_what_to_install(nvcc, monkeypatch):
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    with pytest.raises(KernelBuildError, match=r"nvcc, which compiles them for a GPU of compute capability 8\.7, was"):
        fatbin("decode", (8, 7))


def test_an_nvcc_that_cannot_be_started(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "find_nvcc", lambda: tmp_path / "gone")
    monkeypatch.setattr(build, "shipped_name", lambda source: f"not-shipped-{source}.fatbin")
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path))
    with pytest.raises(KernelBuildError, match="use device cpu"):
        fatbin("warp", (9, 0))


def test_a_cache_that_cannot_be_written_is_a_warning(nvcc, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="could not be kept"):
        assert fatbin("warp", (9, 0)) == FATBIN


def test_a_shipped_fatbin_comes_first(nvcc, monkeypatch, tmp_path):
    for path in build._HERE.glob("*.cu*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(build, "_HERE", tmp_path)
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
        assert build.cache_folder() == Path("/somewhere/spinescore/kernels")
    assert build.cache_folder().parts[-2:] == ("spinescore", "kernels")


def test_ptxas_in_unknown_words_is_an_error():
    with pytest.raises(KernelBuildError, match="words that are not known"):
        resources("ptxas info : Compiling entry function 'warp_f16' for 'sm_75'\nregisters: 40\n")
    assert tuple(sorted(ARCHITECTURES)) == ARCHITECTURES


@pytest.fixture
def package_step(monkeypatch, tmp_path):
    """The step of building the package, its copying left out, with the folder into which it builds."""
    pytest.importorskip("setuptools", reason="setuptools is not installed, so no package is built here")
    from setuptools import Distribution

    from spinescore.kernels import packaging

    monkeypatch.setattr(packaging.build_py, "run", lambda self: None)
    monkeypatch.setattr(packaging, "_build_module", lambda: build)
    step = packaging.BuildWithKernels(Distribution())
    step.build_lib, step.editable_mode = str(tmp_path), False
    folder = tmp_path / "spinescore" / "kernels"
    folder.mkdir(parents=True)
    return step, folder


def test_a_package_is_built_with_the_fatbins_where_nvcc_is(nvcc, package_step):
    step, folder = package_step
    (folder / "warp-of-an-earlier-build.fatbin").write_bytes(FATBIN)
    step.run()
    assert sorted(path.name for path in folder.iterdir()) == sorted(build.shipped_name(source) for source in SOURCES)
    assert nvcc.compiled == [["compute_75", "sm_75", "sm_90"]] * len(SOURCES)


def test_a_package_is_built_without_fatbins_where_nvcc_is_missing_or_fails(nvcc, package_step, monkeypatch):
    step, folder = package_step
    said = []
    monkeypatch.setattr(step, "warn", said.append)
    nvcc.fails = "nvcc fatal: no host compiler"
    step.run()
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    step.run()
    assert [*folder.iterdir()] == []
    assert "no host compiler" in said[0]
    assert "nvcc was not found" in said[1]
