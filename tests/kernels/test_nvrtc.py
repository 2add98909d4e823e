"""NVRTC compiles the kernels where neither nvcc nor compiled code is: with the library itself, or with a double."""

import shutil
import subprocess

import pytest

from spinescore.kernels import build, nvrtc
from spinescore.kernels import compiled as policy
from spinescore.kernels.build import SOURCES, KernelBuildError
from spinescore.kernels.launch import KERNELS

DOUBLE = r"""
#include <cstdio>
#include <cstring>
#include <string>
extern "C" {
static std::string kept, text;
int nvrtcCreateProgram(void **program, const char *source, const char *name, int count, const char *const *bodies,
                       const char *const *names) {
    kept = std::string(name) + " " + std::to_string(count) + " " + names[0] + " " + names[1];
    const bool whole = std::strstr(source, "__global__") && std::strstr(bodies[0], "struct Roi");
    if (!whole || !std::strstr(bodies[1], "DBL_MAX")) return 3;
    *program = &kept;
    return 0;
}
int nvrtcCompileProgram(void *, int count, const char *const *options) {
    for (int i = 0; i < count; ++i) kept += std::string(" ") + options[i];
    text = "// " + kept + "\n// Cuda compilation tools, release 12.6, V12.6.85\n.version 8.5\n";
    return std::strstr(kept.c_str(), "average") ? 6 : 0;
}
int nvrtcGetProgramLogSize(void *, size_t *size) { return *size = 12, 0; }
int nvrtcGetProgramLog(void *, char *log) { return std::strcpy(log, "bad average"), 0; }
int nvrtcGetPTXSize(void *, size_t *size) { return *size = text.size() + 1, 0; }
int nvrtcGetPTX(void *, char *ptx) { return std::strcpy(ptx, text.c_str()), 0; }
int nvrtcDestroyProgram(void **program) { return *program = nullptr, 0; }
}
"""


@pytest.fixture
def double(monkeypatch, tmp_path):
    """A library that answers as NVRTC does, in the layout of NVIDIA's Python packages."""
    if nvrtc.sys.platform != "linux" or not shutil.which("g++"):
        pytest.skip("the double of NVRTC is built by g++ on Linux")
    package = tmp_path / "nvidia" / "cu13"
    for folder in ("lib", "include"):
        (package / folder).mkdir(parents=True)
    (tmp_path / "double.cpp").write_text(DOUBLE)
    library = package / "lib" / "libnvrtc.so.13"
    subprocess.run(["g++", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "double.cpp")], check=True)
    (package / "include" / "cuda_fp16.h").touch()
    monkeypatch.setattr(nvrtc, "_folders", lambda kind: iter([package / kind]))
    monkeypatch.setattr(nvrtc, "_NAMES", ("libnvrtc.so.13",))
    return package


def test_the_library_of_a_python_package_compiles(double, monkeypatch, tmp_path):
    monkeypatch.setattr(policy, "find_nvcc", lambda: None)
    monkeypatch.setattr(policy, "shipped_name", lambda source, suffix=".fatbin": "not shipped")
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    for _ in range(2):  # the second from the cache
        code = next(policy.codes("warp", (8, 7)))
        lines = code.data.decode().splitlines()
        assert lines[0].startswith("// warp.cu 2 records.cuh cfloat --gpu-architecture=compute_75 --std=c++17 -I")
        assert lines[2:] == [".version 7.4", "\0"]
        assert code.description == "PTX compiled on this machine (compiled by CUDA 12.6)"
        (double / "lib" / "libnvrtc.so.13").unlink(missing_ok=True)


def test_a_source_that_does_not_compile_is_named_with_the_log(double):
    with pytest.raises(KernelBuildError, match=r"average could not be compiled by NVRTC \(status 6\): bad average"):
        nvrtc.compile_ptx_by_nvrtc("average")


def test_without_library_or_headers_the_error_says_so(double):
    (double / "include" / "cuda_fp16.h").unlink()
    with pytest.raises(KernelBuildError, match=r"cuda_fp16\.h, which NVRTC needs, was not found"):
        nvrtc.compile_ptx_by_nvrtc("warp")
    shutil.rmtree(double)
    (double / "include").mkdir(parents=True)
    with pytest.raises(KernelBuildError, match="NVRTC was not found"):
        nvrtc.compile_ptx_by_nvrtc("warp")


@pytest.mark.versionless
@pytest.mark.parametrize("source", SOURCES)
def test_nvrtc_itself_compiles_the_kernels(source, tmp_path):
    if nvrtc._library() is None:
        pytest.skip("NVRTC is not installed (pip install nvidia-cuda-nvrtc nvidia-cuda-runtime)")
    ptx = nvrtc.compile_ptx_by_nvrtc(source)
    for name in (name for name, (holder, _) in KERNELS.items() if holder == source):
        assert f".entry {name}(".encode() in ptx
    nvcc = build.find_nvcc()
    if nvcc is not None:
        (tmp_path / "kernel.ptx").write_bytes(ptx[:-1])
        build._run(
            [str(nvcc), "-arch=sm_75", "--cubin", "-o", str(tmp_path / "cubin"), str(tmp_path / "kernel.ptx")], ""
        )
